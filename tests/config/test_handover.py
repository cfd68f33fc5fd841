"""What is refused of handovers: where nobody is going to be reached, and what it takes where somebody is."""

from pathlib import Path

import pytest

from tests.config.test_malformed import FREE, GOOD, THEIRS, problems_of
from tidegate.config.load import checked, document
from tidegate.config.problem import Problems

HANDED = GOOD + THEIRS + FREE
SIZED = "kv_kib_per_token = 20\n"
TO_MINE = '[[endpoint.theirs.handover]]\nto = "mine"\n'

# What is written, where the problem is, what is said about it, and what of the remedy.
MALFORMED = [
    (HANDED + TO_MINE, "endpoint.theirs.handover[0].kv_kib_per_token", "size of a KV cache", "model_facts"),
    (HANDED + TO_MINE.replace("mine", "mina") + SIZED, "endpoint.theirs.handover[0].to", "no such endpoint", "`mine`"),
    (HANDED + TO_MINE.replace('"mine', '"theirs') + SIZED, "endpoint.theirs.handover[0].to", "no slot", "owned = true"),
    (HANDED + 2 * (TO_MINE + SIZED), "endpoint.theirs.handover[1].to", "written twice", "leave one"),
    (HANDED + "owned = true\n" + TO_MINE + SIZED, "endpoint.theirs.handover", "whole requests", "owned = false"),
    (HANDED + TO_MINE + SIZED + "layers = 0\n", "endpoint.theirs.handover[0].layers", "0 is not", "layer"),
]


@pytest.mark.parametrize(("text", "path", "message", "remedy"), MALFORMED, ids=lambda v: str(v)[-24:])
def test_what_cannot_be_is_refused(text: str, path: str, message: str, remedy: str) -> None:
    problems = Problems("t.toml")
    assert checked(document(text, "t.toml"), Path("t.toml"), problems, None) is None
    (problem,) = problems.found
    assert problem.path == path
    assert message in problem.message
    assert remedy in problem.remedy


def test_a_gateway_needs_couriers_between_engines_that_they_know(tmp_path: Path) -> None:
    found = {(problem.path, problem.message) for problem in problems_of(tmp_path, HANDED + TO_MINE + SIZED)}
    assert ("gateway.couriers", "it is missing") in found
    assert ("endpoint.mine.courier", "it is missing") in found
    assert ("endpoint.theirs.courier", "it is missing") in found
    assert any(path == "endpoint.theirs.engine" for path, _ in found)


def test_the_address_of_a_courier_has_a_port(tmp_path: Path) -> None:
    text = HANDED + 'courier = { name = "rack", address = "rack" }\n' + TO_MINE + SIZED
    found = [one for one in problems_of(tmp_path, text) if one.path == "endpoint.theirs.courier.address"]
    assert "host:port" in found[0].remedy
