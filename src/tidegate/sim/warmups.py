"""Loads of models at simulated places, for nobody in particular."""

from collections.abc import Callable, Mapping

from tidegate.core.model import Endpoint, Observation, Request, Warmed, Warming
from tidegate.core.warmup import WARM_UP_TOKENS, within_s
from tidegate.sim.decider import Decider
from tidegate.sim.job import Job
from tidegate.sim.loop import Loop
from tidegate.sim.place import Attempt, Place


class WarmUps:
    """Begins those that the router wants. `under_way` has when each is given up; all of them have cost `spent_usd`.

    wanted    whether there may ever be any
    """

    def __init__(
        self,
        places: Mapping[str, Place],
        endpoints: Mapping[str, Endpoint],
        loop: Loop,
        router: Decider,
        tell: Callable[[Observation], None],
        usd: dict[str, float],
    ) -> None:
        """`tell` passes a fact on; to `usd`, by endpoint, what they cost is added."""
        self._places, self._endpoints, self._loop, self._router, self._tell = places, endpoints, loop, router, tell
        self.under_way: dict[Attempt, float] = {}
        self.wanted = any(endpoint.warms_up for endpoint in endpoints.values())
        self.spent_usd = 0.0
        self._usd = usd
        self._begun = 0

    def begin(self) -> None:
        """All that are wanted now."""
        for name in self._router.warm_ups(self._loop.now_s):
            self._begun += 1
            request = Request(
                id=f"warm-up-{self._begun}",
                arrived_s=self._loop.now_s,
                model=self._endpoints[name].models[0],
                klass="",
                prompt_tokens=WARM_UP_TOKENS,
                prompt_bytes=4 * WARM_UP_TOKENS,
                output_tokens_max=1,
            )
            job = Job(request=request, prompt_tokens=WARM_UP_TOKENS, output_tokens=1)
            attempt = Attempt(job, name, self._loop.now_s, hedge=False)
            self._tell(Warming(endpoint=name))
            self.under_way[attempt] = self._loop.now_s + within_s(self._router.endpoint(name).cold, self._loop.now_s)
            self._places[name].send(attempt)

    def give_up(self) -> None:
        """Those whose time is over."""
        for attempt in [one for one, until_s in self.under_way.items() if until_s <= self._loop.now_s]:
            attempt.over = True
            self._places[attempt.endpoint].cancel(attempt)
            self.ended(attempt, served=False)

    def ended(self, attempt: Attempt, *, served: bool) -> bool:
        """Whether that was one, which is over."""
        if attempt not in self.under_way:
            return False
        del self.under_way[attempt]
        endpoint, took_s = self._endpoints[attempt.endpoint], self._loop.now_s - attempt.sent_s
        usd = endpoint.price.usd(WARM_UP_TOKENS, 1, 0) if served else 0.0
        usd += endpoint.running_usd(took_s)
        self._usd[endpoint.name] += usd
        self.spent_usd += usd
        self._tell(Warmed(endpoint=endpoint.name, took_s=took_s, served=served))
        return True
