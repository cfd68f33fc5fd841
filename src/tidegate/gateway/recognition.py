"""Tells the log, once, when an endpoint is found to serve another model than before, or than it should."""

from collections.abc import Container

from tidegate.core.endpoint import EndpointModel
from tidegate.core.fingerprint import OF_THE_MODEL, differs
from tidegate.core.model import Fingerprint
from tidegate.core.router import Router
from tidegate.telemetry.log import Log


class Recognition:
    """Remembers what it told of each endpoint, and of each two that are both identical to one name."""

    def __init__(self, log: Log) -> None:
        self._log = log
        # By group and endpoints.
        self._doubted: dict[tuple[str, ...], str] = {}
        self._unequal: dict[tuple[str, ...], str] = {}

    def keep(self, names: Container[str]) -> None:
        """Forget what was told of all but these endpoints: whoever has the name of another by now is somebody else."""
        for known in (self._doubted, self._unequal):
            for key in [key for key in known if not all(name in names for name in key[1:])]:
                del known[key]

    def probed(self, router: Router, name: str, before: Fingerprint | None) -> None:
        """A probe of this endpoint is taken in; `before` is what it had told until then."""
        model = router.endpoint(name)
        after = model.state.fingerprint
        if before is not None and after is not None and (changed := differs(before, after)):
            level = "warning" if differs(before, after, OF_THE_MODEL) else "info"
            self._log.event(level, "fingerprint changed", endpoint=name, fields=", ".join(changed))
        for group in model.endpoint.models:
            self._doubt(model, group)
            for other in router.serving(group):
                if other is not model:
                    self._compare(group, model, other)

    def _doubt(self, model: EndpointModel, group: str) -> None:
        found = model.identity.doubts.get(group, {})
        text = "; ".join(f"{against}: {', '.join(fields)}" for against, fields in found.items())
        if not text and not model.state.up:
            return  # what is down agrees with nothing
        if not _news(self._doubted, (group, model.name), text):
            return
        if text:
            self._log.event(
                "warning",
                "fingerprint contradicts",
                endpoint=model.name,
                model=group,
                fields=text,
                likeness=model.identity.likeness[group].value,
                remedy="load the model that was there; if the change is meant, configure what it is now and reload",
            )
        else:
            self._log.event("info", "fingerprint agrees again", endpoint=model.name, model=group)

    def _compare(self, group: str, model: EndpointModel, other: EndpointModel) -> None:
        """Where nothing is demanded nobody knows which of two is right, and both go on serving."""
        one, two = sorted((model, other), key=lambda m: m.name)
        alike = group not in one.identity.likeness and group not in two.identity.likeness
        fields = ", ".join(differs(one.identity.fingerprint, two.identity.fingerprint, OF_THE_MODEL)) if alike else ""
        if _news(self._unequal, (group, one.name, two.name), fields) and fields:
            self._log.event(
                "warning",
                "identical endpoints differ",
                model=group,
                endpoint=one.name,
                other=two.name,
                fields=fields,
                remedy=f"write down in [model] which fingerprint `{group}` demands, or call one of them same_family",
            )


def _news(known: dict[tuple[str, ...], str], key: tuple[str, ...], text: str) -> bool:
    """Whether this is another text than was told; an empty one stands for having nothing to tell."""
    if known.get(key, "") == text:
        return False
    if text:
        known[key] = text
    else:
        del known[key]
    return True
