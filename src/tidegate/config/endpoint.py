"""An endpoint in the configuration file: its engine, price, and what it is believed to do at first."""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from tidegate.config.fingerprint import FingerprintTable
from tidegate.config.handover import CourierPlaceTable, HandoverTable
from tidegate.config.hardware import HardwareTable, ModelFactsTable
from tidegate.config.price import PriceTable, PriceWord, RunningCostTable
from tidegate.config.table import Table, Text
from tidegate.core.model import Capability


class EngineKind(StrEnum):
    """The software behind an endpoint, as far as its dialect differs."""

    LLAMACPP = "llamacpp"
    OLLAMA = "ollama"
    VLLM = "vllm"
    SGLANG = "sglang"
    OPENAI = "openai"
    RESPONSES = "openai-responses"
    ANTHROPIC = "anthropic"
    FAKE = "fake"


class PriorTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the endpoint is believed to do before anything was measured; a few dozen requests overrule it.

    What is left out follows from `hardware`, where that and the model are known. Otherwise it depends on the engine, as
    the table of engines shows.
    """

    prefill_tokens_per_s: Annotated[
        # From a small board to a rack: beyond, a unit was mixed up.
        Annotated[float, Meta(ge=0.1, le=1e7)] | None,
        Meta(description="Prompt tokens processed each second at the start of a prompt."),
    ] = None
    prefill_half_speed_tokens: Annotated[
        Annotated[float, Meta(ge=100, le=1e9)] | None,  # below, attention would outweigh the weights in any model
        Meta(description="Prompt length at which that speed has fallen to half: attention grows with the square."),
    ] = None
    decode_tokens_per_s: Annotated[
        Annotated[float, Meta(ge=0.01, le=1e5)] | None,  # from a disk-bound giant to wafer-scale hardware
        Meta(description="Output tokens each second for a single request."),
    ] = None
    batch_slowdown: Annotated[
        Annotated[float, Meta(ge=0, le=2)] | None,  # at 1 requests take turns; a little more is thrashing
        Meta(description="Share by which each further running request stretches the time per token."),
    ] = None
    batch_fading: Annotated[
        Annotated[float, Meta(ge=0, le=1)] | None,  # a share
        Meta(
            description="What each further one of them adds, as a share of what the one before added: below 1 in a "
            "model of experts, of which many requests share what is read."
        ),
    ] = None
    decode_context_tokens_per_s: Annotated[
        Annotated[float, Meta(ge=1, le=1e12)] | None,  # from a small board to a rack
        Meta(
            description="Tokens of context read each second while output is produced: the contexts of all running "
            "requests stretch the time per token. Without it their length makes no difference."
        ),
    ] = None
    batch_tokens: Annotated[
        Annotated[int, Meta(ge=1, le=1_000_000)] | None,  # beyond any context window
        Meta(
            description="Prompt tokens that llama.cpp computes before it looks at new requests (its `--batch-size`). "
            "2048 for llama.cpp, being its own default. It reads prompts by the numbers of their slots; others "
            "read them as they came."
        ),
    ] = None
    overhead_ms: Annotated[
        Annotated[float, Meta(ge=0, le=60_000)] | None,  # a minute is a cold start, not an overhead
        Meta(description="Time to the first token that does not depend on the prompt, without the network."),
    ] = None
    rtt_ms: Annotated[
        Annotated[float, Meta(ge=0, le=5000)] | None,  # a geostationary satellite takes 600
        Meta(description="Round trip of the network."),
    ] = None
    upload_mbit_per_s: Annotated[
        Annotated[float, Meta(ge=0.01, le=1e6)] | None,  # from a bad mobile link to a terabit
        Meta(description="Bandwidth towards the endpoint."),
    ] = None
    sigma: Annotated[
        Annotated[float, Meta(ge=0.01, le=3)] | None,  # at 3 one in three predictions is off by more than 20 times
        Meta(description="Trust in all this: the standard deviation of log(actual / predicted)."),
    ] = None
    load_s: Annotated[
        Annotated[float, Meta(ge=0.01, le=86_400)] | None,  # beyond a day it is an installation
        Meta(
            description="Time until a model that is not loaded can answer. Left out, as the size of its weights has it "
            "where that is known: a second for each 3.4 GB; else 10."
        ),
    ] = None
    unload_after_s: Annotated[
        Annotated[float, Meta(ge=0, le=2_678_400)] | None,  # a month, in which everything was restarted
        Meta(
            description="Time without use after which its engine unloads the model, or a fleet scales to zero. 300 for "
            "`ollama`, being its own default; others keep it, as most do. Of a fleet any request starts the engine, so "
            "where it is written for another kind than `llamacpp` and `ollama`, probes rest while it is up and nothing "
            "is in flight."
        ),
    ] = None


class EndpointTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One addressable engine at a site serving one model: the unit a decision picks."""

    site: Annotated[
        str, Meta(min_length=1, max_length=64, description="The site it stands at: the name of a `[site.NAME]` table.")
    ]
    engine: Annotated[
        EngineKind,
        Meta(
            description="Its dialect: `llamacpp` for llama-server, `ollama`, `vllm` and `sglang` by their names, "
            "`anthropic` for the Messages API, `openai-responses` for the Responses API, where OpenAI's newer models "
            "take tools and think at once, `openai` for everything else that speaks the OpenAI API (vendors, "
            "gateways), `fake` for tests."
        ),
    ]
    url: Annotated[
        str,
        Meta(
            max_length=2048,  # what proxies take
            description="Where it listens, as OpenAI clients are told it: `https://host:port/v1`; a path before "
            "`/v1` is kept, and `/v1` itself may be left out. Where a vendor's own version is at the end, as in "
            "`/api/paas/v4` and `/v1beta/openai`, none follows. Left out where nothing is sent, as in a scenario.",
        ),
    ] = ""
    model: Annotated[
        str,
        Meta(
            max_length=256,  # repository paths of models have about 100 characters
            description="The endpoint's own name for the model, put into every request to it. Left out, the name "
            "the client asked for is passed on.",
        ),
    ] = ""
    serves: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=256)], ...],
        Meta(
            max_length=256,  # a list to read through
            description="Names clients may ask for. Left out, `model`: the name that is known already.",
        ),
    ] = ()
    context_tokens: Annotated[
        # Below 128 no chat template fits; ten times the longest context there is.
        Annotated[int, Meta(ge=128, le=100_000_000)] | None,
        Meta(
            description="Context window of one request, prompt and output together. Left out, the engine is asked; "
            "`openai` does not tell."
        ),
    ] = None
    output_tokens_max: Annotated[
        Annotated[int, Meta(ge=1, le=100_000_000)] | None,  # as the window
        Meta(
            description="The most that its model generates for one answer, as vendors declare it. Budgets hold back "
            "the price of so much where a request gives no bound of its own. Left out, the window."
        ),
    ] = None
    concurrency: Annotated[
        Annotated[int, Meta(ge=1, le=10_000)] | None,  # beyond, the sockets give out first
        Meta(
            description="Requests it runs at once without slowing down too much; the most we send. Depends on the "
            "engine, as the table of engines shows."
        ),
    ] = None
    owned: Annotated[
        bool | None,
        Meta(
            description="Whether the capacity is ours alone, so that work is held here rather than in the engine's "
            "queue. True at a local site: nobody else uses it there."
        ),
    ] = None
    shares_compute: Annotated[
        bool | None,
        Meta(
            description="Whether requests in flight slow each other. True for one engine; false for a vendor at a "
            "remote site, whose fleet does not show it."
        ),
    ] = None
    capabilities: Annotated[
        Annotated[tuple[Capability, ...], Meta(min_length=1)] | None,  # an endpoint that can do nothing is a mistake
        Meta(
            description="What it can do; a request that needs more goes elsewhere. By engine, as far as every "
            "model on it can: `vision` and `audio` have to be said."
        ),
    ] = None
    fingerprint: Annotated[
        FingerprintTable,
        Meta(
            description="What its model is. Engines of your own are asked; while what they tell contradicts this, the "
            "endpoint counts as `same_family`, not as `identical`. For vendors this is all that is known."
        ),
    ] = FingerprintTable()
    api_key_env: Annotated[
        str,
        Meta(
            max_length=128,
            description="Environment variable that holds the API key. Never the key itself: this file is read by "
            "many eyes.",
        ),
    ] = ""
    api_key_file: Annotated[
        Text,
        Meta(
            description="File that holds the API key, relative to this one, not readable by everybody. Instead of "
            "the variable, as secret mounts are files."
        ),
    ] = ""
    price: Annotated[
        # A price list announces one change at a time: 64 are decades.
        PriceWord | PriceTable | Annotated[tuple[PriceTable, ...], Meta(min_length=1, max_length=64)] | None,
        Meta(
            description="What its tokens cost: numbers, or where to look them up. Left out, work at a local site has "
            "no price, as nobody sends a bill; a remote one has to say it."
        ),
    ] = None
    running_cost: Annotated[
        RunningCostTable | None,
        Meta(
            description="What running the engine costs, besides its tokens. Left out, nothing: its hardware is paid "
            "for and its power not counted."
        ),
    ] = None
    hardware: Annotated[
        HardwareTable | None,
        Meta(
            description="What it runs on: the `prior` follows from that and the model. Left out, the prior is as usual "
            "for the engine."
        ),
    ] = None
    model_facts: Annotated[
        Text | ModelFactsTable | None,
        Meta(
            description="What its model is made of: a known model's name, or a table. Left out, engines of your own "
            "tell, and until then it is what `model` names. Only together with `hardware`."
        ),
    ] = None
    prior: Annotated[
        PriorTable, Meta(description="What it is believed to do at first. Depends on the engine, until measured.")
    ] = PriorTable()
    probe_s: Annotated[
        float,
        Meta(
            ge=2,  # llama.cpp stops noticing clients that left when it is asked more than once a second
            le=3600,  # an hour-old state is none
            description="Time between two probes; one that is down is asked each second, unless it scales to zero. "
            "Five seconds notice an outage before many requests do, and cost nothing.",
        ),
    ] = 5.0
    canary_s: Annotated[
        Annotated[float, Meta(ge=0, le=604_800)] | None,  # a drift that lasted a week was noticed by somebody
        Meta(
            description="Time between two readings of its canary, which notices that its model is no longer what it "
            "was: another quantisation, template or model behind the same name. 0 for none, else a minute or more. "
            "Six hours where tokens cost nothing and `logprobs` is among the capabilities; else none unless written, "
            "as each reading takes 24 tokens of output."
        ),
    ] = None
    warm_up: Annotated[
        bool | None,
        Meta(
            description="Whether its model, where it is not loaded, is loaded for nobody in particular once it is "
            "missed, by a question for one token. True for chat models where the capacity is ours and tokens are free."
        ),
    ] = None
    keep_loaded_usd_per_hour: Annotated[
        Annotated[float, Meta(ge=0, le=10_000)] | None,  # as running costs
        Meta(
            description="What it costs to keep its model loaded while nobody asks for it: memory, power, rent. It is "
            "kept until that comes to what its absence would cost, and for good at 0. Left out, the engine unloads it "
            "when it does. Only where `warm_up` holds."
        ),
    ] = None
    handover: Annotated[
        tuple[HandoverTable, ...],
        Meta(
            max_length=16,  # of one rack's neighbours
            description="Endpoints for which it computes prompts, whose KV caches it sends there: each a table. Only "
            "between engines that are known to have the same model.",
        ),
    ] = ()
    courier: Annotated[
        CourierPlaceTable | None,
        Meta(
            description="The courier beside a llama.cpp that hands prompts over or is handed some. Left out, there is "
            "none; vLLM needs none."
        ),
    ] = None
    tls_ca_file: Annotated[
        Text,
        Meta(
            description="File of certificates to trust besides the usual, relative to this one: for engines with "
            "a certificate of your own. Verification cannot be switched off."
        ),
    ] = ""
    connect_timeout_s: Annotated[
        float,
        Meta(
            ge=0.1,  # a round trip around the world is 0.3, with TLS three of them
            le=60,  # beyond, the promise is lost anyway
            description="Time to connect, TLS included. A lost packet is repeated after 1 s and 3 s: 5 forgive two. "
            "Of a name's addresses but the last, a silent one takes half of what is left, and comes last from then on.",
        ),
    ] = 5.0
