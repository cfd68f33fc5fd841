"""What a measurement may cost, in seconds, tokens and dollars: nothing is sent that could go beyond."""

from tidegate.clock import Clock
from tidegate.core.model import Record


class Budget(Record, frozen=True, kw_only=True):
    """The most that all requests together may take. Prices are per token; `usd` is None where nothing is paid for."""

    seconds: float
    tokens: int
    usd: float | None = None
    usd_per_input_token: float = 0.0
    usd_per_output_token: float = 0.0

    def price_usd(self, prompt_tokens: int, output_tokens: int) -> float:
        """What so many tokens cost; cached ones may cost less, and are not counted on."""
        return prompt_tokens * self.usd_per_input_token + output_tokens * self.usd_per_output_token


class SpentError(Exception):
    """The next request could go beyond the budget; `what` of it is spent."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


class Purse:
    """A budget that is being spent. What is under way counts with the most that it can take."""

    def __init__(self, budget: Budget, clock: Clock) -> None:
        self.budget = budget
        self.requests = self.tokens = 0
        self.usd = 0.0
        self._held_tokens = 0
        self._held_usd = 0.0
        self._clock = clock
        self._began_s = clock.now_s()

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return self._clock.now_s() - self._began_s

    @property
    def until_s(self) -> float:
        """The time at which nothing may be under way any more."""
        return self._began_s + self.budget.seconds

    @property
    def seconds_left(self) -> float:
        """Until the end."""
        return self.budget.seconds - self.seconds

    def hold(self, prompt_tokens: int, output_tokens: int) -> None:
        """Before a request that takes so many at most. Raises `SpentError`."""
        budget = self.budget
        if self.tokens + self._held_tokens + prompt_tokens + output_tokens > budget.tokens:
            raise SpentError("tokens")
        usd = budget.price_usd(prompt_tokens, output_tokens)
        if budget.usd is not None and self.usd + self._held_usd + usd > budget.usd:
            raise SpentError("dollars")
        if self.seconds_left <= 0.0:
            raise SpentError("seconds")
        self.requests += 1
        self._held_tokens += prompt_tokens + output_tokens
        self._held_usd += usd

    def settle(self, held: tuple[int, int], took: tuple[int, int]) -> None:
        """After it: what was held for its prompt and output, and what they took."""
        self._held_tokens -= sum(held)
        self._held_usd -= self.budget.price_usd(*held)
        self.tokens += sum(took)
        self.usd += self.budget.price_usd(*took)
