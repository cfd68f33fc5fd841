"""What an endpoint's model turns out to be: what probes tell of it, and what that makes of the prior."""

from tidegate.core import density, facts
from tidegate.core.fingerprint import OF_THE_MODEL, OF_THE_SPEED, Fingerprint, differs, filled, later
from tidegate.core.hardware import kv_tokens, ranks_in_step
from tidegate.core.loading import LOAD_S, usual_load_s
from tidegate.core.model import Endpoint
from tidegate.core.prior import Prior
from tidegate.core.state import EndpointState


def recognise(state: EndpointState, told: Fingerprint) -> bool:
    """Take in what it says of its model. Whether it is another one, of which nothing is known yet of how fast it is."""
    before = state.fingerprint
    after = state.fingerprint = later(before, told)
    if state.trusted is None:
        state.trusted = after
    elif not differs(state.trusted, after, OF_THE_MODEL):
        # What it could not tell at first is believed when it is told.
        state.trusted = filled(state.trusted, after)
    return before is not None and bool(differs(before, after, OF_THE_SPEED))


def prior(endpoint: Endpoint, fingerprint: Fingerprint) -> Prior:
    """A declared model holds, and so does what was made of it; else what the engine tells of its own."""
    machine = endpoint.machine
    if machine is None or machine.model is not None:
        return endpoint.prior
    told = facts.told(fingerprint, machine.assumed)
    return endpoint.prior if told is None else density.prior(endpoint.prior, machine, told, endpoint.concurrency)


def load_s(endpoint: Endpoint, fingerprint: Fingerprint) -> float:
    """What a load of the model is believed to take: as written, or as the size of its weights has it."""
    if endpoint.prior.load_s is not None:
        return endpoint.prior.load_s
    machine = endpoint.machine
    model = facts.told(fingerprint) if machine is None else density.model_at(machine, fingerprint)
    return LOAD_S if model is None else usual_load_s(model.parameters * model.weight_bytes)


def memory_tokens(endpoint: Endpoint, fingerprint: Fingerprint) -> int | None:
    """Tokens of context that its declared hardware has memory for; None where hardware or model are not known, and
    where the weights alone would not fit: something else than what was declared must be there."""
    machine = endpoint.machine
    model = None if machine is None else density.model_at(machine, fingerprint)
    if machine is None or model is None:
        return None
    setup = machine.setup
    try:
        tokens = kv_tokens(model, machine.accelerator, setup)
    except ValueError:
        return None
    # Ranks that do not go in step have each as much.
    return tokens * (setup.data_parallel // ranks_in_step(model, setup))
