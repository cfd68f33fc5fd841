"""Reads what a rule says of requests, as in `prompt_tokens > 32768 and class == "batch"`. Nothing of it is ever run.

Python's grammar is borrowed, and of its tree only what is named here is let through.
"""

import ast
import re
import warnings
from collections.abc import Callable, Collection, Mapping
from enum import StrEnum

from tidegate.config.problem import nearest
from tidegate.core.condition import All, Comparison, Condition, Not, Scalar, Some
from tidegate.core.model import Capability

TEXT_MAX = 1000  # a screen's line has 120 characters, and a rule that needs eight of them is several
DEPTH_MAX = 16  # deeper, nobody can tell what it says


class Kind(StrEnum):
    """What is known of a feature, and so what it may be compared with."""

    NUMBER = "number"
    TEXT = "text"
    FLAG = "true or false"
    WORDS = "list"


FEATURES: dict[str, tuple[Kind, str]] = {
    "prompt_tokens": (Kind.NUMBER, "Tokens of the prompt with its tools, as estimated from its bytes."),
    "output_tokens_max": (
        Kind.NUMBER,
        "The client's own bound on the output. Where it sets none, no comparison with it holds, not even `!=`.",
    ),
    "completions": (Kind.NUMBER, "Answers that are asked for at once (`n`)."),
    "class": (Kind.TEXT, "Its class, without the length. Not for rules that give the class."),
    "model": (Kind.TEXT, "The model that is asked for, whatever the alias."),
    "key": (Kind.TEXT, "The id of the client's key, empty where none is asked for."),
    "session": (Kind.FLAG, "Whether it names a conversation."),
    "stream": (Kind.FLAG, "Whether the answer is to come as it is made."),
    "needs": (Kind.WORDS, f"What it needs: of {', '.join(f'`{one.value}`' for one in Capability)}."),
}
"""What may be asked of a request: nothing of its prompt's text."""

_OPS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.In: "in",
    ast.NotIn: "not in",
}
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
_CONSTANTS = {"true": True, "false": False}
_TYPES: dict[Kind, tuple[type, ...]] = {Kind.NUMBER: (int, float), Kind.TEXT: (str,), Kind.FLAG: (bool,)}
_CLASS = "klass"
_SPOKEN = re.compile(rf""" "[^"]*" | '[^']*' | \bclass\b | \b{_CLASS}\b | \# """, re.VERBOSE)
_EXAMPLE = 'write it as in prompt_tokens > 32768 and class == "batch"'

Known = Mapping[str, Callable[[str], str]]
"""By feature, what to do about a text that it never is, as that never comes to pass; empty for one that it can be."""


def one_of(texts: Collection[str]) -> Callable[[str], str]:
    """For a feature that is one of these."""
    return lambda text: "" if text in texts else nearest(text, texts)


class ConditionError(Exception):
    """It cannot be read; `at` is the character at fault, from 1, where one is."""

    def __init__(self, message: str, remedy: str, at: int | None = None) -> None:
        super().__init__(message)
        self.message = message if at is None else f"character {at}: {message}"
        self.remedy = remedy


def condition(text: str, known: Known, features: Collection[str] = FEATURES) -> Condition:
    """What is written, which may only ask for these `features`. Raises ConditionError."""
    if len(text) > TEXT_MAX:
        raise ConditionError(f"it is longer than {TEXT_MAX} characters", "make several rules of it")
    if not text.isascii() or not text.replace("\n", " ").isprintable() or "\\" in text:
        raise ConditionError("it holds something else than printable ASCII, or a backslash", _EXAMPLE)
    begins = len(text) - len(text.lstrip())
    readable = _SPOKEN.sub(_as_python, text.replace("\n", " ")).strip()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what Python doubts is not what anybody meant
            tree = ast.parse(readable, mode="eval")
    except SyntaxError as error:
        at = None if error.offset is None else begins + max(1, error.offset)
        raise ConditionError("this is not a condition", _EXAMPLE, at) from None
    except (MemoryError, RecursionError, ValueError, Warning):
        raise ConditionError("this is not a condition", _EXAMPLE) from None
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == _CLASS:
            node.id = "class"
    return _Reader(begins, known, features).read(tree.body, 1)


def _as_python(found: re.Match[str]) -> str:
    """What stands for a word that Python has another meaning for, of the same length; text in quotes stays."""
    word, at = found[0], found.start() + 1
    if word == "#":
        raise ConditionError("it holds a comment, which would hide the rest", "write comments outside the quotes", at)
    if word == _CLASS:
        raise ConditionError(f"nothing of a request is called `{_CLASS}`", "did you mean `class`?", at)
    return _CLASS if word == "class" else word


class _Reader:
    """Turns a tree into a condition, or says what of it there is not."""

    def __init__(self, begins: int, known: Known, features: Collection[str]) -> None:
        self._begins, self._known, self._features = begins, known, features

    def read(self, node: ast.expr, depth: int) -> Condition:
        if depth > DEPTH_MAX:
            raise self._wrong(node, f"it is nested more than {DEPTH_MAX} deep", "make several rules of it")
        match node:
            case ast.BoolOp():
                parts = tuple(self.read(one, depth + 1) for one in node.values)
                return All(of=parts) if isinstance(node.op, ast.And) else Some(of=parts)
            case ast.UnaryOp(op=ast.Not()):
                return Not(of=self.read(node.operand, depth + 1))
            case ast.Compare():
                sides = [node.left, *node.comparators]
                made = tuple(
                    self._compare(node, left, _OPS.get(type(op)), right)
                    for left, op, right in zip(sides, node.ops, sides[1:], strict=False)
                )
                return made[0] if len(made) == 1 else All(of=made)
            case ast.Name() if self._feature(node) is Kind.FLAG:
                return Comparison(feature=node.id, op="==", value=True)
            case ast.Name():
                raise self._wrong(node, f"`{node.id}` alone is neither true nor false", "compare it with something")
        raise self._unreadable(node)

    def _compare(self, whole: ast.expr, left: ast.expr, op: str | None, right: ast.expr) -> Condition:
        if op is None:
            raise self._wrong(whole, "`is` compares nothing here", "write == or !=")
        if op in ("in", "not in"):
            found = self._among(left, right)
            if op == "in":
                return found
            if isinstance(found.value, tuple):
                # As `!=` for each, so that what is not known is unlike nothing.
                return All(of=tuple(Comparison(feature=found.feature, op="!=", value=one) for one in found.value))
            return Not(of=found)
        if isinstance(left, ast.Constant) or (isinstance(left, ast.Name) and left.id in _CONSTANTS):
            left, op, right = right, _MIRRORED[op], left
        name, kind = self._named(left)
        if kind is Kind.WORDS:
            raise self._wrong(left, f"`{name}` is a list", f'write "vision" in {name}')
        if op not in ("==", "!=") and kind is not Kind.NUMBER:
            raise self._wrong(left, f"`{name}` has no more and no less", "compare it with == or !=")
        return Comparison(feature=name, op=op, value=self._value(right, name, kind))

    def _among(self, left: ast.expr, right: ast.expr) -> Comparison:
        if isinstance(right, ast.Name):
            name, kind = self._named(right)
            if kind is not Kind.WORDS:
                raise self._wrong(right, f"`{name}` is no list", f"write {name} == and the value")
            return Comparison(feature=name, op="has", value=self._value(left, name, Kind.TEXT))
        if not isinstance(right, ast.List | ast.Tuple) or not right.elts:
            raise self._wrong(right, "this is no list of values", 'write a list, as in model in ["small", "large"]')
        name, kind = self._named(left)
        if kind is Kind.WORDS:
            raise self._wrong(left, f"`{name}` is a list", f'write "vision" in {name}')
        return Comparison(feature=name, op="in", value=tuple(self._value(one, name, kind) for one in right.elts))

    def _named(self, node: ast.expr) -> tuple[str, Kind]:
        if not isinstance(node, ast.Name) or node.id in _CONSTANTS:
            if isinstance(node, ast.Name | ast.Constant):
                raise self._wrong(node, "two values are compared, and nothing of the request", _EXAMPLE)
            raise self._unreadable(node)
        return node.id, self._feature(node)

    def _feature(self, node: ast.Name) -> Kind:
        if node.id in FEATURES and node.id not in self._features:
            raise self._wrong(node, f"`{node.id}` is what this rule decides", "ask for something else")
        if node.id not in FEATURES:
            raise self._wrong(
                node, f"nothing of a request is called `{node.id[:64]}`", nearest(node.id, self._features)
            )
        return FEATURES[node.id][0]

    def _value(self, node: ast.expr, name: str, kind: Kind) -> Scalar:
        if isinstance(node, ast.Name) and node.id in _CONSTANTS:
            value: object = _CONSTANTS[node.id]
        elif isinstance(node, ast.Constant):
            value = node.value
        elif isinstance(node, ast.Name):
            raise self._wrong(node, f"`{node.id[:64]}` is no value", "write text in quotes, and one side as a value")
        else:
            raise self._unreadable(node)
        if not isinstance(value, _TYPES[kind]) or isinstance(value, bool) is not (kind is Kind.FLAG):
            raise self._wrong(node, f"`{name}` is never this: it is {_WORDS[kind]}", f"write {_WORDS[kind]}")
        assert isinstance(value, bool | int | float | str)
        remedy = self._known[name](str(value)) if name in self._known else ""
        if remedy:
            raise self._wrong(node, f"`{name}` is never `{str(value)[:64]}`", remedy)
        return value

    def _unreadable(self, node: ast.expr) -> ConditionError:
        return self._wrong(node, "this is nothing that a rule may say", _EXAMPLE)

    def _wrong(self, node: ast.expr, message: str, remedy: str) -> ConditionError:
        return ConditionError(message, remedy, self._begins + node.col_offset + 1)


_WORDS = {Kind.NUMBER: "a number", Kind.TEXT: "text in quotes", Kind.FLAG: "true or false"}
