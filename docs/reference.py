"""Writes the generated reference pages: `make docs`."""

from pathlib import Path

from docs.dialects import dialects
from tidegate.config.reference import reference as configuration
from tidegate.core.model import WHY_TEXT
from tidegate.telemetry.metrics import reference as metrics

FOLDER = Path(__file__).parent / "reference"


def reasons() -> str:
    """The page of all reasons."""
    rows = [f"| `{why.value}` | {text} |" for why, text in WHY_TEXT.items()]
    return "\n".join(["# Reasons", "", "Every reason a decision or an exclusion can have.", "", "| reason | meaning |",
                      "| --- | --- |", *rows]) + "\n"  # fmt: skip


PAGES = {"configuration.md": configuration, "dialects.md": dialects, "metrics.md": metrics, "reasons.md": reasons}


def main() -> None:
    """Write them."""
    for name, make in PAGES.items():
        (FOLDER / name).write_text(make())


if __name__ == "__main__":
    main()
