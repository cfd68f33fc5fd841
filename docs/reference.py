"""Writes the generated reference pages: `make docs`."""

from pathlib import Path

from docs.dialects import dialects
from docs.flight import flight
from docs.openai_fields import openai_fields
from tidegate.cli.main import CHAOS_PORT
from tidegate.config.courier import reference as courier
from tidegate.config.discovered import ASSUMED_TOKENS, ENABLE, UNTOLD_SLOTS
from tidegate.config.reference import reference as configuration
from tidegate.config.vendors import VENDORS
from tidegate.core.why import WHY_TEXT
from tidegate.engines.faults import EXPECTED, FAULTS, Kind
from tidegate.engines.recognise import MODELS_MAX
from tidegate.gateway.discover import BOUND_S, ENGINES_MAX, PATIENCE_S, PORTS
from tidegate.gateway.reply import REFUSALS
from tidegate.lab.chaos import ANSWER_S_MAX
from tidegate.sim.reference import reference as scenarios
from tidegate.telemetry.families import reference as metrics
from tidegate.telemetry.trace import reference as traces

FOLDER = Path(__file__).parent / "reference"


def reasons() -> str:
    """The page of all reasons."""
    rows = []
    for why, text in WHY_TEXT.items():
        status, _, code = REFUSALS.get(why, ("", "", ""))
        rows.append(f"| `{why.value}` | {text} | {status} | {code and f'`{code}`'} |")
    return "\n".join([_REASONS, "| reason | meaning | status | code |", "| --- | --- | --- | --- |", *rows]) + "\n"


_REASONS = """# Reasons

Every reason a decision or an exclusion can have. Where all are excluded a request is refused, with the status and the
code of the one that came closest to a yes: 404 where the model is unknown, 400 where it can never work as it stands,
429 where all are busy or a budget does not hold it, 503 where none is up. `session_elsewhere` is a 400 where waiting
does not help.
"""


_FAULTS = f"""# Faults

Every way in which an upstream is known to let its callers down, and what a correct caller makes of it. The tests put
each of them before the gateway. `tidegate chaos` runs a provider that commits them: give a client or a gateway
`http://127.0.0.1:{CHAOS_PORT}/FAULT/v1` as its base URL, with any key and any model. Without a fault, `/v1` behaves;
`/seen` counts requests, clients that left, and what is under way.

Faults marked † show before a path is sent and have addresses of their own, which the command prints. Those marked *
neither go on nor close, so that only the caller's own time-out ends them. Of `unread`, who leaves while more is under
way than the connection holds is counted when the provider itself gives up, after {ANSWER_S_MAX:g} s.
"""


def faults() -> str:
    """The page of all faults."""
    parts = [_FAULTS]
    for kind in Kind:
        rows = [f"| `{fault.value}`{' †' * told.below_http}{' *' * told.waits} | {told.text} |"
                for fault, told in FAULTS.items() if told.kind is kind]  # fmt: skip
        title = kind.value.replace("_", " ").capitalize()
        parts.append(
            "\n".join(
                [f"## {title}\n\nExpected: {EXPECTED[kind]}.\n", "| fault | meaning |", "| --- | --- |", *rows, ""]
            )
        )
    return "\n".join(parts)


_DISCOVERY = f"""# Serving without a file

Where no `--config` is given and there is no `tidegate.toml` in the current folder, `tidegate serve` serves what it
finds, and says what that is and how it will decide. `tidegate discover` says the same and ends; with `--json` as
JSON, with `--write FILE` it writes the configuration that says the same, to be changed and served with `--config
FILE`. Where there is nothing to serve, both end with status 2.

What is found is what is there at the start: an engine or a key that comes later is found by starting again.

## Engines

Asked are the ports below on 127.0.0.1, and each address that is named with `--engine URL`, of which there may be
{ENGINES_MAX}: on this machine or in its own network, which is then a site of its own. What stands there is told by
what it answers, whatever the port, in {BOUND_S:g} seconds for all. No credential is sent, no model loaded and no
token made. Who neither lists models at `/v1/models`, or below a version that the address has itself, nor wants a key
there is asked nothing more.

An engine that is still loading is served when its probes find it ready; one that does not even list its model is
waited for, {PATIENCE_S:g} s at the most. One that wants a key is left to a file; what wants a login and says so in
no engine's words is none. Another Tidegate is never taken for an engine.

| port | usually |
| --- | --- |
{{ports}}

| taken for | where it answers so |
| --- | --- |
| llama.cpp | models are owned by `llamacpp`, or `/props` has `default_generation_settings` |
| SGLang | models are owned by `sglang`, or `/server_info` tells its sizes |
| vLLM | models are owned by `vllm`, or they have `max_model_len` and there is a `/version` |
| Ollama | `/api/version` and `/api/tags`; the first alone where it wants a key |
| LM Studio | `/api/v0/models` tells each model's type; served as `openai`, with the window of what is loaded |
| KoboldCpp | models are owned by `koboldcpp`; served as `openai`, with window, slots and vision as in its `/props` |
| any other | it lists models; served as `openai`, with a window of {ASSUMED_TOKENS} tokens where it tells none |

Each model that an engine lists is an endpoint, {MODELS_MAX} of one engine at the most. Not served are models that
make embeddings or no text at all, where the engine says so, and those that Ollama passes on to its cloud. Engines that
list the same name are one model for clients. A llama.cpp that does not tell yet how many requests it runs at once is
given {UNTOLD_SLOTS} until it does.

## Vendors

A key in one of these variables makes its vendor known, and no more: **nothing is sent there, not even a probe**,
until

    {ENABLE}

says that it may be, and with which budget, beyond which nothing is sent. A request
without `max_tokens` counts as the most that its model generates, or as a whole window
where the vendor does not say, until it ends: several at once may be refused under a
small budget, though little was spent. Prices are those of genai-prices; a model without
a known price stays out. Keys are neither shown nor written down, only the variables'
names. A model of a vendor is served under its own name, or as `VENDOR/NAME` where an
engine of yours has that: what is asked of your engines stays with them.

To let a vendor's model stand in for one of yours, write a file (`tidegate discover
--write tidegate.toml`), take the marks off the vendor's tables and `[budget]`, take
the name out of `serves` of your endpoint, and give it a table of its own:
`[model.NAME]` with `likeness = "substitute"` and `endpoints = {{{{ YOURS = "identical",
THEIRS = "substitute" }}}}`. To name both alike in `serves` is to say that they are the
same model.

| vendor | variable | models |
| --- | --- | --- |
{{vendors}}
"""


def discovery() -> str:
    """The page of what is found without a file."""
    return _DISCOVERY.format(
        ports="\n".join(f"| {port} | {name} |" for port, name in PORTS.items()),
        vendors="\n".join(
            f"| {one.name} | `{one.variable}` | {', '.join(f'`{name}`' for name, *_ in one.models)} |"
            for one in VENDORS
        ),
    )


PAGES = {
    "configuration.md": configuration,
    "courier.md": courier,
    "dialects.md": dialects,
    "discovery.md": discovery,
    "faults.md": faults,
    "flight.md": flight,
    "metrics.md": metrics,
    "openai-fields.md": openai_fields,
    "reasons.md": reasons,
    "scenarios.md": scenarios,
    "trace-attributes.md": traces,
}


def main() -> None:
    """Write them."""
    for name, make in PAGES.items():
        (FOLDER / name).write_text(make())


if __name__ == "__main__":
    main()
