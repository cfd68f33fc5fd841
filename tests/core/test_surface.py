"""Break-even: each cell is what the real router decides, and the surface is as it has to be."""

from tests import make
from tidegate.core.flips import first
from tidegate.core.model import Slo, replace
from tidegate.core.sending import started
from tidegate.core.surface import COUNTS_MAX, LENGTHS_MAX, counts, lengths, surface

ASKED = make.request("r", slo=Slo(ttft_s=4.0), arrived_s=100.0)
PROMPTS, CROWDS = [64, 512, 2048, 16_384, 200_000], [0, 1, 2]


def test_a_cell_is_what_the_router_decides_with_so_many_in_flight() -> None:
    cells = surface(make.router(), ASKED, "laptop", PROMPTS, CROWDS, 100.0)
    for count, line in zip(CROWDS, cells, strict=True):
        router = make.router()
        for number in range(count):
            router.observe(started(replace(ASKED, id=f"other {number}"), "laptop"), 100.0)
        for tokens, cell in zip(PROMPTS[:4], line, strict=False):
            long = replace(ASKED, prompt_tokens=tokens, prompt_bytes=4 * tokens)
            klass = "chat/short" if tokens <= 512 else "chat/medium" if tokens <= 4096 else "chat/long"
            decision = router.decide(replace(long, klass=klass), 100.0)
            assert (cell.goes_to, cell.waits, cell.why) == (*first(decision), decision.why)


def test_longer_prompts_and_busier_engines_send_requests_away_and_never_back() -> None:
    cells = surface(make.router(), ASKED, "laptop", PROMPTS[:4], CROWDS, 100.0)
    for line in cells:
        sides = [bool(cell.local) for cell in line]
        assert sides == sorted(sides, reverse=True)
    assert cells[0][0].local
    assert cells[0][3].local is False
    for column in zip(*cells, strict=True):
        values = [cell.ours.value_usd for cell in column if cell.ours is not None]
        assert values == sorted(values, reverse=True)


def test_what_no_window_holds_goes_nowhere() -> None:
    cell = surface(make.router(), ASKED, "laptop", [200_000], [0], 100.0)[0][0]
    assert (cell.goes_to, cell.local, cell.ours, cell.theirs) == ("", None, None, None)


def test_the_router_that_is_asked_about_stays_as_it_is() -> None:
    router = make.router()
    router.observe(started(ASKED, "laptop"), 100.0)
    before = router.snapshot()
    cells = surface(router, ASKED, "laptop", PROMPTS, CROWDS, 101.0)
    assert router.snapshot() == before
    # What was under way counts for nothing: the number in flight is what is varied.
    assert cells[0][0].local


def test_who_is_late_there_says_nothing_of_an_engine_with_nobody() -> None:
    router = make.router(make.endpoint("laptop", concurrency=16), make.endpoint("cloud", local=False))
    for number in range(5):
        router.observe(started(replace(ASKED, id=f"late {number}"), "laptop"), 100.0 + number)
    idle = surface(make.router(*router.endpoints), ASKED, "laptop", PROMPTS[:3], [0, 1], 112.0)
    assert surface(router, ASKED, "laptop", PROMPTS[:3], [0, 1], 112.0) == idle


def test_lengths_reach_beyond_every_window_and_neither_list_is_too_long() -> None:
    router = make.router()
    found = lengths(router, "m")
    assert found == sorted(set(found))
    assert found[0] <= 64 < 32_768 < found[-1]
    assert len(found) <= LENGTHS_MAX
    for concurrency in (1, 4, 15, 16, 64, 10_000):
        numbers = counts(concurrency)
        assert (numbers[0], numbers[-1]) == (0, concurrency)
        assert numbers == sorted(set(numbers))
        assert len(numbers) <= COUNTS_MAX
