"""A small closed world: a router and its flights against two engines, on a clock of events. No bytes, no sleep."""

from heapq import heappop, heappush
from itertools import count
from random import Random

from tests import make
from tidegate.core.actions import Action, Call, Cancel, Finish, GiveUp, Hold, Relay, Timer
from tidegate.core.flight import Flight, State
from tidegate.core.model import Decision, Ended, Ending, Endpoint, FirstToken, Held, Request
from tidegate.core.router import Router
from tidegate.core.why import Why

TOKENS = 100


class World:
    """Engines that need what their prior says, with some noise; `dead` ones refuse every connection."""

    def __init__(self, *endpoints: Endpoint, seed: int = 1, **settings: object) -> None:
        self.endpoints = {e.name: e for e in endpoints}
        self.router = Router(endpoints, make.policy(**settings))
        self.draw, self.now_s, self.dead = Random(seed), 0.0, set[str]()
        self.flights: dict[str, Flight] = {}
        self.requests: dict[str, Request] = {}
        self.decisions: dict[str, list[Decision]] = {}
        self.served: dict[str, tuple[str, float]] = {}
        self.lost: dict[str, Why | None] = {}
        self.sent: dict[tuple[str, str], float] = {}
        self.in_flight_max = dict.fromkeys(self.endpoints, 0)
        self._events: list[tuple[float, int, str, str, str]] = []
        self._order = count()

    def at(self, at_s: float, what: str, request_id: str, endpoint: str = "") -> None:
        heappush(self._events, (at_s, next(self._order), what, request_id, endpoint))

    def arrive(self, request: Request) -> None:
        """It will come at its time of arrival."""
        self.requests[request.id] = request
        self.at(request.arrived_s, "arrive", request.id)

    def run(self, until_s: float = 1e9) -> "World":
        """Until nothing more happens, or then."""
        while self._events and self._events[0][0] <= until_s:
            self.now_s, _, what, request_id, endpoint = heappop(self._events)
            flight = self.flights.setdefault(request_id, Flight())
            key = (request_id, endpoint)
            if what in ("arrive", "decide") and flight.state in (State.PLANNED, State.HELD):
                self.decide(self.requests[request_id])
            elif what == "timer":
                self.act(request_id, flight.timer(self.now_s))
            elif what == "first" and key in self.sent:
                self.tell_first(request_id, endpoint)
                self.act(request_id, flight.content(endpoint, self.now_s))
            elif what in ("ok", "failed") and key in self.sent:
                self.end(request_id, endpoint, Ending(what))
                done = flight.completed(endpoint) if what == "ok" else flight.failed(endpoint, self.now_s)
                self.act(request_id, done)
            for request in self.router.due(self.now_s):
                if self.flights[request.id].state is State.HELD:
                    self.decide(request)
        return self

    def decide(self, request: Request) -> None:
        decision = self.router.decide(request, self.now_s)
        self.decisions.setdefault(request.id, []).append(decision)
        if decision.plan:
            self.act(request.id, self.flights[request.id].start(decision.plan, self.now_s))
        else:
            self.lost[request.id] = decision.why
            self.flights[request.id].left()

    def act(self, request_id: str, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Call():
                    self.call(self.requests[request_id], action.endpoint)
                case Cancel():
                    self.end(request_id, action.endpoint, Ending.CANCELLED)
                case Timer():
                    self.at(action.at_s, "timer", request_id)
                case Hold():
                    self.router.observe(Held(request=self.requests[request_id]), self.now_s)
                    self.at(action.until_s, "decide", request_id)
                case Relay():
                    self.served[request_id] = (action.endpoint, self.now_s - self.requests[request_id].arrived_s)
                case GiveUp():
                    self.lost[request_id] = None
                case Finish():
                    pass

    def call(self, request: Request, name: str) -> None:
        self.router.observe(make.started(request, name), self.now_s)
        self.sent[request.id, name] = self.now_s
        in_flight = sum(endpoint == name for _, endpoint in self.sent)
        self.in_flight_max[name] = max(self.in_flight_max[name], in_flight)
        if name in self.dead:
            self.at(self.now_s + 0.01, "failed", request.id, name)
            return
        prior, noise = self.endpoints[name].prior, self.draw.lognormvariate(0.0, 0.1)
        first_s = prior.rtt_s + noise * (prior.overhead_s + request.prompt_tokens * prior.prefill_s_per_token)
        self.at(self.now_s + first_s, "first", request.id, name)
        self.at(self.now_s + first_s + TOKENS * prior.decode_s_per_token, "ok", request.id, name)

    def tell_first(self, request_id: str, name: str) -> None:
        ttft_s = self.now_s - self.sent[request_id, name]
        self.router.observe(FirstToken(request_id=request_id, endpoint=name, ttft_s=ttft_s), self.now_s)

    def end(self, request_id: str, name: str, ending: Ending) -> None:
        sent_s = self.sent.pop((request_id, name))
        first_s = self.router.endpoint(name).state.reservations[request_id].first_s
        ok = ending is Ending.OK
        fact = Ended(
            request_id=request_id,
            endpoint=name,
            ending=ending,
            e2e_s=self.now_s - sent_s,
            ttft_s=None if first_s is None else first_s - sent_s,
            output_tokens=TOKENS if ok else None,
        )
        self.router.observe(fact, self.now_s)
