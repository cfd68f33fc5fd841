"""Whether an endpoint's model is what its names promise: what is known of it against what should be."""

from enum import StrEnum

from tidegate.core.fingerprint import OF_THE_MODEL, differs, filled
from tidegate.core.model import Endpoint, Fingerprint, Likeness

_UNKNOWN = Fingerprint()


class Against(StrEnum):
    """What a fingerprint may contradict."""

    DEMANDED = "demanded"
    DECLARED = "declared"
    TRUSTED = "trusted"


Doubts = dict[Against, tuple[str, ...]]
"""What is contradicted, and in which fields; empty where all agrees."""


def in_force(endpoint: Endpoint, probed: Fingerprint | None) -> Fingerprint:
    """What is known of the endpoint's model: what it tells, and for the rest what was declared."""
    return endpoint.fingerprint if probed is None else filled(probed, endpoint.fingerprint)


def doubts(endpoint: Endpoint, probed: Fingerprint | None, trusted: Fingerprint | None) -> dict[str, Doubts]:
    """By each name that the endpoint is configured to be identical to: what speaks against it; the others are left out.

    `trusted` is what it told first: whoever serves something else since then has to say so in the configuration.
    """
    known = in_force(endpoint, probed)
    own = {Against.DECLARED: endpoint.fingerprint, Against.TRUSTED: trusted or _UNKNOWN}
    found: dict[str, Doubts] = {}
    for name in endpoint.models:
        if name in endpoint.likeness:
            continue
        expected = {Against.DEMANDED: endpoint.demands.get(name, _UNKNOWN), **own}
        fields = {against: differs(known, other, OF_THE_MODEL) for against, other in expected.items()}
        if contradicted := {against: names for against, names in fields.items() if names}:
            found[name] = contradicted
    return found


def effective(endpoint: Endpoint, doubted: dict[str, Doubts], *, drifted: bool) -> dict[str, Likeness]:
    """How alike the endpoint is to the names that it is not identical to: as configured, and as doubted.

    While its answers have `drifted`, it is identical to nothing.
    """
    identical = [name for name in endpoint.models if name not in endpoint.likeness]
    return endpoint.likeness | dict.fromkeys(identical if drifted else doubted, Likeness.SAME_FAMILY)
