"""Random weather for a router: everything that can happen, in any order, from one seed; and the journal of it.

It does what a shell does: it tells of what was sent, follows plans to their next step when an attempt fails, holds what
is to be held, decides again what is due.
"""

from collections.abc import Callable
from random import Random
from typing import Self

from tests import make
from tidegate.core.model import (
    JOURNAL_VERSION,
    Capability,
    Decision,
    DecisionOverran,
    Drawn,
    Ended,
    Ending,
    Endpoint,
    Fingerprint,
    FirstToken,
    Handover,
    Held,
    Judged,
    Line,
    Observation,
    Policy,
    Prefill,
    Probed,
    Released,
    Request,
    Ruling,
    Segment,
    Shipped,
    Slo,
    Step,
    Uploaded,
    Wait,
    replace,
)
from tidegate.core.router import Router
from tidegate.core.sending import started

NOW_S = 1_700_000_000.0
RESIDENCIES = (("anywhere",), ("anywhere",), ("local",), ("eu",), ("local", "eu"))
FINGERPRINTS = (
    None,
    Fingerprint(weights="hf:o/a"),
    Fingerprint(weights="hf:o/a", engine="x"),
    Fingerprint(weights="b"),
)
RUNNING, QUEUED, LATE_S = (None, 0, 1, 3, 40, -1), (None, 0, 0, 2, 25), (None, 0.0, 0.3)
KV_TOKENS, KV_SHARES, SLOTS = (None, 9_000, 9_000, 40_000, 0, -1), (None, 0.0, 0.5, 0.97, 1.0, 1.5), (None, 2, 1, 0)
ENDINGS = (Ending.OK,) * 8 + (Ending.FAILED, Ending.FAILED, Ending.TIMED_OUT, Ending.REFUSED, Ending.CANCELLED)

# The budgets of a request: none of some, of others that of all, and that of their key.
BUDGETS = ((), (), ("day",), ("day", "day/k"))
WINDOW_S = 30.0

# While both are told to be one model, two of the others compute prompts for one of ours.
HANDOVERS = (Handover(target="desk", kv_bytes_per_token=2_000.0, bytes_per_s=1e7, usd_per_byte=1e-11),)

Decided = Callable[[Router, Request, Decision, float], None]


def endpoints() -> tuple[Endpoint, ...]:
    """Two engines of our own, unequal; a dear fleet, a cheap small one, and one in a named site."""
    return (
        make.endpoint("desk", concurrency=2, context_tokens=16_384, prior=replace(make.LOCAL_PRIOR, batch_tokens=128)),
        make.endpoint(
            "lap", concurrency=1, context_tokens=4_096, prior=replace(make.LOCAL_PRIOR, load_s=3.0, unload_after_s=20.0)
        ),
        make.endpoint("cloud", local=False),
        make.endpoint("cheap", local=False, concurrency=1, context_tokens=8_192, handovers=HANDOVERS),
        make.endpoint("paris", local=False, site="eu", concurrency=1, handovers=HANDOVERS),
    )


# What operators' rules say of a request: nothing of most, of others one or two.
RULINGS = (
    *[()] * 6,
    (Ruling(rule="ours", to=("desk", "lap")),),
    (Ruling(rule="lap-alone", to=("lap",)),),
    (Ruling(rule="far", to=("cheap", "cloud", "paris")), Ruling(rule="known", to=("cloud", "lap"))),
    (Ruling(rule="nowhere", to=("gone",)),),
    (Ruling(rule="rather-desk", to=("desk",), break_usd=0.002),),
    (Ruling(rule="rather-far", to=("cloud", "paris"), break_usd=0.05), Ruling(rule="ours", to=("desk", "lap"))),
    (Ruling(rule="named", klass="batch"), Ruling(rule="not-lap", to=("cheap", "cloud", "desk"), break_usd=0.0005)),
)


# Whose requests they are, and with which weight: two in five one tenant's, which has no key.
TENANTS = (("", 1.0), ("", 1.0), ("a", 1.0), ("b", 1.0), ("c", 3.0))


class Storm:
    """One seed's weather. `step` lets something happen; `lines` is the journal so far.

    `alike`: prompts begin like others, and engines tell what was cached of them. `reports`: engines of ours and one
    other tell of their load now and then, and some of their memory, true or not. `ruled`: operators' rules hold of
    some; `tenants`: some clients have keys. The class of some has a target for its attainment. `paced`: some draw on
    budgets that are to last. `slack`: promises are long and worth something, so that some may explore.
    """

    def __init__(
        self,
        seed: int,
        decided: Decided | None = None,
        policy: Policy | None = None,
        *,
        alike: bool = True,
        reports: bool = True,
        ruled: bool = True,
        tenants: bool = True,
        paced: bool = True,
        slack: bool = False,
    ) -> None:
        self.draw = Random(seed)
        # What came into the weather later has a stream of its own, so that old seeds keep theirs.
        self.draw_more = Random(f"{seed} more")
        self.draw_cold = Random(f"{seed} cold")
        self.draw_alike = Random(f"{seed} alike")
        self.draw_load = Random(f"{seed} load")
        self.draw_memory = Random(f"{seed} memory")
        self.draw_ruled = Random(f"{seed} ruled")
        self.draw_target = Random(f"{seed} target")
        self.draw_tenants = Random(f"{seed} tenants")
        self.draw_budget = Random(f"{seed} budget")
        self.draw_shipped = Random(f"{seed} shipped")
        self.alike = alike
        self.reports = reports
        self.ruled = ruled
        self.tenants = tenants
        self.paced = paced
        self.slack = slack
        self.spent_usd: dict[tuple[str, float], float] = {}
        self.now_s = NOW_S
        self.policy = policy or Policy(held_max=6, hold_s_max=20.0)
        self.endpoints = endpoints()
        self.sick = self.draw.choice(self.endpoints).name
        self.router = Router(self.endpoints, self.policy)
        self.lines: list[Line] = []
        self.held: dict[str, Request] = {}
        self.sent: dict[tuple[str, str], float] = {}
        self.content: dict[tuple[str, str], float] = {}
        self.rest: dict[str, tuple[Step, ...]] = {}
        self.targets: dict[tuple[str, str], str] = {}
        self.requests: dict[str, Request] = {}
        self._decided = decided
        self._count = 0
        self.cut()

    def check_due(self) -> None:
        """Due is whom `decide` would not let wait, but for who would find no room after those."""
        due = {request.id for request in self.router.due(self.now_s)}
        for request in self.held.values():
            decision = self.router.decide(request, self.now_s)
            if decision.plan and isinstance(decision.plan[0], Wait):
                assert request.id not in due
            elif request.id not in due:
                assert decision.plan, "a refusal needs no room"
                assert len(due) >= self.router.endpoint(decision.plan[0].endpoint).room

    def run(self, steps: int) -> Self:
        """Let so many things happen."""
        for _ in range(steps):
            self.step()
        return self

    def step(self) -> None:
        """Let time pass and one thing happen."""
        self.now_s += self.draw.choice((0.0, 0.01, 0.1, 0.5, 2.0))
        happen = self.draw.choices(
            (self.arrive, self.first, self.end, self.bind, self.leave, self.probe, self.overrun, self.cut),
            (30, 15, 22, 20, 2, 4, 1, 1),
        )[0]
        happen()

    def arrive(self) -> None:
        """A request."""
        draw, self._count = self.draw, self._count + 1
        tokens = draw.choice((20, 300, 2_000, 6_000, 20_000))
        key, weight = self.draw_tenants.choice(TENANTS) if self.tenants else TENANTS[0]
        request = make.request(
            f"r{self._count}",
            arrived_s=self.now_s,
            klass=draw.choice(("chat", "chat/long", "batch")),
            prompt_tokens=tokens,
            prompt_bytes=4 * tokens,
            output_tokens_max=draw.choice((None, 16, 400)),
            completions=draw.choice((1, 1, 3)),
            needs=draw.choice(((), (), (Capability.TOOLS,))) if draw.random() < 0.1 else (),
            slo=draw.choice((Slo(ttft_s=0.5), Slo(ttft_s=5.0, tpot_s=0.05), Slo(e2e_s=60.0), Slo())),
            worth_usd=draw.choice((0.0, 0.001, 0.02)),
            residency=draw.choice(RESIDENCIES),
            cost_usd_max=draw.choice((None, None, 0.001)),
            failover=draw.random() < 0.9,
            session=self.draw_more.choice(("", "", "s1", "s2", "s3")),
            session_moves=self.draw_more.random() < 0.1,
            prefix=self.prefix(4 * tokens),
            rulings=self.draw_ruled.choice(RULINGS) if self.ruled else (),
            attainment=self.draw_target.choice((None, None, 0.9)),
            key=key,
            weight=weight,
            budgets=self.draw_budget.choice(BUDGETS) if self.paced else (),
        )
        if self.slack:
            request = replace(request, slo=Slo(ttft_s=60.0), worth_usd=0.02)
        self.requests[request.id] = request
        self.lines.append(Line(at_s=self.now_s, fact=request))
        for budget in request.budgets:
            self.draws(budget)
        self.decide(request)

    def draws(self, budget: str) -> None:
        """Somebody has spent of a budget, which is renewed soon."""
        begins_s = self.now_s // WINDOW_S * WINDOW_S
        spent_usd = self.spent_usd.get((budget, begins_s), 0.0) + self.draw_budget.choice((0.0, 0.001, 0.01))
        self.spent_usd[budget, begins_s] = spent_usd
        fact = Drawn(budget=budget, usd=0.1, spent_usd=spent_usd, begins_s=begins_s, ends_s=begins_s + WINDOW_S)
        if self.router.is_news(fact, self.now_s):
            self.tell(fact)

    def prefix(self, prompt_bytes: int) -> tuple[int, ...]:
        """The digests of a prompt that goes on with one of a few conversations, or begins one."""
        draw = self.draw_alike
        talk, shared = draw.randrange(8), draw.randrange(12)
        digests = [1000 * (talk + 1 if block >= 2 else 0) + block for block in range(prompt_bytes // 1024)]
        digests[2 + shared :] = [draw.getrandbits(32) for _ in digests[2 + shared :]]
        return tuple(digests[:256]) if self.alike else ()

    def decide(self, request: Request) -> None:
        """Decide, and do what a shell does with the answer."""
        decision = self.router.decide(request, self.now_s)
        self.lines.append(Line(at_s=self.now_s, fact=decision))
        if self._decided is not None:
            self._decided(self.router, request, decision, self.now_s)
        if not decision.plan:
            if self.held.pop(request.id, None):
                self.tell(Released(request_id=request.id))
            self.judge(request, kept=False)
        elif isinstance(decision.plan[0], Wait):
            if request.id not in self.held:
                self.held[request.id] = request
                self.tell(Held(request=request))
        else:
            self.held.pop(request.id, None)
            self.rest[request.id] = decision.plan
            self.follow(request)

    def follow(self, request: Request) -> None:
        """Follow the plan by one step."""
        step, *rest = self.rest[request.id]
        self.rest[request.id] = tuple(rest)
        if isinstance(step, Wait):
            self.held[request.id] = request
            self.tell(Held(request=request))
            return
        self.sent[request.id, step.endpoint] = self.now_s
        target = step.target if isinstance(step, Prefill) else ""
        if target:
            self.targets[request.id, step.endpoint] = target
        self.tell(started(request, step.endpoint, target=target))

    def first(self) -> None:
        """First content of some attempt."""
        silent = [key for key in self.sent if key not in self.content]
        if silent:
            key = self.draw.choice(silent)
            if self.draw_more.random() < 0.3:
                self.upload(key)
            self.content[key] = self.now_s
            self.tell(FirstToken(request_id=key[0], endpoint=key[1], ttft_s=self.now_s - self.sent[key]))

    def upload(self, key: tuple[str, str]) -> None:
        """The bytes of a request have got there."""
        took_s, at_most = self.draw_more.choice((0.002, 0.02, 1.5)), self.draw_more.random() < 0.2
        size_bytes = self.requests[key[0]].prompt_bytes
        fact = Uploaded(request_id=key[0], endpoint=key[1], upload_bytes=size_bytes, seconds=took_s, at_most=at_most)
        self.tell(fact)

    def end(self) -> None:
        """Some attempt ends, well or not; a failed one goes on with its plan."""
        if not self.sent:
            return
        key = self.draw.choice(list(self.sent))
        sick = key[1] == self.sick and self.draw.random() < 0.9
        ending = Ending.FAILED if sick else self.draw.choice(ENDINGS)
        sent_s, first_s = self.sent.pop(key), self.content.pop(key, None)
        target = self.targets.pop(key, "")
        tokens = self.draw.choice((None, 1, 40, 700))
        prompt_tokens, cached_tokens = self.draw.choice((None, 10, 3_000)), self.draw.choice((None, 5))
        if self.alike and self.draw_alike.random() < 0.5:
            prompt_tokens = self.requests[key[0]].prompt_tokens
            cached_tokens = self.draw_alike.randrange(prompt_tokens)
        self.tell(
            Ended(
                request_id=key[0],
                endpoint=key[1],
                ending=ending,
                e2e_s=self.now_s - sent_s,
                ttft_s=None if first_s is None else first_s - sent_s,
                prompt_tokens=prompt_tokens,
                cached_tokens=cached_tokens,
                output_tokens=tokens if ending is Ending.OK else None,
                retry_after_s=self.draw.choice((None, 3.0)) if ending is Ending.REFUSED else None,
                cause=self.draw.choice(("", "", "context_exceeded")) if ending is Ending.FAILED else "",
            )
        )
        if target and ending is Ending.OK:
            self.ship(key, target)
        elif ending is not Ending.OK and first_s is None and self.rest[key[0]] and self.draw.random() < 0.8:
            self.follow(self.requests[key[0]])
        else:
            self.judge(self.requests[key[0]], kept=ending is Ending.OK and self.draw_target.random() < 0.8)

    def ship(self, key: tuple[str, str], target: str) -> None:
        """A prompt is computed, and its KV cache comes to its target, or not."""
        draw, request = self.draw_shipped, self.requests[key[0]]
        ok, size = draw.random() < 0.8, draw.choice((0, 500, 2_000, 9_000)) * request.prompt_tokens
        fact = Shipped(request_id=request.id, endpoint=key[1], target=target, ok=ok, given_up=draw.random() < 0.3)
        if ok:
            fact = replace(fact, kv_bytes=size, left_bytes=size, seconds=draw.choice((0.0, 0.01, 4.0)))
        self.tell(fact)
        if ok:
            request = self.requests[key[0]] = replace(request, shipped=f"{key[1]}>{target}")
            self.lines.append(Line(at_s=self.now_s, fact=request))
            self.decide(request)
        elif self.rest[key[0]]:
            self.follow(request)
        else:
            self.judge(request, kept=False)

    def judge(self, request: Request, *, kept: bool | None) -> None:
        """A request is over."""
        if request.attainment is not None:
            fact = Judged(request_id=request.id, klass=request.klass, attainment=request.attainment, kept=kept)
            self.tell(fact)

    def bind(self) -> None:
        """What is due is decided again."""
        for request in self.router.due(self.now_s):
            if request.id in self.held:
                self.decide(request)

    def leave(self) -> None:
        """The client of a held request is gone."""
        if self.held:
            name = self.draw.choice(list(self.held))
            request = self.held.pop(name)
            self.tell(Released(request_id=name))
            self.judge(request, kept=None)

    def probe(self) -> None:
        """A probe comes back, or not."""
        name = self.draw.choice(self.endpoints).name
        up = self.draw.random() < 0.8
        rtt_s = self.draw.choice((None, 0.02)) if up else None
        if rtt_s is not None:
            rtt_s *= self.draw_more.choice((1.0, 1.0, 1.0, 1.1, 10.0))
        # Some are one model for a time, and one never tells.
        told = None if name == "cloud" else self.draw_more.choice(FINGERPRINTS)
        draw = self.draw_load
        running, queued, late_s = draw.choice(RUNNING), draw.choice(QUEUED), draw.choice(LATE_S)
        if not up or not self.reports or name in ("cheap", "paris"):
            running = queued = late_s = None
        tells = up and self.reports and name in ("desk", "cheap")
        resident = self.draw_cold.choice((None, True, False)) if name == "desk" else None
        loading = resident is False and self.draw_cold.random() < 0.2
        self.tell(
            Probed(
                endpoint=name,
                up=up,
                rtt_s=rtt_s,
                fingerprint=told if up else None,
                running=running,
                queued=queued,
                measured_s=None if late_s is None else self.now_s - late_s,
                resident=resident if up else None,
                loading=loading and up,
                kv_tokens_max=self.draw_memory.choice(KV_TOKENS) if tells else None,
                kv_share=self.draw_memory.choice(KV_SHARES) if tells else None,
                slots=self.draw_memory.choice(SLOTS) if tells else None,
                preemptions=self.draw_memory.choice((None, 0, 3, len(self.lines))) if tells else None,
            )
        )

    def overrun(self) -> None:
        """A decision took too long."""
        self.tell(DecisionOverran(spent_s=0.02))

    def cut(self) -> None:
        """A new segment begins."""
        segment = Segment(
            version=JOURNAL_VERSION,
            software="test",
            policy=self.policy,
            endpoints=self.endpoints,
            state=self.router.snapshot(),
            follows=bool(self.lines),
        )
        self.lines.append(Line(at_s=self.now_s, fact=segment))

    def tell(self, fact: Observation) -> None:
        """Tell the router, and write it down."""
        self.router.observe(fact, self.now_s)
        self.lines.append(Line(at_s=self.now_s, fact=fact))
