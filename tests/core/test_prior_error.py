"""What is believed of an engine at first, before engines that were measured."""

import json
import os
from pathlib import Path

import pytest
from bench import prior_error
from bench.record import RESULTS

RECORDED = json.loads(Path(RESULTS / "prior_error.json").read_text())


@pytest.mark.skipif("TIDEGATE_DATA" not in os.environ, reason="TIDEGATE_DATA does not name the folder of public traces")
def test_priors_are_as_far_from_what_was_measured_as_recorded_and_within_the_bound() -> None:
    found = prior_error.found()
    for table in ("splitwise", "vllm"):
        assert found[table] == pytest.approx(RECORDED[table], abs=0.002) or found[table] == RECORDED[table]
        for error in RECORDED[table]["all"].values():
            assert error <= RECORDED["bound"]
