"""The JSON schema of the configuration file: editors read it, so it has to be right by itself."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tidegate.config.document import json_schema

VALIDATOR = Draft202012Validator(json_schema())
EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.toml"))


def problems(text: str) -> list[Any]:
    return list(VALIDATOR.iter_errors(_plain(tomllib.loads(text))))


def _plain(value: Any) -> Any:
    """Dates as text: JSON has none."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value.isoformat() if hasattr(value, "isoformat") else value


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_fits(path: Path) -> None:
    assert problems(path.read_text()) == []


@pytest.mark.parametrize(
    "text",
    [
        "[gatewey]\n",
        "[gateway]\nlisten_on = 'x'\n",
        "[gateway]\ndrain_s = -1\n",
        "[policy]\nquantile = 1.5\n",
        "[site.home]\n",
        "[site.'Not A Name']\nlocal = true\n",
        "[endpoint.a]\nsite = 'home'\nengine = 'toaster'\n",
        "[endpoint.a]\nsite = 'home'\nengine = 'vllm'\nprice = { usd_per_1m_input_tokens = 'much' }\n",
        "[class.c]\nslo = { ttft_ms = 0 }\n",
    ],
)
def test_what_is_wrong_by_itself_does_not_fit(text: str) -> None:
    assert problems(text) != []


def test_every_setting_says_what_it_is() -> None:
    undescribed = [
        f"{name}.{field}"
        for name, table in json_schema()["$defs"].items()
        for field, spec in table.get("properties", {}).items()
        if name != "Document" and "description" not in spec and "$ref" not in spec
    ]
    assert undescribed == []
