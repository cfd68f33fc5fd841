"""What Ollama's clients look up."""

import json

from tidegate.wire.ollama.models import version


def test_its_version_is_that_of_what_is_served() -> None:
    """Codex takes no server for Ollama's Responses before 0.13.4, and 0.14.0 brought Messages."""
    told = tuple(int(part) for part in json.loads(version())["version"].split("."))
    assert told >= (0, 14, 0)
