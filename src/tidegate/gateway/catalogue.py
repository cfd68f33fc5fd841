"""The models that clients may ask for: what a name means, and the lists that clients look up."""

from collections.abc import Mapping
from typing import Any

from tidegate.core.endpoint import EndpointModel
from tidegate.core.model import Likeness, ModelGroup
from tidegate.core.router import Router
from tidegate.gateway.reply import no_model
from tidegate.wire.ollama.models import Facts


class Catalogue:
    """Names and what stands behind them; windows and capabilities are as last probed."""

    def __init__(self, groups: Mapping[str, ModelGroup], router: Router, created_s: float) -> None:
        """`groups` has every name that clients may send, aliases included."""
        self._groups = groups
        self._router = router
        self._created_s = created_s
        self._members: dict[str, list[EndpointModel]] = {
            group.name: router.serving(group.name) for group in groups.values()
        }

    def group(self, name: str) -> ModelGroup | None:
        """What is meant by a name, None where nothing is."""
        return self._groups.get(name)

    def names(self) -> list[str]:
        """Every name that clients may send."""
        return sorted(self._groups)

    def entry(self, name: str) -> dict[str, Any]:
        """One model of `GET /v1/models`: the usual fields, and in `tidegate` what is known of it.

        Raises `BadRequest` where it is not served.
        """
        group = self.known(name)
        facts = self.facts(name)
        told: dict[str, Any] = {
            "context_tokens": facts.context_tokens,
            "capabilities": facts.capabilities,
            "likeness": group.likeness,
            "endpoints": [_member(model, group.name) for model in self._members[group.name]],
        }
        if name != group.name:
            told["alias_of"] = group.name
        return {
            "id": name,
            "object": "model",
            "created": int(self._created_s),
            "owned_by": "tidegate",
            "tidegate": told,
        }

    def facts(self, name: str) -> Facts:
        """What a request may count on at best: over all endpoints of the name, as Ollama's lists have it too.

        Raises `BadRequest` where it is not served.
        """
        members = self._members[self.known(name).name]
        return Facts(
            name=name,
            created_s=self._created_s,
            context_tokens=max((model.context_tokens for model in members), default=None),
            capabilities=tuple(sorted({c for model in members for c in model.capabilities})),
        )

    def known(self, name: str) -> ModelGroup:
        """What is meant by a name. Raises `BadRequest` where nothing is."""
        group = self._groups.get(name)
        if group is None:
            raise no_model()
        return group


def _member(model: EndpointModel, group: str) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": model.name,
        "likeness": model.identity.likeness.get(group, Likeness.IDENTICAL),
        "local": model.endpoint.local,
        "up": model.state.up,
        "fingerprint": model.identity.fingerprint,
    }
    if group in model.identity.doubts:
        # Identical by the configuration, and not by what is known of it: against what, and in which fields.
        told["contradicts"] = model.identity.doubts[group]
    return told
