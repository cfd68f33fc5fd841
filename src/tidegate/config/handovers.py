"""What has to be true of endpoints that compute prompts for others."""

from tidegate.config import groups, handover
from tidegate.config.build import known_model
from tidegate.config.defaults import owned
from tidegate.config.draft import Draft
from tidegate.config.endpoint import EndpointTable, EngineKind
from tidegate.config.handover import HandoverTable
from tidegate.config.problem import Problems, join, nearest
from tidegate.core.fingerprint import OF_THE_MODEL, differs

# Whose engines fetch KV caches from each other by themselves.
FETCHES = EngineKind.VLLM


def check(draft: Draft, problems: Problems, *, reached: bool) -> None:
    """Note what is wrong with them: KV caches go from an endpoint that is not ours to one that is, where somebody is
    `reached` by couriers or by the engines themselves."""
    carried = any(endpoint.handover and endpoint.engine is not FETCHES for endpoint in draft.endpoints.values())
    if reached and carried and draft.gateway is not None and draft.gateway.couriers is None:
        problems.add("gateway.couriers", "it is missing", "write the secret of tickets, and certificates: `tls`")
    for name, endpoint in draft.endpoints.items():
        path = join("endpoint", name, "handover")
        if endpoint.handover and _is_ours(endpoint, draft):
            problems.add(path, "its own slots are held for whole requests", "write owned = false as well")
        for index, table in enumerate(endpoint.handover):
            place = f"{path}[{index}]"
            to = draft.endpoints.get(table.to)
            if table.to not in draft.written["endpoint"]:
                found = "there is no such endpoint"
                problems.add(f"{place}.to", found, nearest(table.to, draft.written["endpoint"]))
            elif to is not None and (table.to == name or not _is_ours(to, draft)):
                remedy = "name another one, which decodes; write owned = true there"
                problems.add(f"{place}.to", "no slot is held there", remedy)
            if sum(other.to == table.to for other in endpoint.handover[: index + 1]) > 1:
                problems.add(f"{place}.to", "it is written twice", "leave one of them out")
            if to is not None and reached:
                needs = _nothing if endpoint.engine is to.engine is FETCHES else _courier
                needs(name, endpoint, problems)
                needs(table.to, to, problems)
            if to is not None:
                _alike(place, (name, endpoint), (table.to, to), draft, problems)
            # Only where hardware and model are sound can it be asked what they make.
            if to is not None and not problems.found and not _is_sized(table, endpoint, to):
                missing = "the size of a KV cache is not known"
                remedy = "write it, or hardware and model_facts of either endpoint"
                problems.add(f"{place}.kv_kib_per_token", missing, remedy)


def _courier(name: str, endpoint: EndpointTable, problems: Problems) -> None:
    """What it takes that a KV cache goes from or to this endpoint."""
    path = join("endpoint", name)
    if endpoint.engine is not EngineKind.LLAMACPP:
        known = "no courier carries KV caches of this engine"
        remedy = 'hand prompts over between two engines of the kind "llamacpp", or two of "vllm"'
        problems.add(f"{path}.engine", known, remedy)
    if endpoint.courier is None:
        problems.add(f"{path}.courier", "it is missing", 'write courier = { name = "NAME", address = "host:port" }')


def _nothing(name: str, endpoint: EndpointTable, problems: Problems) -> None:
    """What it takes that engines hand KV caches on by themselves: nothing of ours."""
    if endpoint.courier is not None:
        told = "engines of this kind fetch KV caches from each other by themselves"
        problems.add(join("endpoint", name) + ".courier", told, "leave it out")


def _alike(
    place: str,
    source: tuple[str, EndpointTable],
    target: tuple[str, EndpointTable],
    draft: Draft,
    problems: Problems,
) -> None:
    """Of one model alone the KV cache of one is that of the other."""
    names = [set(groups.names(name, endpoint, draft.models)) for name, endpoint in (source, target)]
    if names[0].isdisjoint(names[1]):
        problems.add(f"{place}.to", "the two serve no model in common", "let both serve the same name")
    wrong = differs(source[1].fingerprint.record(), target[1].fingerprint.record(), OF_THE_MODEL)
    if wrong:
        problems.add(
            f"{place}.to",
            f"its `fingerprint.{wrong[0]}` says that it is another model",
            "name an endpoint with the same model, or make the fingerprints agree",
        )


def _is_sized(table: HandoverTable, source: EndpointTable, target: EndpointTable) -> bool:
    return handover.kv_bytes_per_token(table, known_model(source) or known_model(target)) is not None


def _is_ours(endpoint: EndpointTable, draft: Draft) -> bool:
    site = draft.sites.get(endpoint.site)
    return owned(endpoint, site is not None and site.local)
