"""A simulated engine from declared facts: a model on its hardware, as `core/hardware` has its iterations."""

from tidegate.core.hardware import MEASURED, Accelerator, Efficiency, Model, Setup, kv_tokens, ranks_in_step, step_time
from tidegate.sim.engine import EngineProfile


def profile(model: Model, accelerator: Accelerator, setup: Setup, efficiency: Efficiency = MEASURED) -> EngineProfile:
    """An engine as these facts make it. Raises ValueError where the model does not fit."""
    ranks = ranks_in_step(model, setup)
    return EngineProfile(
        step=step_time(model, accelerator, setup, efficiency),
        slots=setup.slots * ranks,
        batch_tokens=setup.batch_tokens * ranks,
        kv_tokens=kv_tokens(model, accelerator, setup),
        queue_max=setup.queue_max,
        keeps_prefixes=setup.keeps_prefixes,
        load_s=setup.load_s,
    )
