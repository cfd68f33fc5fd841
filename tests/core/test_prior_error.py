"""What is believed of an engine at first, before engines that were measured."""

import json
import os
from pathlib import Path

import pytest
from bench import prior_error
from bench.record import RESULTS

RECORDED = json.loads(Path(RESULTS / "prior_error.json").read_text())


@pytest.mark.lengthy
@pytest.mark.skipif("TIDEGATE_DATA" not in os.environ, reason="TIDEGATE_DATA does not name the folder of public traces")
def test_priors_are_as_far_from_what_was_measured_as_recorded_and_within_the_bound() -> None:
    for table, made in (("splitwise", prior_error.splitwise), ("vllm", prior_error.vllm)):
        found, recorded = prior_error.summary(made()), RECORDED[table]
        for part, medians in found.items():
            assert medians == pytest.approx(recorded[part], abs=0.002)
        assert max(found["all"].values()) <= prior_error.MOST


def test_a_priors_form_is_close_to_the_roofline_and_what_it_was_extended_by_is_needed() -> None:
    found = prior_error.forms()
    assert max(part["prefill"][0] for part in found.values()) < 0.1
    assert max(part["decode"][0] for part in found.values()) < 0.1
    for without in ("decode without contexts", "decode without fading"):
        assert max(part[without][0] for part in found.values()) > 0.1
