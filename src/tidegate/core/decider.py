"""What is decided of one request, by what is known: a read."""

from math import inf

from tidegate.core import explore, memory, plan, rules
from tidegate.core.baseline import static_order
from tidegate.core.endpoint import EndpointModel
from tidegate.core.known import Decided, Known
from tidegate.core.model import Decision, Request, Step, Wait, replace
from tidegate.core.output import Length
from tidegate.core.plan import Option
from tidegate.core.promise import is_urgent
from tidegate.core.refusal import refuse
from tidegate.core.starts import item
from tidegate.core.value import value_usd, worth_usd
from tidegate.core.why import Why

# An endpoint that is merely full is worth waiting for.
_FULL = (Why.BUSY, Why.MEMORY_TAKEN)


class Decider:
    """Weighs who may serve a request, and says where it runs, or that it waits, or why it is refused.

    `decided` is what it saw last, for whoever sends what it said; None once something was told since.
    """

    __slots__ = ("_known", "decided")

    def __init__(self, known: Known) -> None:
        self._known = known
        self.decided: Decided | None = None

    def decide(self, request: Request, now_s: float) -> Decision:
        """Where this request goes now, or that it waits, or why it is refused. Changes nothing."""
        static = self._known.is_static(now_s)
        length = self.length(request, static=static)
        models, reasons = self._known.eligible.now(request, length, now_s)
        if not models:
            return self._wait_or_refuse(request, reasons, now_s)
        if static:
            return self._static(request, length, models, reasons, now_s)
        held, own = bool(self._known.waiting.requests), [model for model in models if model.owned]
        if own and self._known.waiting.behind(request, now_s):
            first = plan.cheapest_first(request, own, length)[0][1]
            return self._wait(request, first, inf, now_s, _why_waits(others=len(own) < len(models)))
        request = self._known.priced(request, now_s)
        worth = worth_usd(request, length)
        for model in own:
            if held or not self.begins(model, request, length, now_s):
                options = plan.weigh(request, models, length, worth, now_s)
                options += self._handed_over(request, models, length, worth, now_s)
                # Whose start it is; the options may be of a wait, and what it takes then is predicted then.
                self.decided = Decided(request, now_s, [], options)
                return self._bind(request, options, reasons, worth, now_s)
        options = plan.weigh(request, models, length, worth, now_s, keep=self._attempts_max(request))
        unseen = [] if len(options) == len(models) else _others(models, options)
        options += self._handed_over(request, models, length, worth, now_s)
        self.decided = Decided(request, now_s, options, options)
        found = self._run(request, options, reasons, worth, now_s, unseen=unseen)
        due = not held and explore.is_due(own, now_s)
        if held or not (due or self._known.policy.explore_share):
            return found
        return self._explored(found, request, options, reasons, worth, now_s, due=due)

    def begins(self, model: EndpointModel, request: Request, length: Length, now_s: float) -> bool:
        """Whether one of ours can begin with this now, has not got prompts enough to begin with, and keeps no slot for
        who cannot wait as well."""
        if not _takes(model, request, length, now_s) or model.prompts_done_s(now_s) > now_s + model.ahead_s:
            return False
        return model.room > 1 or is_urgent(request) or not self._known.waiting.headroom(model, now_s)

    def length(self, request: Request, *, static: bool) -> Length:
        """What is believed of its output. The static rule asks nothing that is learned."""
        return self._known.lengths.unlearned(request) if static else self._known.lengths.of(request)

    def _run(
        self,
        request: Request,
        options: list[Option],
        reasons: dict[str, Why],
        worth: float,
        now_s: float,
        last: list[Option] | None = None,
        passed: list[Option] | None = None,
        full: bool = False,
        unseen: list[EndpointModel] | None = None,
    ) -> Decision:
        """Send it now, to the option worth most; the others follow as the plan's next steps, and then `last`.

        It could have waited for those that are `passed`. `full`: others of ours would take it later. For those `unseen`
        nothing was predicted, since they cannot be worth as much.
        """
        ranked = plan.in_order(options)
        if last:
            ranked += plan.in_order(last)
        if len(ranked) > 1 or unseen:
            why = plan.why_first(ranked)
            if why is Why.LEAST_LOSS and unseen:
                # They may be in time all the same: then they are not worth what they cost.
                length = ranked[0].base.length
                why = plan.why_first(ranked + plan.weigh(request, unseen, length, worth, now_s))
        else:
            why = Why.ONLY_AVAILABLE if full else rules.why_only(reasons.values())
        if request.rulings and plan.rules_decide(ranked[0], options + (passed or [])):
            why = Why.RULE_DECIDES
        elif request.budget_price and plan.budget_decides(request, ranked[0], options, unseen, worth, now_s):
            why = Why.BUDGET_DECIDES
        return self._go(request, ranked, reasons, why, worth, now_s)

    def _handed_over(
        self, request: Request, models: list[EndpointModel], length: Length, worth: float, now_s: float
    ) -> list[Option]:
        """Who may compute its prompt for one of ours."""
        if not self._known.handovers.models:
            return []
        handovers = self._known.handovers.now(request, models, now_s)
        return plan.weigh_handovers(request, handovers, length, worth, now_s) if handovers else []

    def _go(
        self,
        request: Request,
        ranked: list[Option],
        reasons: dict[str, Why],
        why: Why,
        worth: float,
        now_s: float,
    ) -> Decision:
        steps: tuple[Step, ...] = plan.steps(
            request,
            plan.in_turn(ranked)[: self._attempts_max(request)],
            worth,
            now_s - request.arrived_s,
            self._known.hedges.price,
        )
        busy = [name for name, excluded in reasons.items() if excluded in _FULL]
        if busy and len(steps) < self._attempts_max(request):
            # Should all of these fail, one that is merely full now is worth waiting for.
            until_s = plan.to_ms(now_s + self._known.policy.recheck_s)
            steps = (*steps, Wait(endpoint=busy[0], until_s=until_s))
        return Decision(request_id=request.id, plan=steps, why=why)

    def _explored(
        self,
        found: Decision,
        request: Request,
        options: list[Option],
        reasons: dict[str, Why],
        worth: float,
        now_s: float,
        *,
        due: bool,
    ) -> Decision:
        """What was found, or now and then another endpoint first, where that is as good as sure to do no harm.

        One of ours may be `due`, which is left alone.
        """
        if self._attempts_max(request) == 1 or not self._known.eligible.is_free(request, now_s):
            return found
        trials = explore.trials(request, options, worth, now_s, self._known.hedges.left_usd, due=due)
        if not trials:
            return found
        policy, propensity = self._known.policy, 1.0
        trial = explore.left_alone(trials, now_s) if due else None
        if trial is None:
            trial, propensity = explore.pick(trials, policy.explore_share, policy.seed, request.id)
        if trial is not None:
            ranked = [trial.option, *(o for o in plan.in_order(options) if o is not trial.option)]
            found = self._go(request, ranked, reasons, Why.EXPLORES, worth, now_s)
            if trial.cutover_s is not None:
                first = replace(found.plan[0], cutover_s=trial.cutover_s)
                found = replace(found, plan=(first, *found.plan[1:]))
        return replace(found, propensity=propensity)

    def _bind(
        self, request: Request, options: list[Option], reasons: dict[str, Why], worth: float, now_s: float
    ) -> Decision:
        """Some of our own slots are taken or spoken for: start in turn, wait, or go elsewhere."""
        own = {o.model.name: o for o in options if o.model.owned}
        others = [o for o in options if not o.model.owned]
        if not others and self._is_turned_away(request, own, now_s):
            # Where it would be among those that are held need not be known, and is dear to find out.
            return self._refuse_full(request, own, reasons, self._known.waiting.turn_s(own, request, now_s), now_s)
        elsewhere = plan.best_first(others)
        place = None
        if request.id in self._known.waiting.requests and own and self._known.waiting.may_wait(request, now_s):
            place = self._known.waiting.places(now_s).get(request.id)
        if place is None:
            work = item(request, worth, {name: o.base for name, o in own.items()}, elsewhere)
            place = self._known.waiting.place(work, now_s)
        if place.away:
            ranked = sorted(plan.in_order(others), key=lambda o: o.name != place.endpoint)
            why = Why.SENT_AWAY if place.shed else Why.WORTH_THE_PRICE
            if not place.shed and request.rulings and plan.rules_decide(ranked[0], options):
                why = Why.RULE_DECIDES
            # Should nobody else take it, one of ours will in its turn.
            return self._go(request, ranked, reasons | _full(request, own, now_s), why, worth, now_s)
        if place.start_s <= now_s:
            length = own[place.endpoint].base.length
            free = [o for n, o in own.items() if n != place.endpoint and _takes(o.model, request, length, now_s)]
            options, full = [own[place.endpoint], *others], len(own) > 1
            found = self._run(request, options, reasons, worth, now_s, last=free, full=full)
            return replace(found, why=Why.KEPT_SHARE) if place.owed and _first(found) == place.endpoint else found
        stays = fits = self._known.waiting.may_wait(request, now_s)
        if not fits and (beyond := self._beyond(request, own, now_s)):
            return self._run(request, beyond + others, reasons, worth, now_s, full=len(own) > len(beyond))
        reasons = reasons | _full(request, own, now_s)
        if request.id not in self._known.waiting.requests:
            wait_usd = value_usd(request, own[place.endpoint].base, worth, place.feared_s - request.arrived_s)
            stays = fits and (not others or elsewhere[0][0] <= wait_usd)
            if not fits and not others:
                return self._refuse_full(request, own, reasons, place.start_s, now_s)
            if not others and not any(why in _FULL for name, why in reasons.items() if name not in own):
                waits_s = self._known.waiting.hopeless_s(own, place.endpoint, request, place.start_s, now_s)
                if waits_s is not None:
                    too_late = dict.fromkeys(own, Why.TOO_LATE)
                    return refuse(request, reasons | too_late, self._known.models, now_s, slot_s=now_s + waits_s)
        elif not fits and not others and not self._known.waiting.expired(request, now_s):
            return self._refuse_full(request, own, reasons, place.start_s, now_s)
        if stays:
            why = Why.WAITS_FOR_SHARE if place.behind else _why_waits(others=bool(others))
            return self._wait(request, place.endpoint, place.start_s, now_s, why)
        if others and (fits or plan.is_worth_paying(request, others, worth)):
            passed = list(own.values()) if fits else []
            return self._run(request, others, reasons, worth, now_s, passed=passed, full=True)
        return refuse(request, reasons, self._known.models, now_s)

    def _is_turned_away(self, request: Request, own: dict[str, Option], now_s: float) -> bool:
        """Whether it comes where no slot of ours is free, and no place to wait either."""
        waiting = self._known.waiting
        if request.id in waiting.requests or waiting.may_wait(request, now_s):
            return False
        return all(option.model.room <= 0 for option in own.values())

    def _beyond(self, request: Request, own: dict[str, Option], now_s: float) -> list[Option]:
        """Those of ours that have a slot for it beside all others that are held for their models. They have prompts
        enough to begin with, and one more of them does less harm than a refusal."""
        waiting = self._known.waiting
        held = -(request.id in waiting.requests)
        return [
            o
            for o in own.values()
            if o.model.room > held + waiting.held_for(o.model.endpoint.models)
            and _takes(o.model, request, o.base.length, now_s)
        ]

    def _refuse_full(
        self, request: Request, own: dict[str, Option], reasons: dict[str, Why], slot_s: float, now_s: float
    ) -> Decision:
        """There is no place to hold it, or others have less than their share of the places."""
        why = Why.SHARE_FULL if self._known.waiting.beside_others(request) else Why.HOLD_FULL
        return refuse(request, reasons | dict.fromkeys(own, why), self._known.models, now_s, slot_s=slot_s)

    def _wait_or_refuse(self, request: Request, reasons: dict[str, Why], now_s: float) -> Decision:
        """Nobody takes it now. Where somebody is merely full it waits: a refusal would lose what a slot could serve."""
        busy = [(self._known.models[name], why) for name, why in reasons.items() if why in _FULL]
        if busy and self._known.waiting.may_wait(request, now_s):
            # A slot has its time; of memory it is found out again and again.
            starts_s = [
                (m.slots_free_s(now_s)[0] if why is Why.BUSY else now_s + self._known.policy.recheck_s, m.name)
                for m, why in busy
            ]
            start_s, name = min(starts_s)
            return self._wait(request, name, start_s, now_s, Why.WAITS_FOR_ANY)
        return refuse(request, reasons, self._known.models, now_s)

    def _wait(self, request: Request, endpoint: str, start_s: float, now_s: float, why: Why) -> Decision:
        until_s = min(start_s, now_s + self._known.policy.recheck_s)
        wait = Wait(endpoint=endpoint, until_s=plan.to_ms(until_s))
        return Decision(request_id=request.id, plan=(wait,), why=why)

    def _static(
        self,
        request: Request,
        length: Length,
        models: list[EndpointModel],
        reasons: dict[str, Why],
        now_s: float,
    ) -> Decision:
        """Without predictions: local if it fits, else the cheapest remote. What is held keeps waiting for its slot."""
        own = [m for m in models if m.owned]
        held = request.id in self._known.waiting.requests
        takes = {m.name: _takes(m, request, length, now_s) for m in models}
        ranked = static_order(
            (m.endpoint, m.room if takes[m.name] else 0, rules.cost_usd_most(request, m.endpoint, length))
            for m in models
        )
        free = any(takes[m.name] for m in own)
        if own and not free and (held or not ranked) and self._known.waiting.may_wait(request, now_s):
            return self._wait(request, own[0].name, inf, now_s, Why.STATIC_RULE)
        if not ranked:
            return refuse(request, reasons | dict.fromkeys((m.name for m in own), Why.BUSY), self._known.models, now_s)
        steps = plan.static_steps(request, [self._known.models[n] for n in ranked[: self._attempts_max(request)]])
        return Decision(request_id=request.id, plan=steps, why=Why.STATIC_RULE)

    def _attempts_max(self, request: Request) -> int:
        return rules.attempts_max(request, self._known.policy)


def _takes(model: EndpointModel, request: Request, length: Length, now_s: float) -> bool:
    """Whether it has a slot for this now, and memory."""
    tokens = memory.kv_tokens_to_begin(request, length, owned=model.owned)
    return model.room > 0 and model.memory.fits(tokens, now_s)


def _others(models: list[EndpointModel], options: list[Option]) -> list[EndpointModel]:
    """Those that are none of these options."""
    names = {option.name for option in options}
    return [model for model in models if model.name not in names]


def _full(request: Request, own: dict[str, Option], now_s: float) -> dict[str, Why]:
    """Why each of our own has no place for this yet: one is missing, or spoken for, or it lacks the memory."""
    found = {}
    for name, option in own.items():
        room, books = option.model.room, option.model.memory
        fits = room <= 0 or books.fits(memory.kv_tokens_needed(request, option.base.length), now_s)
        found[name] = Why.BUSY if fits else Why.MEMORY_TAKEN
    return found


def _why_waits(*, others: bool) -> Why:
    """Why it waits for one of ours, where `others` would take it now, or nobody would."""
    return Why.WAITS_FOR_SLOT if others else Why.WAITS_FOR_ANY


def _first(decision: Decision) -> str:
    return decision.plan[0].endpoint
