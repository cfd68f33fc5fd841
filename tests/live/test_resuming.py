"""Streams of real engines that break off are completed by real engines."""

import asyncio

import pytest
from bench.resuming import played


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.timeout(120)
@pytest.mark.parametrize("alone", [False, True], ids=["two", "one"])
def test_a_cut_stream_has_each_word_once(alone: bool) -> None:
    cuts = asyncio.run(played(20, alone=alone))
    assert sum(cut.resumed for cut in cuts) > 5
    assert [cut for cut in cuts if not cut.whole or cut.error or cut.counted is False] == []
    assert [cut for cut in cuts if cut.cached and not cut.again] == []
