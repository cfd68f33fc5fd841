"""What relays come to: figures of a round, their medians, the table and the plot."""

from io import StringIO
from xml.etree import ElementTree

import pytest
from bench.loads import LOADS, Load, behind_tls, small
from bench.relay_figures import DIRECT, IDLE, Rows, Summary, Used, figures, lag_s_p99, summed, table
from bench.relay_plot import plot
from bench.rig import Ask, Said, Times
from rich.console import Console

STREAMS = Load(name="W4", about="streams", ask=Ask(connections=10, requests=10, chunks=5), gap_ms=20)
WHOLE = Load(name="W1", about="whole", ask=Ask(connections=10, requests=10))
NONE = Times(0.0, 0.0, 0.0, 0.0)
CPU: Rows = {
    "W1": {
        "tidegate": {"cpu_us": Summary(76.0, 74.0, 80.0), "errors": Summary(0, 0, 0)},
        "nginx": {"cpu_us": Summary(20.1, 18.8, 20.8), "errors": Summary(0, 0, 0)},
        "smg": {"cpu_us": Summary(170.0, 166.0, 180.0), "errors": Summary(0, 0, 0)},
        DIRECT: {"latency_us_p50": Summary(50.0, 49.0, 51.0)},
    },
    "W2": {
        "tidegate": {"per_s": Summary(900.0, 800.0, 1000.0)},
        "nginx": {"per_s": Summary(1000.0, 900.0, 1100.0)},
    },
    IDLE: {"tidegate": {"rss_mb": Summary(80.0, 80.0, 80.0)}, "smg": {"rss_mb": Summary(60.0, 60.0, 60.0)}},
}


def said(ok: int = 10, chunks: int = 0, errors: int = 0, us: float = 100.0) -> Said:
    times = Times(us, us, 2 * us, 3 * us)
    return Said(ok, 2.0, ok / 2.0, chunks, 10, {"status": errors}, times, times if chunks else NONE, times)


def test_cpu_is_shared_by_the_chunks_of_streams_and_by_other_requests() -> None:
    used = Used(cpu_us=1000.0, rss_before_mb=50.0, rss_most_mb=60.0)
    assert figures(STREAMS, said(chunks=50), said(chunks=50), used)["cpu_us"] == 20.0
    assert figures(WHOLE, said(), said(), used)["cpu_us"] == 100.0


def test_what_a_relay_adds_is_what_the_same_load_takes_longer_than_without_one() -> None:
    found = figures(WHOLE, said(us=150.0), said(us=100.0), Used(1000.0, 50.0, 60.0))
    assert (found["added_latency_us_p50"], found["added_latency_us_p99"]) == (50.0, 100.0)
    found = figures(STREAMS, said(chunks=50, us=150.0), said(chunks=50), Used(1000.0, 50.0, 60.0))
    assert (found["added_ttft_us_p50"], found["added_chunk_us_p99"]) == (50.0, 100.0)


def test_a_relay_that_answers_nothing_has_errors_and_no_times() -> None:
    found = figures(WHOLE, said(ok=0, errors=10), said(), Used(1000.0, 50.0, 60.0))
    assert found == {"errors": 10, "rss_mb": 60.0, "per_s": 0.0}


def test_streams_that_mostly_idle_tell_what_each_takes_of_memory() -> None:
    load = Load(name="W5", about="", ask=Ask(connections=100, requests=100, chunks=4), gap_ms=2500, mostly_idle=True)
    used = Used(1.0, 50.0, 60.0)
    assert figures(load, said(ok=100, chunks=4), said(chunks=4), used)["stream_kb"] == 100.0
    # Of those that are refused there is no stream.
    assert figures(load, said(ok=80, errors=20, chunks=4), said(chunks=4), used)["stream_kb"] == 125.0


def test_what_is_added_over_tls_is_not_told_since_nobody_asks_without_a_relay() -> None:
    found = figures(behind_tls(WHOLE), said(us=150.0), said(us=100.0), Used(1000.0, 50.0, 60.0))
    assert "cpu_us" in found
    assert not any(name.startswith("added_") for name in found)


def test_rounds_are_summed_up_as_medians_with_their_ranges() -> None:
    found = summed([{"cpu_us": 21.04}, {"cpu_us": 19.0, "errors": 1.0}, {"cpu_us": 123.4}])
    assert found == {"cpu_us": Summary(21.0, 19.0, 123), "errors": Summary(1.0, 1.0, 1.0)}


def test_lag_is_that_between_two_readings() -> None:
    def metrics(quick: int, slow: int) -> str:
        name = "tidegate_loop_lag_seconds_bucket"
        return f'{name}{{le="0.001"}} {quick}.0\n{name}{{le="0.1"}} {slow}.0\n{name}{{le="+Inf"}} {slow}.0\n'

    assert lag_s_p99(metrics(10, 900), metrics(1010, 1900)) == 0.001
    assert lag_s_p99(metrics(0, 0), metrics(900, 1000)) == 0.1
    assert lag_s_p99(metrics(5, 5), metrics(5, 5)) is None
    assert lag_s_p99("", metrics(0, 10).replace('le="0.1"} 10', 'le="0.1"} 3')) == 0.1


def test_what_is_lost_most_comes_first_and_says_to_whom() -> None:
    shown = StringIO()
    Console(file=shown, width=200).print(table(CPU, {"W1": "request", "W2": "request"}))
    lines = [line for line in shown.getvalue().splitlines() if line.startswith("│")]
    assert [line.split("│")[2].strip() for line in lines] == ["cpu_us/request", "rss_mb", "per_s"]
    _, _, _, own, ratio, better, worse, _ = (part.strip() for part in lines[0].split("│"))
    assert own == "76 (74-80)"
    assert ratio == "3.78"
    assert better == "nginx 20.1 (18.8-20.8)"
    assert worse == "smg 170 (166-180)"


def test_the_plot_has_a_bar_for_each_relay_the_cheapest_first() -> None:
    drawn = ElementTree.fromstring(plot(CPU, {"W1": "CPU of a request", "W4": "not measured"}))
    space = {"svg": "http://www.w3.org/2000/svg"}
    names = [one.text for one in drawn.findall(".//svg:text[@class='end']", space)]
    widths = [float(one.attrib["width"]) for one in drawn.findall(".//svg:rect", space)]
    assert names == ["nginx", "tidegate", "smg"]
    assert widths == sorted(widths)
    assert [one.text for one in drawn.findall(".//svg:text[@class='title']", space)] == ["CPU of a request"]


def test_a_bar_stays_inside_the_picture_whatever_was_measured() -> None:
    rows: Rows = {"W1": {"a": {"cpu_us": Summary(0.0, 0.0, 10_000.0)}, "b": {"cpu_us": Summary(0.02, 0.01, 0.03)}}}
    drawn = ElementTree.fromstring(plot(rows, {"W1": "CPU"}))
    width = float(drawn.attrib["viewBox"].split()[2])
    for one in drawn.iter("{http://www.w3.org/2000/svg}rect"):
        assert 0.0 <= float(one.attrib["width"]) <= width - float(one.attrib["x"])


@pytest.mark.parametrize("name", list(LOADS))
def test_a_body_is_as_large_as_its_load_says(name: str) -> None:
    load = LOADS[name]
    assert load.body() == load.body()
    assert 0 <= len(load.body()) - max(load.prompt_bytes, load.image_bytes) <= 2000


def test_variants_of_a_load_keep_what_makes_it_one() -> None:
    for load in LOADS.values():
        assert behind_tls(load).body() == load.body()
        assert small(load).unit == load.unit
        assert small(load).ask.chunks == load.ask.chunks
