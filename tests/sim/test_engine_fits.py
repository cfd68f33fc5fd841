"""Simulated engines before the runs of real ones that they are fitted to, and before those that they are not."""

import json
import os
from pathlib import Path

import pytest
from bench import fit_engines
from bench.record import RESULTS

from tidegate.core import facts
from tidegate.core.hardware import MEASURED, Efficiency

needs_data = pytest.mark.skipif(
    "TIDEGATE_DATA" not in os.environ, reason="TIDEGATE_DATA does not name the folder of public traces"
)
RUNS = ("Llama-3.1-8B", "Qwen3-30B-A3B-Instruct-2507", "Qwen3-32B")
RECORDED = json.loads(Path(RESULTS / "engines.json").read_text())
LEFT_OUT, ITSELF = "predicted from the other runs", "fitted to itself"


def run_of(name: str) -> fit_engines.Run:
    return next(run for run in fit_engines.runs() if run.name == name)


@needs_data
@pytest.mark.parametrize("fitted", [LEFT_OUT, ITSELF])
@pytest.mark.parametrize("name", RUNS)
def test_a_run_comes_out_within_the_bounds_and_as_recorded(name: str, fitted: str) -> None:
    recorded = dict(RECORDED[fitted][name])
    errors = fit_engines.errors(run_of(name), Efficiency(**recorded.pop("constants")))
    assert errors == pytest.approx(recorded, abs=0.0002)
    for figure, bound in RECORDED["bounds"].items():
        assert abs(errors[figure]) <= bound


@needs_data
@pytest.mark.parametrize("name", RUNS)
def test_a_run_comes_out_within_the_bounds_with_the_constants_that_are_shipped(name: str) -> None:
    errors = fit_engines.errors(run_of(name), MEASURED)
    assert errors == pytest.approx(RECORDED["fitted to all"][name], abs=0.0002)
    for figure, bound in RECORDED["bounds"].items():
        assert abs(errors[figure]) <= bound


@pytest.mark.slow
@needs_data
def test_kernels_and_links_are_as_fitted_to_the_grid() -> None:
    kernels, links = fit_engines.fit_kernels(fit_engines.grid())
    assert fit_engines.shown(kernels) == pytest.approx(
        {name: value for name, value in RECORDED["kernels"].items() if name in kernels.__struct_fields__}, rel=0.01
    )
    for name in ("attention_share", "expert_share", "layer_s", "overlap"):
        assert getattr(MEASURED, name) == pytest.approx(getattr(kernels, name), rel=0.01)
    assert links["link_share"] == pytest.approx(facts.LINK_SHARE, rel=0.02)
    assert links["exchange_s"] == pytest.approx(facts.EXCHANGE_S, rel=0.05)
    assert links["error"] < 0.1


@pytest.mark.slow
@needs_data
@pytest.mark.parametrize("name", RUNS)
def test_the_constants_of_a_prediction_are_fitted_to_the_other_runs_alone(name: str) -> None:
    kernels, _ = fit_engines.fit_kernels(fit_engines.grid())
    fitted = fit_engines.fit_machines([run for run in fit_engines.runs() if run.name != name], kernels)
    assert fit_engines.shown(fitted) == pytest.approx(RECORDED[LEFT_OUT][name]["constants"], rel=0.01)
