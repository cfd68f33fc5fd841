"""Why an endpoint was picked, left out or waited for: every reason there is, and its sentence."""

from enum import StrEnum


class Why(StrEnum):
    """Every reason a decision or an exclusion can have. Closed: dashboards, docs and tests enumerate it."""

    # Why this endpoint
    CHEAPEST_ON_TIME = "cheapest_on_time"
    WORTH_THE_PRICE = "worth_the_price"
    NOT_WORTH_MORE = "not_worth_more"
    LEAST_LOSS = "least_loss"
    SENT_AWAY = "sent_away"
    RULE_DECIDES = "rule_decides"
    BUDGET_DECIDES = "budget_decides"
    KEPT_SHARE = "kept_share"
    ONLY_LONG_ENOUGH = "only_long_enough"
    ONLY_ALLOWED = "only_allowed"
    ONLY_ALIKE = "only_alike"
    ONLY_CONTINUING = "only_continuing"
    ONLY_CAPABLE = "only_capable"
    ONLY_RULED = "only_ruled"
    ONLY_AFFORDABLE = "only_affordable"
    ONLY_WITHIN_BUDGET = "only_within_budget"
    ONLY_PINNED = "only_pinned"
    ONLY_AVAILABLE = "only_available"
    ONLY_ENDPOINT = "only_endpoint"
    EXPLORES = "explores"
    STATIC_RULE = "static_rule"
    # Why not yet
    WAITS_FOR_SLOT = "waits_for_slot"
    WAITS_FOR_ANY = "waits_for_any"
    WAITS_FOR_SHARE = "waits_for_share"
    # Why not this endpoint, or none at all
    UNKNOWN_MODEL = "unknown_model"
    MUST_STAY_LOCAL = "must_stay_local"
    SITE_NOT_ALLOWED = "site_not_allowed"
    NOT_ALIKE = "not_alike"
    CONTEXT_TOO_LONG = "context_too_long"
    MEMORY_TOO_SMALL = "memory_too_small"
    LACKS_CAPABILITY = "lacks_capability"
    RULED_OUT = "ruled_out"
    OVER_MAX_COST = "over_max_cost"
    OVER_BUDGET = "over_budget"
    PINNED_ELSEWHERE = "pinned_elsewhere"
    DRAINED = "drained"
    SESSION_ELSEWHERE = "session_elsewhere"
    DOWN = "down"
    BREAKER_OPEN = "breaker_open"
    TOLD_TO_WAIT = "told_to_wait"
    BUSY = "busy"
    MEMORY_TAKEN = "memory_taken"
    HOLD_FULL = "hold_full"
    SHARE_FULL = "share_full"
    TOO_LATE = "too_late"
    KV_UNLIKE = "kv_unlike"
    MODEL_FAILED = "model_failed"


WHY_TEXT: dict[Why, str] = {
    Why.CHEAPEST_ON_TIME: "the cheapest endpoint expected to keep the promise",
    Why.WORTH_THE_PRICE: "a cheaper endpoint would risk the promise by more than this one costs",
    Why.NOT_WORTH_MORE: "the promise is at risk here; keeping it elsewhere costs more than it is worth",
    Why.LEAST_LOSS: "no endpoint is expected to keep the promise; this one loses least",
    Why.SENT_AWAY: "our own engine is taken until too late; sending this away keeps the most promises per dollar",
    Why.RULE_DECIDES: "operators' rules would rather have it here; without them another endpoint would be worth more",
    Why.BUDGET_DECIDES: "another endpoint would be worth more, were a budget's dollars worth no more than themselves",
    Why.KEPT_SHARE: "late or promised nothing, it starts in the share of our engine that is kept for such requests",
    Why.ONLY_LONG_ENOUGH: "only this endpoint's context window and memory hold prompt and output",
    Why.ONLY_ALLOWED: "the request's data may go to no other site",
    Why.ONLY_ALIKE: "no other endpoint's model is as alike to the one asked for as the request demands",
    Why.ONLY_CONTINUING: "the conversation goes on with the model that it began with, and no other endpoint has it",
    Why.ONLY_CAPABLE: "no other endpoint can do what the request asks for",
    Why.ONLY_RULED: "operators' rules, or what it asks for, let it go to no other endpoint",
    Why.ONLY_AFFORDABLE: "every other endpoint could cost more than the request allows",
    Why.ONLY_WITHIN_BUDGET: "every other endpoint could cost more than the budget has left",
    Why.ONLY_PINNED: "operators have pinned this model here",
    Why.ONLY_AVAILABLE: "every other endpoint is drained, down, backing off or full",
    Why.ONLY_ENDPOINT: "no other endpoint serves this model",
    Why.EXPLORES: "to learn what it is like: little is at risk by that, and the best one is next in the plan",
    Why.STATIC_RULE: "the static rule is in force: local if it fits, else the cheapest remote; what is held stays",
    Why.WAITS_FOR_SLOT: "waiting for a slot of our own is worth more than going elsewhere now",
    Why.WAITS_FOR_ANY: "nobody who may serve it has a place for it now; it waits for the first",
    Why.WAITS_FOR_SHARE: "it waits behind requests of a key that has had less of our engines, and would be late",
    Why.UNKNOWN_MODEL: "no endpoint serves this model",
    Why.MUST_STAY_LOCAL: "the request's data must stay local",
    Why.SITE_NOT_ALLOWED: "the request's data may not go to this site",
    Why.NOT_ALIKE: "the endpoint's model is less alike to the one asked for than the request demands",
    Why.CONTEXT_TOO_LONG: "prompt and output together exceed the context window",
    Why.MEMORY_TOO_SMALL: "the prompt is too long and exceeds the available context size of the engine's memory",
    Why.LACKS_CAPABILITY: "the endpoint cannot do what the request asks for",
    Why.RULED_OUT: "an operators' rule sends the request elsewhere",
    Why.OVER_MAX_COST: "the upper bound of the cost exceeds the request's limit",
    Why.OVER_BUDGET: "the upper bound of the cost exceeds what the budget has left",
    Why.PINNED_ELSEWHERE: "operators have pinned this model to another endpoint",
    Why.DRAINED: "operators are draining the endpoint",
    Why.SESSION_ELSEWHERE: "the conversation goes on where it began, with another model than this endpoint's",
    Why.DOWN: "the last two probes did not reach the endpoint, or found that it refuses our key, or it says that it "
    "cannot serve",
    Why.BREAKER_OPEN: "recent failures opened the endpoint's breaker",
    Why.TOLD_TO_WAIT: "the endpoint refused and named a time to come back",
    Why.BUSY: "as much is in flight there as it takes",
    Why.MEMORY_TAKEN: "beside what runs there, the engine's memory does not hold prompt and output",
    Why.HOLD_FULL: "every slot is taken and the hold queue is full",
    Why.KV_UNLIKE: "both engines must be known to have the same model: a KV cache fits no other",
    Why.MODEL_FAILED: "a bug of ours: not even the static rule could decide",
    Why.TOO_LATE: "its promise cannot be kept, and what is in time leaves it no place before it has waited too long",
    Why.SHARE_FULL: "the hold queue is full, and the key has its share of its places while others need theirs",
}
