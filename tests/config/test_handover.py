"""What is refused of handovers: where nobody is going to be reached, and what it takes where somebody is."""

from pathlib import Path

import pytest

from tests.config.test_malformed import FREE, GOOD, MINE, THEIRS, problems_of
from tidegate.config.build import build
from tidegate.config.load import checked, document, load
from tidegate.config.problem import Problems

HANDED = GOOD + THEIRS + FREE
SIZED = "kv_kib_per_token = 20\n"
TO_MINE = '[[endpoint.theirs.handover]]\nto = "mine"\n'

FETCHED = HANDED.replace('"llamacpp"', '"vllm"').replace('"openai"', '"vllm"') + "owned = false\n"
APART = HANDED.replace('["m"]', '["n"]', 1)
KNOWN = 'fingerprint = { weights = "hf:o/one" }\n'
OTHER = HANDED.replace(MINE, MINE + KNOWN.replace("one", "other"))

# What is written, where the problem is, what is said about it, and what of the remedy.
MALFORMED = [
    (HANDED + TO_MINE, "endpoint.theirs.handover[0].kv_kib_per_token", "size of a KV cache", "model_facts"),
    (HANDED + TO_MINE.replace("mine", "mina") + SIZED, "endpoint.theirs.handover[0].to", "no such endpoint", "`mine`"),
    (HANDED + TO_MINE.replace('"mine', '"theirs') + SIZED, "endpoint.theirs.handover[0].to", "no slot", "owned = true"),
    (HANDED + 2 * (TO_MINE + SIZED), "endpoint.theirs.handover[1].to", "written twice", "leave one"),
    (HANDED + "owned = true\n" + TO_MINE + SIZED, "endpoint.theirs.handover", "whole requests", "owned = false"),
    (HANDED + TO_MINE + SIZED + "layers = 0\n", "endpoint.theirs.handover[0].layers", "0 is not", "layer"),
    (APART + TO_MINE + SIZED, "endpoint.theirs.handover[0].to", "no model in common", "the same name"),
    (OTHER + KNOWN + TO_MINE + SIZED, "endpoint.theirs.handover[0].to", "`fingerprint.weights`", "agree"),
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


def test_engines_that_fetch_by_themselves_need_nothing_between_them(tmp_path: Path) -> None:
    file = tmp_path / "tidegate.toml"
    file.write_text(FETCHED + TO_MINE + SIZED)
    (theirs,) = [one for one in build(load(file, {}), 0.0).endpoints if one.name == "theirs"]
    (handover,) = theirs.handovers
    assert (handover.target, handover.whole) == ("mine", False), "what is there already is not fetched"


def test_a_courier_beside_an_engine_that_fetches_by_itself_is_refused(tmp_path: Path) -> None:
    text = FETCHED + 'courier = { name = "rack", address = "192.0.2.9:8490" }\n' + TO_MINE + SIZED
    (found,) = problems_of(tmp_path, text)
    assert (found.path, found.remedy) == ("endpoint.theirs.courier", "leave it out")


def test_nothing_goes_between_engines_of_different_kinds(tmp_path: Path) -> None:
    text = FETCHED.replace('"vllm"', '"llamacpp"', 1) + TO_MINE + SIZED
    assert ("endpoint.theirs.engine", 'two of "vllm"') in {
        (problem.path, problem.remedy[-13:]) for problem in problems_of(tmp_path, text)
    }


def test_the_address_of_a_courier_has_a_port(tmp_path: Path) -> None:
    text = HANDED + 'courier = { name = "rack", address = "rack" }\n' + TO_MINE + SIZED
    found = [one for one in problems_of(tmp_path, text) if one.path == "endpoint.theirs.courier.address"]
    assert "host:port" in found[0].remedy
