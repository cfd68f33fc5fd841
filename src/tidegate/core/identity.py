"""What an endpoint's model turns out to be: what probes tell of it, and what that makes of the prior."""

from tidegate.core import density, facts, likeness
from tidegate.core.fingerprint import OF_THE_MODEL, OF_THE_SPEED, differs, filled, later
from tidegate.core.hardware import kv_tokens, ranks_in_step
from tidegate.core.likeness import Doubts
from tidegate.core.loading import LOAD_S, usual_load_s
from tidegate.core.model import Endpoint, Fingerprint, Likeness, Prior
from tidegate.core.state import EndpointState


class Identity:
    """What is known of the model: its `fingerprint`, by name any `doubts` of that, and its `likeness` to each.

    A name that is not in the last is `identical`. `recognise`, `looked` and `checked` write, the rest reads.
    """

    __slots__ = ("_endpoint", "_state", "doubts", "fingerprint", "likeness")

    def __init__(self, endpoint: Endpoint, state: EndpointState) -> None:
        self._endpoint, self._state = endpoint, state
        self.fingerprint: Fingerprint
        self.doubts: dict[str, Doubts]
        self.likeness: dict[str, Likeness]
        self._judge()

    # --- reading ------------------------------------------------------------------------------------------------

    def prior(self) -> Prior:
        """A declared model holds, and so does what was made of it; else what the engine tells of its own."""
        endpoint, machine = self._endpoint, self._endpoint.machine
        if machine is None or machine.model is not None:
            return endpoint.prior
        told = facts.told(self.fingerprint, machine.assumed)
        return endpoint.prior if told is None else density.prior(endpoint.prior, machine, told, endpoint.concurrency)

    def load_s(self) -> float:
        """What a load of the model is believed to take: as written, or as the size of its weights has it."""
        endpoint, machine = self._endpoint, self._endpoint.machine
        if endpoint.prior.load_s is not None:
            return endpoint.prior.load_s
        model = facts.told(self.fingerprint) if machine is None else density.model_at(machine, self.fingerprint)
        return LOAD_S if model is None else usual_load_s(model.parameters * model.weight_bytes)

    def memory_tokens(self) -> int | None:
        """Tokens of context that its declared hardware has memory for; None where hardware or model are not known, and
        where the weights alone would not fit: something else than what was declared must be there."""
        machine = self._endpoint.machine
        model = None if machine is None else density.model_at(machine, self.fingerprint)
        if machine is None or model is None:
            return None
        setup = machine.setup
        try:
            tokens = kv_tokens(model, machine.accelerator, setup)
        except ValueError:
            return None
        # Ranks that do not go in step have each as much.
        return tokens * (setup.data_parallel // ranks_in_step(model, setup))

    # --- learning -----------------------------------------------------------------------------------------------

    def recognise(self, told: Fingerprint) -> bool:
        """Take in what it says of its model. Whether it is another one, of which nothing is known yet of how fast it
        is."""
        state = self._state
        before = state.fingerprint
        after = state.fingerprint = later(before, told)
        if state.trusted is None:
            # What this leaves out was told before anybody vouched for it.
            state.trusted = told
        elif not differs(state.trusted, after, OF_THE_MODEL):
            # What it could not tell at first is believed when it is told.
            state.trusted = filled(state.trusted, told)
        self._judge()
        return before is not None and bool(differs(before, after, OF_THE_SPEED))

    def looked(self) -> None:
        """Take in whether a probe found it up."""
        if self._state.trusted is None:
            self._judge()

    def checked(self, *, drifted: bool) -> None:
        """Take in what a canary found."""
        self._state.drifted = drifted
        self._judge()

    def _judge(self) -> None:
        endpoint, state = self._endpoint, self._state
        self.fingerprint = likeness.in_force(endpoint, state.fingerprint)
        # Where what is told next is believed, one that is down may be loading just that: what it told before says
        # nothing of it. While it is up, a lost answer must not make a contradiction be forgotten.
        told = state.fingerprint if state.up or state.trusted is not None else None
        self.doubts = likeness.doubts(endpoint, told, state.trusted)
        self.likeness = likeness.effective(endpoint, self.doubts, drifted=state.drifted)
