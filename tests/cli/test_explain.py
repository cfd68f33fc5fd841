"""What `tidegate explain` prints of a decision."""

import io
import json
from pathlib import Path

import msgspec
import pytest

from tests import make
from tidegate.cli.journal import flip_text, print_explained, print_stages
from tidegate.cli.main import main
from tidegate.cli.output import Console
from tidegate.core.facts import ACCELERATORS, MODELS
from tidegate.core.flips import Axis, Copy, Flip, flips
from tidegate.core.hardware import Machine
from tidegate.core.model import (
    JOURNAL_VERSION,
    Decision,
    Fact,
    Fingerprint,
    Handover,
    Line,
    Prefill,
    Price,
    Probed,
    Segment,
    Slo,
    replace,
)
from tidegate.core.replay import explained, with_flips
from tidegate.core.router import Router
from tidegate.core.timeline import Stage, What
from tidegate.core.why import WHY_TEXT, Why
from tidegate.telemetry.segments import SegmentName

CHEAP = Price(usd_per_input_token=1e-6, usd_per_output_token=4e-6)
# As quick: nobody would go there who knows.
DEAR = make.endpoint("dear", local=False, price=replace(CHEAP, usd_per_output_token=6e-6))


def test_each_candidate_is_told_with_its_speed_what_it_saves_and_what_bounds_it() -> None:
    machine = Machine(accelerator=ACCELERATORS["l4"], model=MODELS["llama-3.1-8b"])
    router = make.router(make.endpoint(machine=machine), make.endpoint("cloud", local=False))
    request = make.request("r", prompt_tokens=4_000, prompt_bytes=16_000)
    found = explained(router, request, router.decide(request, 0.0), 0.0)
    text = io.StringIO()
    print_explained(Console(file=text, width=120), found)
    lines = text.getvalue().splitlines()
    head = next(index for index, line in enumerate(lines) if line.startswith("computing"))
    assert "x laptop" in lines[head]
    assert [line.split()[0] for line in lines[head + 1 :]] == ["cloud", "laptop"]
    fast, slow = found.densities[0], found.densities[1]
    assert fast.saved_s_per_byte is not None
    assert f"{1e6 * fast.saved_s_per_byte:.3g}" in lines[head + 1]
    assert slow.prefill is not None
    assert f"{slow.prefill.intensity_flop_per_byte:.3g} compute" in lines[head + 2]
    assert "memory" in lines[head + 2]


def test_a_prompt_that_could_be_computed_elsewhere_is_told_with_what_is_sent() -> None:
    one = Fingerprint(weights="hf:o/one")
    handover = Handover(target="laptop", kv_bytes_per_token=20_000.0, bytes_per_s=20e6)
    router = make.router(
        make.endpoint(fingerprint=one, prior=make.scaled(make.LOCAL_PRIOR, 20.0)),
        make.endpoint("rack", local=False, fingerprint=one, handovers=(handover,)),
    )
    request = make.request("r", prompt_tokens=4_000, prompt_bytes=16_000)
    decision = replace(router.decide(request, 0.0), plan=(Prefill(endpoint="rack", target="laptop", timeout_s=10.0),))
    text = io.StringIO()
    print_explained(Console(file=text, width=160), explained(router, request, decision, 0.0))
    said = text.getvalue()
    assert "-> prefill at rack for laptop" in said
    assert any(line.startswith("rack > laptop") for line in said.splitlines())
    assert "its KV cache (about 80 MB) is at laptop 4" in said


@pytest.mark.parametrize(("quantile", "said"), [(0.9, "90 % <"), (0.99, "99 % <"), (0.995, "99.5 % <")])
def test_a_bound_is_told_with_the_share_that_is_to_be_below_it(quantile: float, said: str) -> None:
    router = make.router(make.endpoint(), quantile=quantile)
    request = make.request("r")
    text = io.StringIO()
    print_explained(Console(file=text, width=160), explained(router, request, router.decide(request, 0.0), 0.0))
    head = next(line for line in text.getvalue().splitlines() if line.startswith("candidate"))
    assert said in head


def test_a_transfer_that_failed_says_why() -> None:
    failed = Stage(
        what=What.TRANSFER, endpoint="rack", target="laptop", began_s=1.0, took_s=0.5, failed=True, cause="ticket"
    )
    text = io.StringIO()
    print_stages(Console(file=text, width=120), [failed])
    assert text.getvalue().splitlines()[1].endswith("failed (ticket) ")
    assert msgspec.json.decode(msgspec.json.encode(failed))["cause"] == "ticket"


def test_what_is_in_brackets_is_part_of_what_clients_call_things() -> None:
    router = make.router(make.endpoint(models=("n[awq]",)))
    request = make.request("[/r]", model="n[awq]")
    text = io.StringIO()
    print_explained(Console(file=text, width=160), explained(router, request, router.decide(request, 0.0), 0.0))
    said = text.getvalue()
    assert said.startswith("[/r] at ")
    assert ", n[awq], about" in said


def test_what_clients_call_things_moves_no_cursor() -> None:
    router = make.router(make.endpoint())
    request = make.request("\x1b[2Jr", model="m\x1b]0;a title\x07")
    text = io.StringIO()
    print_explained(Console(file=text, width=160), explained(router, request, router.decide(request, 0.0), 0.0))
    said = text.getvalue()
    assert said.startswith("[2Jr at ")
    assert said.replace("\n", "").isprintable()


def journal(folder: Path, router: Router, *facts: Fact) -> str:
    """A segment that begins with what this router knows."""
    segment = Segment(
        version=JOURNAL_VERSION, software="t", policy=router.policy, endpoints=router.endpoints, state=router.snapshot()
    )
    lines = [Line(at_s=0.0, fact=fact) for fact in (segment, *facts)]
    (folder / "journal.jsonl").write_bytes(msgspec.json.Encoder().encode_lines(lines))
    return str(folder / "journal.jsonl")


def test_a_difference_is_told_by_an_id_that_moves_no_cursor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    router = make.router(make.endpoint())
    request = make.request("\x1b[2Jr")
    refused = replace(router.decide(request, 0.0), plan=())
    assert main(["replay", journal(tmp_path, router, request, refused), "--jobs", "1"]) == 1
    said = capsys.readouterr().out
    assert "  [2Jr at " in said
    assert "\x1b" not in said


def test_a_load_that_is_to_be_expected_is_told_with_its_chance_and_what_it_takes() -> None:
    prior = replace(make.LOCAL_PRIOR, load_s=45.0)
    router = make.router(make.endpoint(prior=prior), make.endpoint("cloud", local=False))
    router.observe(Probed(endpoint="laptop", up=True, resident=False), 0.0)
    request = make.request("r")
    found = explained(router, request, router.decide(request, 0.0), 0.0)
    text = io.StringIO()
    print_explained(Console(file=text, width=140), found)
    lines = text.getvalue().splitlines()
    head = next(line for line in lines if line.startswith("candidate"))
    cold, warm = (next(line for line in lines if line.startswith(name)) for name in ("laptop", "cloud"))
    assert head[head.index("load") :].split()[0] == "load"
    assert "97% 45 s" in cold
    assert " - " in warm[head.index("load") - 1 :]


def test_memory_is_told_where_it_is_known() -> None:
    router = make.router(make.endpoint("laptop"), make.endpoint("cloud", local=False))
    router.observe(Probed(endpoint="laptop", up=True, kv_tokens_max=4_096), 0.0)
    router.observe(make.started(make.request("a", prompt_tokens=1_000), "laptop"), 0.0)
    request = make.request("r", prompt_tokens=300, output_tokens_max=50)
    found = explained(router, request, router.decide(request, 0.0), 0.0)
    text = io.StringIO()
    print_explained(Console(file=text, width=120), found)
    told = [line for line in text.getvalue().splitlines() if "memory of" in line]
    assert told == ["  memory of laptop: about 350 tokens are needed, 3096 are free"]


def test_nothing_of_it_is_cut_off_however_narrow_the_terminal_is() -> None:
    machine = Machine(accelerator=ACCELERATORS["l4"], model=MODELS["llama-3.1-8b"])
    prior = replace(make.LOCAL_PRIOR, load_s=45.0)
    names = ("the-workstation-under-the-desk", "a-vendor-with-a-long-name")
    router = make.router(make.endpoint(names[0], machine=machine, prior=prior), make.endpoint(names[1], local=False))
    router.observe(Probed(endpoint=names[0], up=True, resident=False), 0.0)
    found = []
    for residency in ("local", "anywhere"):
        request = make.request("r", residency=residency, prompt_tokens=4_000, prompt_bytes=16_000)
        found.append(explained(router, request, router.decide(request, 0.0), 0.0))

    def told(width: int) -> str:
        text = io.StringIO()
        for one in found:
            print_explained(Console(file=text, width=width), one)
        return text.getvalue()

    narrow = told(40)
    assert narrow == told(1_000)
    assert f"  not {names[1]}: the request's data must stay local\n" in narrow
    assert "97% 45 s" in narrow


def test_how_likely_a_choice_was_is_told_where_it_was_not_certain() -> None:
    vendors = make.endpoint("north", local=False), make.endpoint("south", local=False)
    router = make.router(*vendors, explore_share=0.02)
    request = make.request("r")
    decision = router.decide(request, 0.0)
    text = io.StringIO()
    print_explained(Console(file=text, width=140), explained(router, request, decision, 0.0))
    assert f"chosen with a probability of {decision.propensity:g}" in text.getvalue()
    certain = make.router(*vendors).decide(request, 0.0)
    text = io.StringIO()
    print_explained(Console(file=text, width=140), explained(make.router(*vendors), request, certain, 0.0))
    assert "probability" not in text.getvalue()


def test_what_would_have_made_it_another_decision_is_said_nearest_first() -> None:
    request = make.request("r", output_tokens_max=100, slo=Slo())
    router = make.router(make.endpoint("laptop", context_tokens=4_096), make.endpoint("cloud", local=False))
    found = with_flips(explained(router, request, router.decide(request, 0.0), 0.0), Copy(router))
    text = io.StringIO()
    print_explained(Console(file=text, width=140), found)
    said = text.getvalue()
    assert "cloud with 3,997 tokens or more of prompt (it has 200 tokens)" in said
    assert "in flight at laptop (it has 0)" in said
    assert said.index("of prompt") < said.index("in flight")


def test_of_what_chance_decided_no_flip_leads_where_it_went(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    router = make.router(make.endpoint("cheap", local=False, price=CHEAP), DEAR, explore_share=0.1)
    decided = ((request, router.decide(request, 0.0)) for request in (make.request(f"r{n}") for n in range(200)))
    request, decision = next((one, found) for one, found in decided if found.why is Why.EXPLORES)
    assert decision.plan[0].endpoint == "dear"
    assert any(flip.goes_to == "dear" for flip in flips(Copy(router), request, 0.0))
    assert main(["explain", request.id, "--journal", journal(tmp_path, router, request, decision)]) == 0
    said = capsys.readouterr().out
    assert "  without chance it would have gone to cheap\n" in said
    assert "    dear with" not in said


def test_a_decision_that_does_not_come_out_again_is_told_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    router = make.router(make.endpoint("cheap", local=False, price=CHEAP), DEAR)
    request = make.request("r")
    decision = router.decide(request, 0.0)
    assert main(["explain", "r", "--journal", journal(tmp_path, router, request, decision)]) == 0
    assert "come out again" not in capsys.readouterr().out
    file = journal(tmp_path, router, request, replace(decision, plan=decision.plan[::-1]))
    assert main(["explain", "r", "--journal", file]) == 1
    said = capsys.readouterr().out
    assert "-> dear, then cheap" in said
    assert "  it does not come out again: " in said
    assert main(["explain", "r", "--json", "--journal", file]) == 1
    (found,) = json.loads(capsys.readouterr().out)
    assert found["again"] is False


def test_a_decision_that_was_made_without_the_model_is_told_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = Decision(request_id="r", plan=(), why=Why.MODEL_FAILED, retry_after_s=1.0)
    file = journal(tmp_path, make.router(), make.request("r"), refused)
    assert main(["explain", "r", "--journal", file]) == 0
    said = capsys.readouterr().out
    assert f"-> refused: {WHY_TEXT[Why.MODEL_FAILED]}" in said
    assert "it was made without the model: there are no candidates" in said
    assert "candidate " not in said


@pytest.mark.parametrize(
    ("flip", "said"),
    [
        (
            Flip(axis=Axis.TTFT_S, now=2.0, at=0.83331, goes_to=""),
            "refused with 0.8333 s or less promised to the first token (it has 2 s)",
        ),
        (
            Flip(axis=Axis.USD_PER_S, endpoint="a", now=0.0, at=4.00021e-4, goes_to="b"),
            "b with 0.4001 m$/s or more to run the engine at a (it has 0 m$/s)",
        ),
        (
            Flip(axis=Axis.IN_FLIGHT, endpoint="a", now=3.0, at=1.0, goes_to="a", waits=True),
            "waits for a with 1 or less in flight at a (it has 3)",
        ),
        (
            Flip(axis=Axis.UPLOAD, endpoint="a", now=1e6, at=123_456.7, goes_to="b"),
            "b with 123.4 kB/s or less of upload at a (it has 1,000 kB/s)",
        ),
    ],
)
def test_a_flip_is_told_in_the_units_of_people_and_rounded_away_from_what_is(flip: Flip, said: str) -> None:
    assert flip_text(flip) == said


def test_standard_input_is_a_journal_of_which_one_decision_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    router = make.router(make.endpoint("laptop"), make.endpoint("cloud", local=False))
    request = make.request("r-1")
    segment = Segment(
        version=JOURNAL_VERSION, software="t", policy=router.policy, endpoints=router.endpoints, state=router.snapshot()
    )
    lines = [Line(at_s=0.0, fact=fact) for fact in (segment, request, router.decide(request, 0.0))]

    def given(text: bytes) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))

    given(msgspec.json.Encoder().encode_lines(lines))
    assert main(["explain", "--json", "--journal", "-", "r-1"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["request"]["id"] == "r-1"
    assert found["flips"]
    given(b"")
    assert main(["explain", "--journal", "-"]) == 2
    assert "say which decision" in capsys.readouterr().err
    assert main(["explain", "--journal", "-", "r-1"]) == 2
    assert "standard input: nothing is written in this journal" in capsys.readouterr().err
    given(b"nonsense\n")
    assert main(["explain", "--journal", "-", "r-1"]) == 2
    assert "standard input:1" in capsys.readouterr().err


def test_a_journal_that_is_not_there_is_told_from_a_decision_that_is_in_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", "--journal", str(tmp_path / "none")]) == 2
    assert "no such file or folder" in capsys.readouterr().err
    segment = tmp_path / str(SegmentName.first(0.0))
    for given in ([], ["r-1"]):
        assert main(["explain", "--journal", str(tmp_path), *given]) == 2
        assert f"{tmp_path}: no journal here" in capsys.readouterr().err
    segment.touch()
    for source in (tmp_path, segment):
        assert main(["explain", "--journal", str(source), "r-1"]) == 2
        assert f"{source}: nothing is written in this journal" in capsys.readouterr().err
    router = make.router(make.endpoint())
    begun = Segment(
        version=JOURNAL_VERSION, software="t", policy=router.policy, endpoints=router.endpoints, state=router.snapshot()
    )
    segment.write_bytes(msgspec.json.encode(Line(at_s=0.0, fact=begun)) + b"\n")
    for source in (tmp_path, segment):
        assert main(["explain", "--journal", str(source), "r-1"]) == 1
        assert "no decision r-1" in capsys.readouterr().err


def test_the_chosen_candidate_is_coloured_and_one_that_is_excluded_is_dim_unless_no_colour_is_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    router = make.router(make.endpoint("laptop"), make.endpoint("cloud", local=False))
    request = make.request("r", residency="local")
    found = explained(router, request, router.decide(request, 0.0), 0.0)

    def lines() -> dict[str, str]:
        text = io.StringIO()
        print_explained(Console(file=text, width=160, force_terminal=True, highlight=False), found)
        return {line.split("m", 1)[1].split()[0]: line for line in text.getvalue().splitlines() if "\x1b[" in line}

    coloured = lines()
    assert coloured["laptop"].startswith("\x1b[32m")
    assert coloured["cloud"].startswith("\x1b[2m")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not any("\x1b[32m" in line or "\x1b[1;32m" in line for line in lines().values())
