"""What has to be true between the settings: references, promises that can be kept, money, secrets and the network."""

import hashlib
import ssl
from collections.abc import Mapping
from pathlib import Path

from tidegate.config import away, door, files, groups, handovers, hardware, rule, secret, tariff
from tidegate.config.address import Url, is_private, parse_address, parse_url
from tidegate.config.config import Config
from tidegate.config.defaults import chats, defaults, owned, warms_up
from tidegate.config.draft import Draft
from tidegate.config.endpoint import EndpointTable
from tidegate.config.problem import Problems, join, nearest
from tidegate.config.schema import BudgetTable, ClassTable, GatewayTable, PolicyTable, SiteTable, SwitchbackTable
from tidegate.config.secret import Secret
from tidegate.core.model import ANYWHERE, LOCAL

# A reading that looks like drift is repeated within a minute; readings are no more frequent than that.
CANARY_S_MIN = 60.0


def check(
    draft: Draft, problems: Problems, variables: Mapping[str, str] | None
) -> tuple[dict[str, Secret], dict[str, str]]:
    """Note everything that contradicts something else; by endpoint, the secrets that were found, and a digest of the
    certificates that it trusts besides the usual.

    Without `variables` nobody is going to be reached, and what is needed for that may be missing. What is there is
    what it has to be all the same.
    """
    if draft.gateway is not None:
        _gateway(draft.gateway, problems)
    if draft.policy is not None:
        _policy(draft.policy, draft.gateway, problems)
    if draft.budget is not None:
        _budget(draft.budget, problems)
    if draft.switchback is not None:
        _switchback(draft.switchback, problems)
    files.check(draft, problems)
    secrets: dict[str, Secret] = {}
    authorities: dict[str, str] = {}
    urls: dict[str, Url] = {}
    for name, endpoint in draft.endpoints.items():
        path = join("endpoint", name)
        _site(path, endpoint, draft, problems)
        _model(path, name, endpoint, draft, problems)
        tariff.check(path, endpoint, draft.sites.get(endpoint.site), problems)
        url = _url(path, endpoint, draft.gateway, problems, reached=variables is not None)
        away.check(path, endpoint, _asked(name, endpoint, draft), draft.sites.get(endpoint.site), url, problems)
        if url is not None:
            urls[name] = url
        _courier_place(path, endpoint, problems)
        if variables is not None:
            named = endpoint.api_key_env, endpoint.api_key_file
            key = secret.api_key(path, *named, draft.folder, problems, variables)
            if key is not None:
                secrets[name] = key
            _network(path, endpoint, url, problems)
            if (trusted := _trusted(path, endpoint, url, draft.folder, problems)) is not None:
                authorities[name] = trusted
        _canary(path, endpoint, problems)
        _warm_up(path, endpoint, draft.sites.get(endpoint.site), problems)
        hardware.check(path, endpoint.hardware, endpoint.model_facts, problems)
    for name, klass in draft.classes.items():
        _class(join("class", name), klass, draft, problems)
    _twins(urls, draft, problems)
    handovers.check(draft, problems, reached=variables is not None)
    groups.check(draft.models, draft.endpoints, draft.written["endpoint"], problems)
    _rules(draft, problems, reached=variables is not None)
    if not draft.written["endpoint"]:
        problems.add("endpoint", "there is none", "write [endpoint.NAME] with its site, engine and url")
    return secrets, authorities


def check_candidate(draft: Draft, candidate: Config, problems: Problems) -> None:
    """Note what keeps a candidate from being measured by the same promises as the policy that it is tried with."""
    for name in sorted(draft.classes.keys() ^ candidate.classes.keys()):
        problems.add(join("class", name), "only one of the two policies has it", "give both the same classes")
    for name in sorted(draft.classes.keys() & candidate.classes.keys()):
        own, other = draft.classes[name], candidate.classes[name]
        for key in ("residency", "likeness"):
            if getattr(own, key) != getattr(other, key):
                problems.add(
                    f"{join('class', name)}.{key}",
                    "it differs, so that each would refuse other requests",
                    "try what is decided, and not what is allowed",
                )
    given = [
        [(one.name, one.when, one.klass) for one in rules if one.klass] for rules in (draft.rules, candidate.rules)
    ]
    if given[0] != given[1]:
        problems.add("rule", "rules give other classes", "leave the rules that give a class as they are")
    if draft.policy is not None and draft.policy.quantile != candidate.policy.quantile:
        problems.add(
            "policy.quantile", "it differs, and what is learned of promises is learned for one", "try it by a reload"
        )


def _gateway(gateway: GatewayTable, problems: Problems) -> None:
    for key, path in (
        ("journal", gateway.journal),
        ("state", gateway.state),
        ("log", gateway.log),
        ("keys", gateway.keys),
    ):
        _file(f"gateway.{key}", path, problems)
    if gateway.journal_total_mib < 2 * gateway.journal_segment_mib:
        problems.add(
            "gateway.journal_total_mib",
            "less than two segments: the newest would be removed while it is written",
            f"set it to {2 * gateway.journal_segment_mib} or more, or make journal_segment_mib smaller",
        )


def _policy(policy: PolicyTable, gateway: GatewayTable | None, problems: Problems) -> None:
    if gateway is not None and policy.hold_s_max >= gateway.request_timeout_s:
        problems.add(
            "policy.hold_s_max",
            f"a request would be held for its whole life: the request time-out is {gateway.request_timeout_s:g} s, and "
            f"this is {policy.hold_s_max:g} s",
            "set it to less than the request time-out, with room for the answer",
        )


def _file(path: str, file: str | None, problems: Problems) -> None:
    if file and "\0" in file:
        problems.add(path, "this is not the name of a file", "write a path")
    if file and file.startswith("~"):
        problems.add(path, "a folder called `~` would be made: it is nobody's home here", "write the whole path")


def _budget(budget: BudgetTable, problems: Problems) -> None:
    _file("budget.ledger", budget.ledger, problems)
    day, month = budget.usd_per_day, budget.usd_per_month
    if day is not None and month is not None and month < day:
        problems.add(
            "budget.usd_per_month",
            "it is less than one day's, which could never be spent",
            "raise it, or lower the day's",
        )


def _switchback(switchback: SwitchbackTable, problems: Problems) -> None:
    if switchback.washout_s >= switchback.block_s:
        most = f"write less than {switchback.block_s:g} seconds, or make blocks longer"
        problems.add("switchback.washout_s", "nothing is left of a block", most)
    _file("switchback.file", switchback.file, problems)
    if not switchback.file.endswith(".json"):
        problems.add("switchback.file", "it is written over, and might be another's", "name a file that ends in .json")


def _class(path: str, klass: ClassTable, draft: Draft, problems: Problems) -> None:
    slo = klass.slo
    if slo.ttft_ms is None and slo.tpot_ms is None and slo.e2e_ms is None:
        problems.add(
            f"{path}.slo",
            "it promises nothing, so nothing could be late",
            "set ttft_ms, tpot_ms or e2e_ms; a generous e2e_ms for work that is in no hurry",
        )
    if klass.worth_factor_max is not None and klass.attainment is None:
        problems.add(
            f"{path}.worth_factor_max",
            "it bounds the worth that follows a target, and there is none",
            "set attainment, or remove it",
        )
    limits_ms = [limit for limit in (slo.ttft_ms, slo.e2e_ms) if limit is not None]
    if draft.gateway is not None and any(limit > draft.gateway.request_timeout_s * 1000 for limit in limits_ms):
        problems.add(
            f"{path}.slo",
            f"it allows longer than a request lives: the request time-out is {draft.gateway.request_timeout_s:g} s, "
            f"and this is {max(limits_ms) / 1000:g} s",
            f"write a [{path}] that promises less, or raise the request time-out",
        )
    _residency(f"{path}.residency", klass.residency, draft, problems)


def _rules(draft: Draft, problems: Problems, *, reached: bool) -> None:
    # Names of models stand in tables of two kinds: only where all of them are sound is it known which there are.
    served = {name for name, table in draft.endpoints.items() for name in groups.names(name, table, draft.models)}
    rule.check(
        draft.rules,
        classes={*draft.classes, *draft.written["class"]},
        sites=draft.written["site"],
        written=draft.written["endpoint"],
        endpoints=draft.endpoints,
        models=None if problems.found else served,
        keyed=bool(draft.gateway.keys) if reached and draft.gateway is not None else None,
        problems=problems,
    )


def _residency(path: str, residency: tuple[str, ...], draft: Draft, problems: Problems) -> None:
    known = {*draft.written["site"], LOCAL, ANYWHERE}
    for name in residency:
        if name not in known:
            problems.add(path, f"there is no site `{_clip(name)}`", nearest(name, known))
    if ANYWHERE in residency and len(residency) > 1:
        problems.add(path, "`anywhere` makes the rest meaningless", 'write either ["anywhere"] or the others')
    local = {name for name, site in draft.sites.items() if site.local}
    allowed = {*residency, *(local if LOCAL in residency else ())}
    sites = {endpoint.site for endpoint in draft.endpoints.values()}
    # Only where the rest is sound: a broken endpoint may be the one that was meant.
    if not problems.found and ANYWHERE not in residency and not allowed & sites:
        problems.add(
            path,
            "no endpoint stands where this data may go, so every request would be refused",
            "add an endpoint there, or allow another site",
        )


def _site(path: str, endpoint: EndpointTable, draft: Draft, problems: Problems) -> None:
    sites = draft.written["site"]
    if endpoint.site not in sites:
        remedy = nearest(endpoint.site, sites) if sites else "write [site.NAME] with local = true or false"
        problems.add(f"{path}.site", f"there is no site `{_clip(endpoint.site)}`", remedy)


def _model(path: str, name: str, endpoint: EndpointTable, draft: Draft, problems: Problems) -> None:
    # A model whose table is malformed may be its own.
    malformed = draft.written["model"] - draft.models.keys()
    grouped = malformed or any(name in group.endpoints for group in draft.models.values())
    if not endpoint.serves and not endpoint.model and not grouped:
        problems.add(
            f"{path}.serves", "it serves nothing", 'write serves = ["NAME"] with the names that clients ask for'
        )
    for key, name in (("model", endpoint.model), *(("serves", name) for name in endpoint.serves)):
        if not groups.printable(name):
            problems.add(
                f"{path}.{key}", "a model's name is ASCII on one line", "write the name as the engine shows it"
            )
    if endpoint.context_tokens is None and defaults(endpoint.engine, local=True).context_tokens is None:
        problems.add(
            f"{path}.context_tokens",
            f"it is missing, and the engine `{endpoint.engine.value}` does not tell",
            "set it to the model's context window, prompt and output together (vLLM: --max-model-len)",
        )


def _url(
    path: str, endpoint: EndpointTable, gateway: GatewayTable | None, problems: Problems, *, reached: bool
) -> Url | None:
    if not endpoint.url:
        if reached:
            problems.add(f"{path}.url", "it is missing", "write where the engine listens, as in http://127.0.0.1:8080")
        return None
    try:
        url = parse_url(endpoint.url)
    except ValueError as error:
        problems.add(f"{path}.url", str(error), "write https://host/v1 or http://host:port, and nothing else in it")
        return None
    if gateway is not None and (setting := door.own(url, gateway)):
        problems.add(f"{path}.url", f"this gateway itself listens there ({setting})", "write where the engine listens")
    return url


def _asked(name: str, endpoint: EndpointTable, draft: Draft) -> tuple[str, ...]:
    """The names by which its engine is asked for a model."""
    return (endpoint.model,) if endpoint.model else groups.names(name, endpoint, draft.models)


def _twins(urls: Mapping[str, Url], draft: Draft, problems: Problems) -> None:
    """Note an endpoint of ours that is another one: each would be sent what the engine takes from both."""
    first: dict[tuple[Url, str], str] = {}
    for name, url in urls.items():
        endpoint = draft.endpoints[name]
        site = draft.sites.get(endpoint.site)
        ours = owned(endpoint, site is not None and site.local)
        others = [first.setdefault((url, model), name) for model in _asked(name, endpoint, draft) if ours and model]
        if twin := next((other for other in others if other != name), None):
            problems.add(
                f"{join('endpoint', name)}.url",
                f"endpoint `{twin}` is the same model of the same engine, which would be sent twice what it takes",
                "make one endpoint of them; it may serve several names, and classes and rules tell requests apart",
            )


def _courier_place(path: str, endpoint: EndpointTable, problems: Problems) -> None:
    """It has to have an address, whether anything is handed over there or not."""
    if endpoint.courier is None:
        return
    try:
        parse_address(endpoint.courier.address)
    except ValueError as error:
        problems.add(f"{path}.courier.address", str(error), "write host:port, as in 192.0.2.7:8490")


def _network(path: str, endpoint: EndpointTable, url: Url | None, problems: Problems) -> None:
    keyed = bool(endpoint.api_key_env or endpoint.api_key_file)
    if url is not None and keyed and not url.tls and not is_private(url.host):
        problems.add(
            f"{path}.url",
            "the API key would travel through the internet in the clear",
            "write https://, or reach it through a private network or tunnel",
        )


def _trusted(path: str, endpoint: EndpointTable, url: Url | None, folder: Path, problems: Problems) -> str | None:
    """A digest of the file of certificates, which tells whether it is another; None where there is none."""
    if not endpoint.tls_ca_file:
        return None
    if url is not None and not url.tls:
        problems.add(
            f"{path}.tls_ca_file", "the URL is http://, so it would not be used", "write https:// or remove it"
        )
        return None
    file = folder / endpoint.tls_ca_file
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        reason = "there are no certificates in it" if isinstance(error, ssl.SSLError) else "it cannot be read"
        problems.add(f"{path}.tls_ca_file", reason, "name a file of certificates in PEM, readable by this user")
        return None


def _canary(path: str, endpoint: EndpointTable, problems: Problems) -> None:
    if endpoint.canary_s is not None and 0.0 < endpoint.canary_s < CANARY_S_MIN:
        problems.add(
            f"{path}.canary_s",
            "the engine would be busy with it, and its clients wait",
            f"write 0 for none, or {CANARY_S_MIN:g} or more",
        )


def _warm_up(path: str, endpoint: EndpointTable, site: SiteTable | None, problems: Problems) -> None:
    local = site is not None and site.local
    if endpoint.warm_up and not chats(endpoint, local):
        problems.add(f"{path}.warm_up", "it is done by a chat, which is none of its capabilities", "leave it out")
    if endpoint.keep_loaded_usd_per_hour is not None and not warms_up(endpoint, local):
        problems.add(f"{path}.keep_loaded_usd_per_hour", "its model is not warmed up", "write warm_up = true as well")


def _clip(name: str) -> str:
    return name[:64]  # a name is that long at most; what is longer is no name
