"""From what a client asked to what the core may know of it. Never the prompt."""

import re
from collections.abc import Mapping

from tidegate.core.classify import classify
from tidegate.core.model import ANYWHERE, USUAL_WEIGHT, Likeness, ModelGroup, Record, Request, RequestClass, Ruling, Slo
from tidegate.core.ruled import class_ruling, features, rulings
from tidegate.core.ruling import Rule
from tidegate.wire.digest import prefix_digests, session_digest
from tidegate.wire.errors import BadRequest
from tidegate.wire.knobs import Knobs, read_knobs
from tidegate.wire.openai import Call
from tidegate.wire.tokens import TokenRatio

# An image of middling size: vendors and vision encoders take 85 to 2,500 tokens for one. A guess, but no surprise.
MEDIA_TOKENS = 1000

# OpenAI's and Anthropic's SDKs say so.
_RETRY_COUNT = b"x-stainless-retry-count"
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_EVERYWHERE = (ANYWHERE,)
_IDENTICAL = Likeness.IDENTICAL


class ClassTable(Record, frozen=True, kw_only=True):
    """The classes that a client may name, and which one a request is of that names none and that no rule gives one.

    `partial`: there are others, which are not for this client; rules do not give them either.
    """

    classes: dict[str, RequestClass]
    default: str
    partial: bool = False
    rules: tuple[Rule, ...] = ()


def intake(
    call: Call,
    headers: Mapping[bytes, bytes],
    *,
    id: str,
    now_s: float,
    table: ClassTable,
    ratio: TokenRatio,
    salt: bytes,
    group: ModelGroup | None = None,
    residency: tuple[str, ...] = _EVERYWHERE,
    budget_usd: float | None = None,
    budgets: tuple[str, ...] = (),
    key: str = "",
    weight: float = USUAL_WEIGHT,
) -> tuple[Request, Knobs]:
    """The request as the core sees it, and the settings that concern the shell alone (`dry_run`).

    Header names are in lower case. `id` is ours and unique, since a client may send its own twice. `group` is what the
    model's name stands for, None where it stands for nothing. `ratio` is the model's, `residency` and `budget_usd` are
    what the client's `key` may use at most, `budgets` those it draws on, and `weight` is that of its share of our
    engines. Raises `BadRequest` for settings that are not acceptable.
    """
    knobs = read_knobs(headers, call.knobs)
    prompt_tokens = estimated_tokens(call, ratio)
    model = call.model if group is None else group.name
    said: tuple[Ruling, ...] = ()
    if table.rules:
        spec, said = _ruled(call, knobs, table, model, prompt_tokens, key)
    else:
        spec = _class(table, knobs.klass)
    request = Request(
        id=id,
        arrived_s=now_s,
        model=model,
        klass=classify(spec.name, prompt_tokens),
        prompt_tokens=prompt_tokens,
        prompt_bytes=len(call.prompt) + len(call.tools),  # as the call has it, which is not compiled
        preamble_bytes=len(call.tools),
        prompt_tokens_most=0 if budget_usd is None else call.prompt_tokens_most,
        prompts=call.prompts,
        output_tokens_max=call.output_tokens_max,
        completions=max(call.completions, call.generated),
        needs=call.needs,
        slo=_slo(spec.slo, knobs),
        attainment=spec.attainment,
        worth_usd=spec.worth_usd,
        worth_usd_per_1k_tokens=spec.worth_usd_per_1k_tokens,
        late_usd_per_s=spec.late_usd_per_s,
        residency=_residency(_granted(spec, residency), knobs.residency),
        cost_usd_max=knobs.cost_usd_max,
        budget_usd=budget_usd,
        failover=not knobs.no_fallback,
        likeness=knobs.likeness or spec.likeness or (_IDENTICAL if group is None else group.likeness),
        session=session_digest(knobs.session, salt, key, model) if knobs.session else "",
        session_moves=spec.session_moves if knobs.session_moves is None else knobs.session_moves,
        prefix=prefix_digests(call.prompt, salt, call.tools),
        key=key,
        weight=weight,
        rulings=said,
        budgets=budgets,
        retry=_retry(headers),
        stream=call.stream,
    )
    return request, knobs


def estimated_tokens(call: Call, ratio: TokenRatio) -> int:
    """Tokens of the prompt, tools included: counted where the client sent tokens, else estimated from its bytes."""
    return call.prompt_tokens or ratio.tokens(call.text_bytes, call.messages) + MEDIA_TOKENS * call.media


def client_request_id(headers: Mapping[bytes, bytes]) -> str | None:
    """The client's own id for its request, where it is fit to be echoed and logged."""
    given = headers.get(b"x-request-id")
    return given.decode() if given is not None and _REQUEST_ID.fullmatch(given) else None


def _retry(headers: Mapping[bytes, bytes]) -> int:
    """How often its client has tried this before, as SDKs count it; 0 where it says nothing that can be read."""
    told = headers.get(_RETRY_COUNT)
    return int(told) if told is not None and len(told) < 3 and told.isdigit() else 0


def _ruled(
    call: Call, knobs: Knobs, table: ClassTable, model: str, prompt_tokens: int, key: str
) -> tuple[RequestClass, tuple[Ruling, ...]]:
    """The class, which a rule may give to who names none, and what the rules that hold say."""
    observed = features(
        model=model,
        prompt_tokens=prompt_tokens,
        output_tokens_max=call.output_tokens_max,
        completions=call.completions,
        needs=call.needs,
        session=bool(knobs.session),
        stream=call.stream,
        key=key,
    )
    given = class_ruling(table.rules, observed, table.classes) if knobs.klass is None else None
    spec = _class(table, knobs.klass if given is None else given.klass)
    observed["class"] = spec.name
    said = rulings(table.rules, observed)
    return spec, said if given is None else (given, *said)


def _class(table: ClassTable, name: str | None) -> RequestClass:
    spec = table.classes.get(table.default if name is None else name)
    if spec is None:
        names = ", ".join(sorted(table.classes))
        if name is None and table.default:
            # No header of theirs is wrong.
            others = f", or send `x-tidegate-class`, one of {names}" if names else ""
            message = f"This key's default class `{table.default}` is not configured; ask for another key{others}."
        elif table.partial:
            message = f"`x-tidegate-class`: this key may ask for {names or 'no class that there is'}."
        else:
            message = f"`x-tidegate-class`: there is no such class; there are {names}."
        if table.partial:
            raise BadRequest(message, status=403, code="class_not_allowed")
        raise BadRequest(message)
    return spec


def _granted(spec: RequestClass, residency: tuple[str, ...]) -> tuple[str, ...]:
    """Where class and key both let the data go."""
    found = _within(spec.residency, residency)
    if not found:
        raise BadRequest(
            f"This key's data may go to {', '.join(residency)}, that of class {spec.name} to "
            f"{', '.join(spec.residency)}, and nothing is in both; ask for another class or another key.",
            status=403,
            code="residency_not_allowed",
        )
    return found


def _slo(given: Slo, knobs: Knobs) -> Slo:
    """The promise of the class, with the axes that the request sets itself."""
    ttft_s, tpot_s, e2e_s = knobs.slo_ttft_s, knobs.slo_tpot_s, knobs.slo_e2e_s
    if ttft_s is None and tpot_s is None and e2e_s is None:
        return given
    return Slo(
        ttft_s=given.ttft_s if ttft_s is None else ttft_s,
        tpot_s=given.tpot_s if tpot_s is None else tpot_s,
        e2e_s=given.e2e_s if e2e_s is None else e2e_s,
    )


def _residency(allowed: tuple[str, ...], asked: tuple[str, ...] | None) -> tuple[str, ...]:
    """Where the data may go: what the request asks for, within what it is allowed. It may tighten, never widen."""
    found = allowed if asked is None else _within(allowed, asked)
    if not found:
        within = f"within {', '.join(allowed)} it may choose"
        raise BadRequest(f"`x-tidegate-residency`: nothing that it names is allowed to this request; {within}.")
    return found


def _within(allowed: tuple[str, ...], asked: tuple[str, ...]) -> tuple[str, ...]:
    """What both name. `local` and the name of a site are two things, even where the site is local: fail closed."""
    if ANYWHERE in asked:
        return allowed
    if ANYWHERE in allowed:
        return asked
    return tuple(place for place in allowed if place in asked)
