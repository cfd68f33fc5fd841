"""What prefill at a remote site is worth: the paper's throughputs, and what is left of them where requests queue.

    python -m bench.prefill [--holdout]

`model`: Table 6 of Prefill-as-a-Service (arXiv 2604.15039) by `core/throughput`, other links, and models whose KV cache
is larger. `sustained`: the highest rate at which the 90th percentile of time to first token stays within a bound, found
by bisection, for each link and rule. The simple rules know the link, and have their knobs and their split of local
nodes in hindsight, the best on all seeds; ours has the split that it advises, and finds out the rest.
`changes`: what is served, against the fluid model, while the link changes, with every knob in hindsight again.
"""

import argparse
import os
from collections.abc import Sequence
from multiprocessing import get_context

import msgspec
from rich.console import Console
from rich.table import Table

from bench import prefill_settings as settings
from bench.prefill_changes import Change, changed, changes
from bench.prefill_model import Row, dense, links, table6
from bench.prefill_queues import RULES, Sustained, Task, measure, sustained
from bench.prefill_settings import Load
from bench.record import record


def show_model(rows: Sequence[Row], by_link: dict[str, list[Row]], by_model: dict[str, list[float]]) -> None:
    """The throughput model, with what it assumes."""
    console = Console()
    slowdowns = ", ".join(f"{factor:g} at {tokens:,.0f}" for tokens, factor in settings.SLOWDOWN.points)
    shown = Table("Table 6", "published", "computed", "off", title=f"assumed: H20 / H200 by tokens {slowdowns}")
    for row in rows:
        shown.add_row(row.what, f"{row.published:,.3g}", f"{row.computed:,.3g}", f"{row.off:+.1%}")
    console.print(shown)
    shown = Table("link, Gbit/s", *(row.what for row in next(iter(by_link.values()))), title="computed (in the notes)")
    for link, several in by_link.items():
        shown.add_row(link, *(f"{row.computed:.3f} ({row.published:.3f})" for row in several))
    console.print(shown)
    shown = Table("KV for each second of prefill", *(f"{link:g}" for link in settings.LINKS_GBPS), title="gain by link")
    for name, gains in by_model.items():
        shown.add_row(name, *(f"{gain:+.0%}" for gain in gains))
    console.print(shown)


def show_sustained(made: Sequence[Sustained]) -> None:
    """Rates."""
    shown = Table("link", "bound", *RULES, "over random", "over threshold")
    for one in made:
        over = (
            f"{share:+.1%} ± {half:.1%}"
            for share, half in (
                (one.over_random, one.over_random_half),
                (one.over_threshold, one.over_threshold_half),
            )
        )
        shown.add_row(f"{one.link_gbps:g}", one.bound, *(f"{one.per_s[rule]:.3f}" for rule in RULES), *over)
    Console().print(shown)


def show_changes(made: Sequence[Change]) -> None:
    """By phase: served, the least of it, and the tail."""
    shown = Table("load", "rule", *(f"{gbps:g} Gbit/s" for gbps in settings.CHANGES_GBPS), "reversals")
    for one in made:
        cells = (
            f"{share:.1%} (≥ {least:.1%}), {tail:,.0f} s"
            for share, least, tail in zip(one.served, one.least, one.ttft_s_p90, strict=True)
        )
        shown.add_row(one.load, one.rule, *cells, str(one.reversals))
    Console().print(shown)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--holdout", action="store_true", help="the seeds that nothing was tuned on")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="worlds at once")
    options = parser.parse_args()
    seeds = settings.HOLDOUT_SEEDS if options.holdout else settings.SEEDS
    rows, by_link, by_model = table6(), links(), dense()
    show_model(rows, by_link, by_model)
    tasks = [Task(link, seed) for seed in seeds for link in settings.LINKS_GBPS]
    with get_context("spawn").Pool(options.jobs) as pool:
        turns = [one for some in pool.imap(changes, [(load, seed) for load in Load for seed in seeds]) for one in some]
        show_changes(made := changed(turns))
        found = []
        for one in pool.imap(measure, tasks):
            found.append(one)
            if len(found) % len(settings.LINKS_GBPS):
                continue
            # A run that is stopped has written what all links were found to carry by then.
            show_sustained(rates := sustained(found))
            record(
                "prefill_holdout" if options.holdout else "prefill",
                {
                    "seeds": sorted({task.seed for task, _ in found}),
                    "slowdown_assumed": msgspec.to_builtins(settings.SLOWDOWN),
                    "table6": msgspec.to_builtins(rows),
                    "links": msgspec.to_builtins(by_link),
                    "kv_gain": by_model,
                    "changes": msgspec.to_builtins(made),
                    "sustained": msgspec.to_builtins(rates),
                },
            )


if __name__ == "__main__":
    main()
