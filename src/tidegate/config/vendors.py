"""Vendors that a key in the usual environment variable gives access to, and what each offers by default."""

from collections.abc import Mapping

from tidegate.config import secret
from tidegate.config.endpoint import EngineKind
from tidegate.config.listed import NotListedError, find
from tidegate.config.secret import SecretError
from tidegate.core.model import Price, Record, replace


class Vendor(Record, frozen=True, kw_only=True):
    """Where a vendor listens, and the models to begin with: their names there, their windows, and the most that each
    generates for one answer, both in tokens. None: what its window leaves.

    `name` is the vendor's site in a configuration, `provider` its name in genai-prices.
    """

    name: str
    variable: str
    engine: EngineKind
    url: str
    provider: str
    models: tuple[tuple[str, int, int | None], ...]


class Offered(Record, frozen=True, kw_only=True):
    """A vendor's model, with its price today. Without one, `remark` says why there is none.

    It generates `output_tokens_max` for one answer at most; None is its window.
    """

    name: str
    context_tokens: int
    output_tokens_max: int | None = None
    price: Price | None
    remark: str = ""


class Remote(Record, frozen=True, kw_only=True):
    """A vendor whose key is there. `remark` says why it cannot be used all the same, and is empty where it can."""

    vendor: Vendor
    models: tuple[Offered, ...]
    remark: str = ""

    @property
    def usable(self) -> tuple[Offered, ...]:
        """The models that can be paid for, since what they cost is known."""
        return () if self.remark else tuple(model for model in self.models if model.price is not None)


def _openai(name: str, variable: str, url: str, *models: tuple[str, int, int | None], provider: str = "") -> Vendor:
    return Vendor(
        name=name, variable=variable, engine=EngineKind.OPENAI, url=url, provider=provider or name, models=models
    )


# Two of each vendor's: a small one first. The numbers are the vendors' own: of a window the smaller where two are
# given, of an output the larger that a "K" may mean, since budgets hold back the price of so much.
VENDORS: tuple[Vendor, ...] = (
    Vendor(
        name="anthropic",
        variable="ANTHROPIC_API_KEY",
        engine=EngineKind.ANTHROPIC,
        url="https://api.anthropic.com/v1",
        provider="anthropic",
        models=(("claude-haiku-4-5", 200_000, 64_000), ("claude-sonnet-4-6", 200_000, 64_000)),
    ),
    _openai("deepseek", "DEEPSEEK_API_KEY", "https://api.deepseek.com/v1", ("deepseek-v4-flash", 1_000_000, 393_216)),
    _openai(
        "google",
        "GEMINI_API_KEY",
        "https://generativelanguage.googleapis.com/v1beta/openai",
        ("gemini-3.5-flash-lite", 1_000_000, 65_536),
        ("gemini-3.5-flash", 1_000_000, 65_536),
    ),
    _openai(
        "groq",
        "GROQ_API_KEY",
        "https://api.groq.com/openai/v1",
        ("openai/gpt-oss-20b", 131_072, 65_536),
        ("openai/gpt-oss-120b", 131_072, 65_536),
    ),
    _openai(
        "mistral",
        "MISTRAL_API_KEY",
        "https://api.mistral.ai/v1",
        ("mistral-small-latest", 128_000, None),
        ("mistral-medium-latest", 128_000, None),
    ),
    _openai(
        "openai",
        "OPENAI_API_KEY",
        "https://api.openai.com/v1",
        ("gpt-4.1-mini", 1_000_000, 32_768),
        ("gpt-4.1", 1_000_000, 32_768),
    ),
    _openai(
        "openrouter",
        "OPENROUTER_API_KEY",
        "https://openrouter.ai/api/v1",
        ("openai/gpt-4.1-mini", 1_000_000, 32_768),
        ("anthropic/claude-haiku-4.5", 200_000, 64_000),
    ),
    _openai(
        "together",
        "TOGETHER_API_KEY",
        "https://api.together.xyz/v1",
        ("meta-llama/Llama-3.3-70B-Instruct-Turbo", 131_072, None),
    ),
    _openai("xai", "XAI_API_KEY", "https://api.x.ai/v1", ("grok-4.3", 1_000_000, None), provider="x-ai"),
)


def remotes(variables: Mapping[str, str], at_s: float) -> tuple[Remote, ...]:
    """The vendors whose keys stand in `variables`, with their prices at `at_s`. Nobody is asked anything."""
    return tuple(_remote(vendor, variables, at_s) for vendor in VENDORS if variables.get(vendor.variable, "").strip())


def _remote(vendor: Vendor, variables: Mapping[str, str], at_s: float) -> Remote:
    models = tuple(_offered(vendor, *model, at_s) for model in vendor.models)
    try:
        secret.from_variable(vendor.variable, variables)
    except SecretError as error:
        return Remote(vendor=vendor, models=models, remark=error.message)
    return Remote(vendor=vendor, models=models)


def _offered(vendor: Vendor, name: str, context_tokens: int, output_tokens_max: int | None, at_s: float) -> Offered:
    offered = Offered(name=name, context_tokens=context_tokens, output_tokens_max=output_tokens_max, price=None)
    try:
        listed = find(vendor.provider, name, vendor.url)
    except NotListedError as error:
        return replace(offered, remark=error.message)
    if listed.lacking() & {"usd_per_input_token", "usd_per_output_token"}:
        return replace(offered, remark="half of its price is not known")
    return replace(offered, price=listed.price(at_s))
