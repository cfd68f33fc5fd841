"""Laws of prefill that is sent away: what is dearer or fuller never attracts, reads do not write, and nothing grows."""

from copy import deepcopy
from math import isfinite
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.paths import POOLS, learned, work
from tidegate.core.bins import BINS
from tidegate.core.model import replace
from tidegate.core.network import SAMPLES_MAX
from tidegate.core.offload import Backlog, Path, Work, fault, fresh

PATHS = [
    learned(per_s=per_s, link_bytes_per_s=link, seed=seed, requests=300)
    for seed, (per_s, link) in enumerate(((0.2, 1e9), (2.0, 1e9), (2.0, 1e8), (3.0, 12.5e9)))
]
paths = st.sampled_from([*PATHS, fresh(POOLS, 0.0)]).map(deepcopy)
works = st.builds(Work, st.floats(0.01, 60.0), st.floats(0.01, 60.0), st.floats(1e6, 1e11))
backlogs = st.builds(Backlog, st.floats(0.0, 100.0), st.floats(0.0, 100.0), st.floats(0.0, 1e11))
more = st.floats(0.0, 1e3)
factors = st.floats(1.0, 100.0)


@given(paths, works, backlogs, more, more)
def test_what_waits_there_never_attracts_and_what_waits_here_never_repels(
    path: Path, one: Work, backlog: Backlog, seconds: float, size: float
) -> None:
    now_s = path.at_s
    before = path.gain_s(one, backlog, now_s)
    assert path.gain_s(one, replace(backlog, remote_s=backlog.remote_s + seconds), now_s) <= before
    assert path.gain_s(one, replace(backlog, link_bytes=backlog.link_bytes + 1e8 * size), now_s) <= before
    assert path.gain_s(one, replace(backlog, local_s=backlog.local_s + seconds), now_s) >= before


@given(paths, works, backlogs, st.sampled_from(("remote", "link")), factors)
def test_a_higher_price_of_what_is_used_there_never_attracts(
    path: Path, one: Work, backlog: Backlog, what: str, factor: float
) -> None:
    before = path.gain_s(one, backlog, path.at_s)
    path.prices = replace(path.prices, **{what: getattr(path.prices, what) * factor + (factor - 1.0) * 1e-9})
    assert path.gain_s(one, backlog, path.at_s) <= before


@given(paths, works, backlogs, factors)
def test_a_prompt_that_takes_more_there_is_never_sent_sooner(
    path: Path, one: Work, backlog: Backlog, factor: float
) -> None:
    before = path.gain_s(one, backlog, path.at_s)
    for dearer in (
        Work(one.local_s, one.remote_s * factor, one.kv_bytes),
        Work(one.local_s, one.remote_s, one.kv_bytes * factor),
        Work(one.local_s / factor, one.remote_s, one.kv_bytes),
    ):
        assert path.gain_s(dearer, backlog, path.at_s) <= before


@given(paths, works, backlogs)
def test_reads_do_not_write(path: Path, one: Work, backlog: Backlog) -> None:
    before = deepcopy(path)
    assert path.gain_s(one, backlog, path.at_s + 100.0) == path.gain_s(one, backlog, path.at_s + 100.0)
    assert path.advice() == path.advice()
    assert path == before


@given(paths, st.lists(st.floats(1.0, 200_000.0), min_size=1, max_size=8), st.randoms())
def test_what_comes_in_one_moment_has_no_order(path: Path, lengths: list[float], draw: Random) -> None:
    mixed = lengths.copy()
    draw.shuffle(mixed)
    found = []
    for order in (lengths, mixed):
        one = deepcopy(path)
        for tokens in order:
            one.arrived(tokens, work(tokens), path.at_s + 1.0)
            one.crossed(1e6 * tokens, 1.0, path.at_s + 1.0)
        one.settle(path.at_s + 200.0)
        found.append(one.gain_s(work(30_000.0), Backlog(0.0, 0.0, 0.0), path.at_s + 200.0))
    assert found[0] == pytest.approx(found[1])


@given(st.integers(0, 10_000))
def test_nothing_grows_and_all_stays_finite(seed: int) -> None:
    draw, path, now_s = Random(seed), fresh(POOLS, 1e9), 1e9
    for _ in range(300):
        now_s += draw.choice((0.0, 0.001, 1.0, 100.0, 1e6))
        tokens = draw.choice((1.0, 500.0, 30_000.0, 1e7))
        path.arrived(tokens, work(tokens), now_s)
        path.crossed(draw.choice((0.0, 1.0, 1e9)), draw.choice((0.0, 1e-3, 1e4)), now_s)
        one = work(draw.choice((1.0, 30_000.0)))
        gain_s = path.gain_s(one, Backlog(draw.random(), draw.random(), 1e9 * draw.random()), now_s)
        assert isfinite(gain_s)
    assert not fault(path)
    assert len(path.link.uploads) <= SAMPLES_MAX
    assert len(path.came) == BINS
    assert len(msgspec.json.encode(path)) < 10_000
