"""What operators' rules say of one request: found once, when it arrives, and asked by every decision about it."""

from collections.abc import Container, Iterable

from tidegate.core.condition import Features, Value, holds
from tidegate.core.model import Capability
from tidegate.core.ruling import Rule, Ruling


def features(
    *,
    model: str,
    prompt_tokens: int,
    output_tokens_max: int | None,
    completions: int,
    needs: tuple[Capability, ...],
    session: bool,
    stream: bool,
    key: str,
) -> dict[str, Value | None]:
    """What rules may ask of a request, by the names that they have for it; its class is found by some of them."""
    return {
        "model": model,
        "prompt_tokens": prompt_tokens,
        "output_tokens_max": output_tokens_max,
        "completions": completions,
        "needs": needs,
        "session": session,
        "stream": stream,
        "key": key,
    }


def class_ruling(rules: Iterable[Rule], observed: Features, allowed: Container[str]) -> Ruling | None:
    """The first rule that holds and gives a class which is allowed to who asks."""
    for rule in rules:
        if rule.says.klass in allowed and holds(rule.when, observed):
            return rule.says
    return None


def rulings(rules: Iterable[Rule], observed: Features) -> tuple[Ruling, ...]:
    """What all rules that hold say of where it goes."""
    return tuple([rule.says for rule in rules if rule.says.to and holds(rule.when, observed)])


def barred_by(said: tuple[Ruling, ...], endpoint: str) -> str:
    """The first rule that forbids this endpoint, empty where none does. What a rule does not know it forbids."""
    for one in said:
        to = one.to
        # What `hard` means: looked up here, it takes half the time.
        if endpoint not in to and one.break_usd is None and to:
            return one.rule
    return ""


def break_usd(said: tuple[Ruling, ...], endpoint: str) -> float:
    """By how many dollars rules make this endpoint worth less: those that would rather have it elsewhere, together."""
    usd = 0.0
    for one in said:
        if one.break_usd is not None and endpoint not in one.to:
            usd += one.break_usd
    return usd
