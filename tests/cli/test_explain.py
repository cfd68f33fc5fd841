"""What `tidegate explain` prints of a decision."""

import io

from rich.console import Console

from tests import make
from tidegate.cli.journal import print_explained
from tidegate.core.facts import ACCELERATORS, MODELS
from tidegate.core.hardware import Machine
from tidegate.core.model import Probed, replace
from tidegate.core.replay import explained


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
