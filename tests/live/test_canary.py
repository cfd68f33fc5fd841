"""A real engine agrees with itself, also as another process with other batches; with another template it does not."""

import asyncio
from pathlib import Path

import pytest

from tests.gateway.harness import House, house, local
from tests.gateway.test_canary import EVERY_S, Later
from tests.live.stack import TEMPLATE
from tidegate.gateway import canary
from tidegate.gateway.canary import CONFIRM_S
from tidegate.lab import weights
from tidegate.lab.llama import Engine, Spec

pytestmark = [pytest.mark.engine, pytest.mark.timeout(180)]


async def distance(home: House, later_s: float) -> float | None:
    """How far the engine is from its reference after a turn so much later."""
    clock = home.gateway.clock
    assert isinstance(clock, Later)
    clock.ahead_s += later_s
    watch = home.gateway.fleet.canaries()["engine"]
    await watch.turn()
    assert watch.status.skipped is None
    return watch.status.distance


def drifted(home: House) -> bool:
    return home.gateway.router.endpoint("engine").state.drifted


@pytest.mark.slow
def test_llama_cpp_agrees_with_itself_and_not_with_another_template(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a loaded machine this takes long enough for a turn of the canary's own to come in between.
    monkeypatch.setattr(canary, "TICK_S", 3600.0)

    async def main() -> None:
        model = weights.fetch()
        async with Engine(Spec(model=model, context_tokens=512), tmp_path / "log") as engine:
            place = local(engine="llamacpp", url=engine.url, context_tokens=512)
            async with house(tmp_path, clock=Later(), engine=place) as home:
                assert await distance(home, 0.0) is None
                # Warm, and after a restart with other batches. With one thread each: two wait for each other where
                # others compute too, and then an answer takes longer than a canary has patience.
                assert await distance(home, EVERY_S) == pytest.approx(0.0, abs=0.1)
                await engine.stop()
                engine.spec = Spec(model=model, port=engine.port, context_tokens=512, batch_tokens=32)
                await engine.start()
                assert await distance(home, EVERY_S) == pytest.approx(0.0, abs=0.1)
                assert not drifted(home)
                await engine.stop()
                engine.spec = Spec(model=model, port=engine.port, context_tokens=512, template=TEMPLATE)
                await engine.start()
                assert (await distance(home, EVERY_S) or 0.0) > 0.15
                assert (await distance(home, CONFIRM_S) or 0.0) > 0.15
                assert drifted(home)

    asyncio.run(main())
