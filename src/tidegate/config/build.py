"""From the tables of a configuration to the records that the core and the shells work with, in their units."""

import ssl
from pathlib import Path

import msgspec

from tidegate.config import door, files, groups, handover, hardware, mutual, rule, tariff
from tidegate.config.address import Address, Url, parse_address, parse_url
from tidegate.config.cap import Cap, Period
from tidegate.config.config import Config
from tidegate.config.defaults import Defaults, defaults, owned, warms_up
from tidegate.config.door import Tls
from tidegate.config.endpoint import EndpointTable, EngineKind, PriorTable
from tidegate.config.mutual import MutualTls
from tidegate.config.schema import WORTH_FACTOR_MAX, BudgetTable, ClassTable, PolicyTable, SloTable
from tidegate.config.secret import Secret
from tidegate.config.trace import Traces, traces
from tidegate.core import density
from tidegate.core.hardware import Model
from tidegate.core.model import Capability, Endpoint, Machine, ModelGroup, Policy, Prior, RequestClass, Slo, replace
from tidegate.core.ruling import Rule

MIB = 1024 * 1024
# Who changes a model does so between two working days more often than within one.
CANARY_S = 6 * 3600.0
# Where others are gone after a while, it is with all that could answer.
_UNLOAD_BY_THEMSELVES = frozenset({EngineKind.LLAMACPP, EngineKind.OLLAMA})


class Couriers(msgspec.Struct, frozen=True, kw_only=True):
    """How the couriers beside engines are asked: what tickets are signed with, and who we are."""

    secret: Secret
    tls: MutualTls


class CourierPlace(msgspec.Struct, frozen=True, kw_only=True):
    """A courier beside an engine."""

    name: str
    address: Address


class Gateway(msgspec.Struct, frozen=True, kw_only=True):
    """The service's settings. `journal` and `state` are None where there is none, `log` is None for stderr.

    Without `keys` everybody is served, without `admin_key` everybody may administer.
    """

    listen: Address
    admin: Address
    keys: Path | None
    admin_key: Secret | None
    tls: Tls | None
    journal: Path | None
    journal_segment_bytes: int
    journal_total_bytes: int
    journal_packs: bool
    state: Path | None
    state_s: float
    backtest_s: float
    dashboard: bool
    request_timeout_s: float
    body_bytes_max: int
    log: Path | None
    connections_max: int
    drain_s: float
    couriers: Couriers | None = None
    traces: Traces | None = None


class Upstream(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach one endpoint: what its adapter needs, and the core does not.

    `url` is None where nobody is going to be reached. `model` is the name to put into requests, empty to pass on the
    client's. `asks_context`: the context window is assumed until the engine was asked, so ask before the first request.
    `asks_media`: so is which kinds of media its model takes. `canary_s` is 0 where there are no canaries.
    `probes_wake`: it scales to zero, and knows no request that does not start it. `courier` carries KV caches from and
    to its slots. `authorities` tells one content of `tls_ca_file` from another.
    """

    name: str
    engine: EngineKind
    url: Url | None
    model: str
    key: Secret | None
    tls_ca_file: Path | None
    authorities: str = ""
    probe_s: float
    canary_s: float
    connect_timeout_s: float
    asks_context: bool
    asks_media: bool
    probes_wake: bool
    courier: CourierPlace | None = None

    def reaches(self, other: "Upstream") -> bool:
        """Whether both lead to the same model of the same engine."""
        return (self.engine, self.url, self.model) == (other.engine, other.url, other.model)

    def tls(self) -> ssl.SSLContext | None:
        """The context for https, None for http; the usual authorities are trusted, and those of `tls_ca_file`."""
        if self.url is None or not self.url.tls:
            return None
        context = ssl.create_default_context()
        if self.tls_ca_file is not None:
            context.load_verify_locations(self.tls_ca_file)
            # Python 3.13 asks for fields that certificates of one's own mostly lack: what they vouch for is the same.
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration as records. `endpoints` are in order of their names, `upstreams` has one for each.

    `caps` are what all clients together may spend; `paced` budgets, those of keys too, are to last until the end.
    """

    gateway: Gateway
    policy: Policy
    endpoints: tuple[Endpoint, ...]
    upstreams: dict[str, Upstream]
    classes: dict[str, RequestClass]
    rules: tuple[Rule, ...]
    groups: dict[str, ModelGroup]
    caps: tuple[Cap, ...]
    paced: bool
    ledger: Path


def build(config: Config, now_s: float) -> Built:
    """The records of a configuration; nothing is read, and nothing can fail that `load` has not refused.

    Prices are those in force at `now_s`; they change at midnight UTC and not in between.
    """
    tables = sorted(config.endpoints.items())
    endpoints = tuple(endpoint(name, table, config, now_s) for name, table in tables)
    return Built(
        gateway=_gateway(config),
        policy=policy(config.policy),
        endpoints=endpoints,
        upstreams={e.name: _upstream(e, config.endpoints[e.name], config) for e in endpoints},
        groups=groups.groups(config.models, config.endpoints),
        classes={name: request_class(name, table) for name, table in sorted(config.classes.items())},
        rules=rule.rules(config.rules, config.endpoints),
        caps=caps(config.budget),
        paced=config.budget.pace,
        ledger=config.file.parent / config.budget.ledger,
    )


def policy(table: PolicyTable) -> Policy:
    """The settings of the decision."""
    return Policy(
        seed=table.seed,
        held_max=table.held_max,
        hold_s_max=table.hold_s_max,
        recheck_s=table.recheck_ms / 1000,
        attempts_max=table.attempts_max,
        quantile=table.quantile,
        decide_budget_s=table.decide_budget_ms / 1000,
        static_s=table.static_s,
        explore_share=table.explore_share,
        hedge_share=table.hedge_share,
        stall_s=table.stall_s,
        resume=table.resume,
    )


def caps(table: BudgetTable) -> tuple[Cap, ...]:
    """What may be spent by all together."""
    sums = ((Period.DAY, table.usd_per_day), (Period.MONTH, table.usd_per_month))
    return tuple(Cap(usd=usd, period=period) for period, usd in sums if usd is not None)


def request_class(name: str, table: ClassTable) -> RequestClass:
    """What the requests of a class start from."""
    # With a target, the most that they are worth; the rest is learned.
    times = 1.0 if table.attainment is None else table.worth_factor_max or WORTH_FACTOR_MAX
    return RequestClass(
        name=name,
        slo=_slo(table.slo),
        attainment=table.attainment,
        worth_usd=times * table.worth_usd,
        worth_usd_per_1k_tokens=times * table.worth_usd_per_1k_tokens,
        late_usd_per_s=times * table.late_usd_per_s,
        residency=table.residency,
        likeness=table.likeness,
        session_moves=table.session_moves,
    )


def endpoint(name: str, table: EndpointTable, config: Config, now_s: float) -> Endpoint:
    """The endpoint as the core knows it at `now_s`; what is left out is as usual for its engine."""
    local = config.sites[table.site].local
    usual = defaults(table.engine, local)
    context_tokens = table.context_tokens or usual.context_tokens
    assert context_tokens is not None, "load refuses an unknown context window"
    concurrency = table.concurrency or usual.concurrency
    machine, prior = _machine(table, usual), usual.prior
    if machine is not None and (model := density.model_at(machine, table.fingerprint.record())) is not None:
        prior = density.prior(prior, machine, model, concurrency)
    return Endpoint(
        name=name,
        site=table.site,
        local=local,
        models=groups.names(name, table, config.models),
        likeness=groups.likeness(name, config.models),
        fingerprint=table.fingerprint.record(),
        demands=groups.demands(name, config.models),
        context_tokens=context_tokens,
        output_tokens_max=table.output_tokens_max,
        concurrency=concurrency,
        owned=owned(table, local),
        shares_compute=usual.shares_compute if table.shares_compute is None else table.shares_compute,
        capabilities=tuple(sorted(set(table.capabilities or usual.capabilities))),
        price=tariff.price(table, now_s),
        usd_per_s=tariff.usd_per_s(table.running_cost),
        prior=_prior(table.prior, prior),
        machine=machine,
        warms_up=warms_up(table, local),
        kept_usd_per_s=None if table.keep_loaded_usd_per_hour is None else table.keep_loaded_usd_per_hour / 3600.0,
        beside=_beside(name, table, config),
        handovers=handover.handovers(
            table.handover,
            {one: known_model(other) for one, other in config.endpoints.items()} if table.handover else {},
            name,
            # It saves a slot, and knows of nothing less.
            whole=table.engine is EngineKind.LLAMACPP,
        ),
        streams=usual.streams,
    )


def _beside(name: str, table: EndpointTable, config: Config) -> tuple[str, ...]:
    """Others of one engine of ours, which loads one model in another's place; a vendor has room for all."""
    if not table.url or not config.sites[table.site].local:
        return ()
    url = parse_url(table.url)
    urls = {other: parse_url(one.url) for other, one in config.endpoints.items() if one.url and other != name}
    return tuple(sorted(other for other, one in urls.items() if (one.host, one.port) == (url.host, url.port)))


def known_model(table: EndpointTable) -> Model | None:
    """What is known to run at an endpoint, where its hardware is declared."""
    machine = _machine(table, defaults(table.engine, local=True))
    return None if machine is None else density.model_at(machine, table.fingerprint.record())


def _machine(table: EndpointTable, usual: Defaults) -> Machine | None:
    if table.hardware is None:
        return None
    called = table.model or next(iter(table.serves), "")
    machine = hardware.machine(table.hardware, table.model_facts, called, _written(table.prior))
    chunk = table.prior.batch_tokens or usual.prior.batch_tokens or machine.setup.batch_tokens
    return replace(machine, setup=replace(machine.setup, batch_tokens=chunk))


def _gateway(config: Config) -> Gateway:
    table, folder = config.gateway, config.file.parent
    return Gateway(
        listen=parse_address(table.listen),
        admin=parse_address(table.admin),
        keys=folder / table.keys if table.keys else None,
        admin_key=config.admin_key,
        tls=None if table.tls is None else door.tls(table.tls, folder),
        journal=folder / table.journal if table.journal else None,
        journal_segment_bytes=table.journal_segment_mib * MIB,
        journal_total_bytes=table.journal_total_mib * MIB,
        journal_packs=table.journal_compress,
        state=files.state(table, folder),
        state_s=table.state_s,
        backtest_s=table.backtest_s,
        dashboard=table.dashboard,
        request_timeout_s=table.request_timeout_s,
        body_bytes_max=table.body_mib_max * MIB,
        log=files.log(table, folder),
        connections_max=table.connections_max,
        drain_s=table.drain_s,
        couriers=_couriers(config),
        traces=traces(config.trace, config.trace_secret),
    )


def _couriers(config: Config) -> Couriers | None:
    table, ticket_secret = config.gateway.couriers, config.ticket_secret
    if table is None or ticket_secret is None:
        return None
    return Couriers(secret=ticket_secret, tls=mutual.files(table.tls, config.file.parent))


def _upstream(known: Endpoint, table: EndpointTable, config: Config) -> Upstream:
    name = known.name
    return Upstream(
        name=name,
        engine=table.engine,
        url=parse_url(table.url) if table.url else None,
        model=table.model,
        key=config.secrets.get(name),
        tls_ca_file=config.file.parent / table.tls_ca_file if table.tls_ca_file else None,
        authorities=config.authorities.get(name, ""),
        probe_s=table.probe_s,
        canary_s=_canary_s(known) if table.canary_s is None else table.canary_s,
        connect_timeout_s=table.connect_timeout_s,
        asks_context=table.context_tokens is None,
        asks_media=table.capabilities is None,
        courier=None
        if table.courier is None
        else CourierPlace(name=table.courier.name, address=parse_address(table.courier.address)),
        probes_wake=table.prior.unload_after_s is not None and table.engine not in _UNLOAD_BY_THEMSELVES,
    )


def _canary_s(known: Endpoint) -> float:
    """What costs money is bought when somebody said so."""
    return CANARY_S if Capability.LOGPROBS in known.capabilities and not known.price.asks_money else 0.0


def _slo(table: SloTable) -> Slo:
    return Slo(ttft_s=_seconds(table.ttft_ms), tpot_s=_seconds(table.tpot_ms), e2e_s=_seconds(table.e2e_ms))


def _seconds(ms: float | None) -> float | None:
    return None if ms is None else ms / 1000


_FIELDS = {
    "prefill_tokens_per_s": ("prefill_s_per_token", "prefill_s_per_token2"),
    "prefill_half_speed_tokens": ("prefill_s_per_token2",),
    "decode_tokens_per_s": ("decode_s_per_token",),
    "decode_context_tokens_per_s": ("decode_s_per_context_token",),
    "overhead_ms": ("overhead_s",),
    "batch_slowdown": ("batch_slowdown",),
    "batch_fading": ("batch_fading",),
    "sigma": ("sigma",),
}
"""The fields of a prior that a setting decides, of those that hardware would."""


def _written(table: PriorTable) -> tuple[str, ...]:
    settings = (fields for key, fields in _FIELDS.items() if getattr(table, key) is not None)
    return tuple(sorted({field for fields in settings for field in fields}))


def _prior(table: PriorTable, prior: Prior) -> Prior:
    """What would be believed, with what was written down in its place, turned from rates into times."""
    if table.prefill_tokens_per_s is not None:
        # The length of half speed stays: the square term goes along with the speed.
        slower = 1 / table.prefill_tokens_per_s / prior.prefill_s_per_token
        prior = replace(
            prior,
            prefill_s_per_token=1 / table.prefill_tokens_per_s,
            prefill_s_per_token2=prior.prefill_s_per_token2 * slower,
        )
    if table.prefill_half_speed_tokens is not None:
        # One more token after m takes a + m * b seconds: twice as long as at the start where m * b = a.
        prior = replace(prior, prefill_s_per_token2=prior.prefill_s_per_token / table.prefill_half_speed_tokens)
    written = {
        "overhead_s": _seconds(table.overhead_ms),
        "decode_s_per_token": None if table.decode_tokens_per_s is None else 1 / table.decode_tokens_per_s,
        "batch_slowdown": table.batch_slowdown,
        "batch_fading": table.batch_fading,
        "decode_s_per_context_token": (
            None if table.decode_context_tokens_per_s is None else 1 / table.decode_context_tokens_per_s
        ),
        "batch_tokens": table.batch_tokens,
        "rtt_s": _seconds(table.rtt_ms),
        "upload_bytes_per_s": None if table.upload_mbit_per_s is None else table.upload_mbit_per_s * 1e6 / 8,
        "sigma": table.sigma,
        "load_s": table.load_s,
        "unload_after_s": table.unload_after_s,
    }
    return replace(prior, **{name: value for name, value in written.items() if value is not None})
