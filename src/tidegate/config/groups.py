"""Model groups: which names clients may ask for, and what stands behind each."""

from collections.abc import Collection, Mapping

from tidegate.config.endpoint import EndpointTable
from tidegate.config.model import ModelTable
from tidegate.config.problem import Problems, join, nearest
from tidegate.core.fingerprint import OF_THE_MODEL, differs
from tidegate.core.model import Fingerprint, Likeness, ModelGroup


def printable(name: str) -> bool:
    """Whether a model's name may be repeated in a response header."""
    return name.isascii() and name.isprintable()


def check(
    models: Mapping[str, ModelTable],
    endpoints: Mapping[str, EndpointTable],
    written: Collection[str],
    problems: Problems,
) -> None:
    """Note names that mean two things, and endpoints that do not exist; `written` has those of broken tables too."""
    grouped = {endpoint for table in models.values() for endpoint in table.endpoints}
    served = {name: endpoint for endpoint, table in endpoints.items() for name in table.serves}
    implied = {
        table.model: endpoint
        for endpoint, table in endpoints.items()
        if table.model and not table.serves and endpoint not in grouped
    }
    owners = {name: f"[model.{name}]" for name in models}
    for name, table in models.items():
        path = join("model", name)
        if not printable(name):
            problems.add(path, "a model's name is ASCII on one line", "write the name as clients send it")
        for endpoint in table.endpoints:
            if endpoint not in written:
                problems.add(f"{path}.endpoints", f"there is no endpoint `{endpoint[:64]}`", nearest(endpoint, written))
        if name in served:
            problems.add(
                f"{join('endpoint', served[name])}.serves",
                f"`{name[:64]}` has a table of its own, {join('model', name)}",
                "list the endpoint there, with its likeness, and not here",
            )
        elif name in implied:
            problems.add(
                f"{join('endpoint', implied[name])}.model",
                f"`{name[:64]}` has a table of its own, {join('model', name)}, which does not list this endpoint",
                "list the endpoint there, with its likeness, or write what it `serves`",
            )
        for alias in table.aliases:
            _alias(path, alias, name, implied | served, owners, problems)
        _fingerprints(path, table, endpoints, problems)
        if all(_further(likeness, table.likeness) for likeness in table.endpoints.values()):
            problems.add(
                f"{path}.likeness",
                f"no endpoint is as alike as `{table.likeness.value}`, so every request would be refused",
                "allow less, or add an endpoint that is",
            )


def _alias(
    path: str, alias: str, name: str, served: Mapping[str, str], owners: dict[str, str], problems: Problems
) -> None:
    if not printable(alias):
        problems.add(f"{path}.aliases", "a model's name is ASCII on one line", "write the name as clients send it")
    elif alias in served:
        problems.add(
            f"{path}.aliases", f"`{alias[:64]}` is served by endpoint `{served[alias]}` already", "choose another name"
        )
    elif alias in owners:
        problems.add(f"{path}.aliases", f"`{alias[:64]}` is taken by {owners[alias]}", "a name means one thing")
    else:
        owners[alias] = f"an alias of {join('model', name)}"


def _fingerprints(path: str, table: ModelTable, endpoints: Mapping[str, EndpointTable], problems: Problems) -> None:
    """Note endpoints that are called identical, and declared to be something else than what that means."""
    demanded = table.fingerprint.record()
    for endpoint, likeness in table.endpoints.items():
        if likeness is Likeness.IDENTICAL and endpoint in endpoints:
            wrong = differs(demanded, endpoints[endpoint].fingerprint.record(), OF_THE_MODEL)
            if wrong:
                problems.add(
                    f"{path}.fingerprint.{wrong[0]}",
                    f"endpoint `{endpoint[:64]}` is called identical, and its own fingerprint says otherwise",
                    f"make {join('endpoint', endpoint)}.fingerprint.{wrong[0]} agree, or call it same_family here",
                )


def _further(likeness: Likeness, least: Likeness) -> bool:
    order = list(Likeness)
    return order.index(likeness) > order.index(least)


def names(endpoint: str, table: EndpointTable, models: Mapping[str, ModelTable]) -> tuple[str, ...]:
    """The names that an endpoint serves: its groups and what it lists itself, or else its own name for its model."""
    grouped = tuple(name for name, group in sorted(models.items()) if endpoint in group.endpoints)
    return (*grouped, *table.serves) or (table.model,)


def likeness(endpoint: str, models: Mapping[str, ModelTable]) -> dict[str, Likeness]:
    """What the endpoint's model is to the names that it is not identical to."""
    found = {name: group.endpoints.get(endpoint, Likeness.IDENTICAL) for name, group in sorted(models.items())}
    return {name: likeness for name, likeness in found.items() if likeness is not Likeness.IDENTICAL}


def demands(endpoint: str, models: Mapping[str, ModelTable]) -> dict[str, Fingerprint]:
    """What is demanded of the endpoint's model by the names that it is called identical to."""
    found = {
        name: group.fingerprint.record()
        for name, group in sorted(models.items())
        if group.endpoints.get(endpoint) is Likeness.IDENTICAL
    }
    return {name: demanded for name, demanded in found.items() if demanded != Fingerprint()}


def groups(models: Mapping[str, ModelTable], endpoints: Mapping[str, EndpointTable]) -> dict[str, ModelGroup]:
    """What is meant by each name that clients may send, aliases included."""
    found = {
        name: ModelGroup(name=name)
        for endpoint, table in sorted(endpoints.items())
        for name in names(endpoint, table, models)
    }
    for name, table in sorted(models.items()):
        group = ModelGroup(
            name=name, aliases=table.aliases, likeness=table.likeness, fingerprint=table.fingerprint.record()
        )
        found |= dict.fromkeys((name, *table.aliases), group)
    return found
