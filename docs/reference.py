"""Writes the generated reference pages: `make docs`."""

from pathlib import Path

from docs.dialects import dialects
from docs.openai_fields import openai_fields
from tidegate.cli.main import CHAOS_PORT
from tidegate.config.reference import reference as configuration
from tidegate.core.model import WHY_TEXT
from tidegate.engines.faults import EXPECTED, FAULTS, Kind
from tidegate.telemetry.metrics import reference as metrics

FOLDER = Path(__file__).parent / "reference"


def reasons() -> str:
    """The page of all reasons."""
    rows = [f"| `{why.value}` | {text} |" for why, text in WHY_TEXT.items()]
    return "\n".join(["# Reasons", "", "Every reason a decision or an exclusion can have.", "", "| reason | meaning |",
                      "| --- | --- |", *rows]) + "\n"  # fmt: skip


_FAULTS = f"""# Faults

Every way in which an upstream is known to let its callers down, and what a correct caller makes of it. The tests put
each of them before the gateway. `tidegate chaos` runs a provider that commits them: give a client or a gateway
`http://127.0.0.1:{CHAOS_PORT}/FAULT/v1` as its base URL, with any key and any model. Without a fault, `/v1` behaves;
`/seen` counts requests, clients that left, and what is under way.

Faults marked † show before a path is sent and have addresses of their own, which the command prints. Those marked *
neither go on nor close, so that only the caller's own time-out ends them.
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


PAGES = {
    "configuration.md": configuration,
    "dialects.md": dialects,
    "faults.md": faults,
    "metrics.md": metrics,
    "openai-fields.md": openai_fields,
    "reasons.md": reasons,
}


def main() -> None:
    """Write them."""
    for name, make in PAGES.items():
        (FOLDER / name).write_text(make())


if __name__ == "__main__":
    main()
