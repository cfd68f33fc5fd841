"""What the demo tells the person who watches it."""

import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from tidegate.core.model import Candidate, Price
from tidegate.core.timeline import Stage
from tidegate.core.why import WHY_TEXT, Why
from tidegate.lab.trip import Trip, median_error

Tell = Callable[[str, float | None], None]


class Guide:
    """Prints the tour as it goes."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def doing(self, text: str) -> Iterator[Tell]:
        """Show that something is under way, and how far, for as long as it takes."""
        with self._console.status(f"{text} …") as status:

            def tell(what: str, share: float | None) -> None:
                status.update(f"{what} …" if share is None else f"{what} … {share:.0%}")

            yield tell

    def ready(self, took_s: float, without_couriers: str) -> None:
        """Everything runs; or why there are no couriers."""
        self._say(
            f"Ready after {took_s:.1f} s: a [bold]local[/] engine (2k context, free), a [bold]remote[/] one (8k "
            "context, priced) behind an emulated WAN (60 ms RTT, 20 Mbit/s up, 200 down), and the gateway that "
            "decides."
        )
        said = (
            f"none: {without_couriers}. So no prompt is handed over" if without_couriers else "one beside each engine"
        )
        self._say(f"Couriers, which carry KV caches from one to the other: {said}.\n")

    def scene(self, text: str) -> None:
        """What comes next."""
        self._say(f"[bold]{text}[/]")

    def trip(self, trip: Trip, *, warm_up: bool) -> None:
        """What became of one request."""
        predicted, measured = _seconds(trip.predicted_ttft_s), _seconds(trip.measured_ttft_s)
        if trip.endpoint is None:
            self._say(f"  [bold red]{trip.title}: not served[/]")
            return
        if warm_up:
            self._say(f"[dim]  {trip.title}: TTFT predicted {predicted}, measured {measured}[/]")
            return
        held = f" after waiting {trip.held_s:.2f} s" if trip.held_s else ""
        prefilled = f"[bold cyan]{trip.prefilled}[/], then " if trip.prefilled else ""
        self._say(
            f"  {trip.title} -> {prefilled}[bold cyan]{trip.endpoint}[/]{held}: {WHY_TEXT[Why(trip.why)]}\n"
            f"      TTFT predicted {predicted}, measured {measured}; tokens {trip.prompt_tokens} in, "
            f"{trip.output_tokens} out; ${trip.cost_usd:.6f}"
        )
        for stage in trip.stages:
            self._say(f"      {escape(_stage(stage))}")
        for other in trip.others:
            self._say(f"      [dim]{_other(other)}[/]")

    def not_handed_over(self, trip: Trip, folder: Path) -> None:
        """It was to show a handover, and shows none, or one that failed; the journal in this folder tells of it."""
        said = "the way there failed, and its prompt was computed again" if trip.prefilled else "decided otherwise"
        self._say(f"      [yellow]no handover this time: {said}; this says why:[/]")
        self._say(f"      {escape(_command('explain', '--journal', str(folder / 'journal'), trip.id))}")

    def _say(self, text: str) -> None:
        # One line is one fact, whatever the width of the terminal or file.
        self._console.print(text, soft_wrap=True)

    def closing(self, found: list[Trip], price: Price) -> bool:
        """The sum of it. Whether every request was served, with its reason."""
        spent = sum(t.cost_usd for t in found)
        remote = sum(price.usd(t.prompt_tokens or 0, t.output_tokens or 0) for t in found)
        away = sum(t.endpoint == "remote" for t in found)
        handed = sum(t.handed_over for t in found)
        error, count = median_error(found)
        served = [t for t in found if t.endpoint is not None and t.why]
        self._say(
            f"\n[bold]{len(served)} of {len(found)} requests served[/], {away} of them remotely, {handed} prefilled "
            f"there and decoded at home. TTFT predictions: median absolute error {error:.0%} over {count} requests.\n"
            f"[bold]Spent ${spent:.6f}[/]; sending everything remote would have cost ${remote:.6f} at the same tokens."
        )
        return bool(found) and len(served) == len(found)

    def invite(self, host: str, gateway: int, admin: int, link: int, model: str, folder: Path) -> None:
        """Lines to try."""
        # Wrapped lines could not be copied.
        self._console.print(
            f"""
The gateway keeps serving; Ctrl-C ends it. Try:

  curl http://{host}:{gateway}/v1/chat/completions -H 'content-type: application/json' \\
    -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello!"}}], "max_tokens": 32}}' -i

  python3 - <<'EOF'                                        # where `pip install openai` was done
  from openai import OpenAI
  client = OpenAI(base_url="http://{host}:{gateway}/v1", api_key="unused")
  for chunk in client.chat.completions.create(model="{model}", stream=True, max_tokens=32,
                                              messages=[{{"role": "user", "content": "Hello!"}}]):
      print(chunk.choices[0].delta.content if chunk.choices else "", end="", flush=True)
  EOF

  http://{host}:{admin}/ in a browser                      # the dashboard: where each went, and why
  curl http://{host}:{admin}/api/state
  curl -X PUT http://{host}:{link}/link -d '{{"rtt_ms": 400}}'        # move the remote engine further away
  {_command("explain", "--journal", str(folder / "journal"))}      # why the last request went where it went
  {_command("replay", str(folder / "journal"))}                    # reproduce every decision
""",
            soft_wrap=True,
            markup=False,
        )


def _command(*words: str) -> str:
    """How a shell runs this verb of ours: by its name where that is found, else from where we are."""
    beside = Path(sys.executable).with_name("tidegate")
    if shutil.which("tidegate") == str(beside):
        program = ["tidegate"]
    else:
        program = [str(beside)] if beside.exists() else [sys.executable, "-m", "tidegate.cli.main"]
    return shlex.join([*program, *words])


def _other(other: Candidate) -> str:
    if other.excluded is not None:
        return f"{other.endpoint} was no choice: {WHY_TEXT[other.excluded]}"
    estimate = other.estimate
    assert estimate is not None, "what no rule excludes is predicted"
    return (
        f"{other.endpoint} instead, predicted: TTFT {_seconds(estimate.ttft_s)}, ${estimate.cost_usd:.6f}, "
        f"promise kept with {estimate.attainment:.0%}"
    )


def _stage(stage: Stage) -> str:
    """`transfer remote > local: 0.90 s, predicted 0.80 s; 17 MB`, or `...; it failed (ticket)`."""
    to = f" > {stage.target}" if stage.target else ""
    where = f" {stage.endpoint}{to}" if stage.endpoint else ""
    predicted = "" if stage.predicted_s is None else f", predicted {_seconds(stage.predicted_s)}"
    size = f"; {stage.kv_bytes / 1e6:.3g} MB" if stage.kv_bytes else ""
    failed = f"; it failed ({stage.cause})" if stage.cause else "; it failed"
    ended = failed if stage.failed else "; it was cancelled" if stage.cancelled else ""
    return f"{stage.what.value}{where}: {_seconds(stage.took_s)}{predicted}{size}{ended}"


def _seconds(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f} s"
