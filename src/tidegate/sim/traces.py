"""Public traces, read as they are: line by line, plain or gzipped; faults with file, line and what belongs there."""

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from random import Random
from typing import NamedTuple, NoReturn

import msgspec

from tidegate.sim.ask import NUMBERS, PLACES, TURNS
from tidegate.sim.lines import BadFile, read_lines

# Rows that are held at once: a tick of Mooncake's has ten, a session of kv-cache-tester's at most 514.
TOGETHER_MAX = 100_000
# Larger than any context there is; a number beyond it is a column taken for another.
TOKENS_MAX = 100_000_000
# Mooncake's times are ticks of three seconds.
TICK_S = 3.0
MOONCAKE_BLOCK_TOKENS = 512
KVCT_BLOCK_TOKENS = 64
# Identities of blocks are the trace's own: one numbering for all of Mooncake's, one a session in kv-cache-tester's.
_SPACE = NUMBERS * TURNS * PLACES
_SESSION = TURNS * PLACES

_AZURE = b"TIMESTAMP,ContextTokens,GeneratedTokens"
_KVCT = ("trace_id", "agent", "in_tokens", "out_tokens", "prefix_prev_tokens", "think_time")
_TIMESTAMP = re.compile(rb"(\d{4})-(\d\d)-(\d\d)[ T](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:\+00:00|Z)?", re.ASCII)


class BadTrace(BadFile):
    """A trace that cannot be read; its text names file, line and what is expected there."""


class Seen(NamedTuple):
    """One recorded request, `at_s` after the first of its file; `blocks` is None where the trace has none."""

    at_s: float
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] | None = None


class Turn(NamedTuple):
    """One recorded turn, asked `think_s` after the answer before it. `runs` are its blocks, as (first, count)."""

    think_s: float
    prompt_tokens: int
    output_tokens: int
    runs: tuple[tuple[int, int], ...]


def azure(path: Path) -> Iterator[Seen]:
    """Azure's LLM inference traces: CSV with TIMESTAMP (UTC, to 100 ns), ContextTokens, GeneratedTokens."""
    first_ns = last_ns = -1
    lines = _lines(path)
    number, line = next(lines)
    if line != _AZURE:
        _bad(path, number, f"the header {_AZURE.decode()}")
    for number, line in lines:
        cells = line.split(b",")
        if len(cells) != 3:
            _bad(path, number, f"three cells, {_AZURE.decode()}; found {len(cells)}")
        at_ns = _timestamp_ns(cells[0])
        if at_ns is None:
            _bad(path, number, "TIMESTAMP as 2023-11-16 18:17:03.9799600")
        if at_ns < last_ns:
            _bad(path, number, "a TIMESTAMP that is not before the last row's; sort the file by it")
        if first_ns < 0:
            first_ns = at_ns
        last_ns = at_ns
        prompt_tokens = _tokens(path, number, "ContextTokens", cells[1])
        yield Seen((at_ns - first_ns) / 1e9, prompt_tokens, _tokens(path, number, "GeneratedTokens", cells[2]))


class _Mooncake(msgspec.Struct):
    timestamp: float
    input_length: int
    output_length: int
    hash_ids: list[int]


def mooncake(path: Path, random: Random, space: int) -> Iterator[Seen]:
    """Mooncake's traces: JSON lines with timestamp (ms), input_length, output_length, hash_ids of 512-token blocks.

    Times are in ticks of three seconds. The rows of a tick are spread over it by chance, in the order of the file,
    never beyond the next tick. The last block of a prompt is usually not full and has an identity all the same.
    """
    ticks = ((at_s, list(rows)) for at_s, rows in groupby(_mooncake_rows(path, space), lambda seen: seen.at_s))
    at_s, rows = next(ticks, (0.0, []))
    begun_s = at_s
    while rows:
        next_s, following = next(ticks, (at_s + TICK_S, []))
        width_s = min(TICK_S, next_s - at_s)
        for share, seen in zip(sorted(random.random() for _ in rows), rows, strict=True):
            yield seen._replace(at_s=at_s - begun_s + share * width_s)
        at_s, rows = next_s, following


def _mooncake_rows(path: Path, space: int) -> Iterator[Seen]:
    decode = msgspec.json.Decoder(_Mooncake).decode
    base, last_s, together = space * _SPACE, -1.0, 0
    for number, line in _lines(path):
        try:
            row = decode(line)
        except msgspec.DecodeError as e:
            _bad(path, number, f"a JSON object with timestamp, input_length, output_length, hash_ids: {e}")
        at_s = row.timestamp / 1000.0
        if not last_s <= at_s < float("inf"):
            _bad(path, number, "a timestamp in ms that is not before the last row's; sort the file by it")
        together = together + 1 if at_s == last_s else 1
        if together > TOGETHER_MAX:
            _bad(path, number, f"at most {TOGETHER_MAX} rows with one timestamp")
        last_s = at_s
        prompt_tokens = _within(path, number, "input_length", row.input_length)
        ids = row.hash_ids
        if len(ids) > -(-prompt_tokens // MOONCAKE_BLOCK_TOKENS):
            _bad(
                path, number, f"one id in hash_ids for each {MOONCAKE_BLOCK_TOKENS} tokens of input_length, found more"
            )
        if ids and not (min(ids) >= 0 and max(ids) < _SPACE):
            _bad(path, number, f"hash_ids from 0 to {_SPACE - 1}")
        output_tokens = _within(path, number, "output_length", row.output_length)
        yield Seen(at_s, prompt_tokens, output_tokens, tuple([base + one for one in ids]))


class _Asked(msgspec.Struct):
    """A request of a session, or a sub-agent with requests of its own."""

    in_tokens: int | None = msgspec.field(default=None, name="in")
    out: int = 0
    hash_ids: list[int | tuple[int, int]] = []
    think_time: float | None = None
    requests: list["_Asked"] | None = None


class _Session(msgspec.Struct):
    requests: list[_Asked]
    block_size: int = KVCT_BLOCK_TOKENS


def kvct(path: Path, space: int) -> Iterator[list[Turn]]:
    """Sessions of coding agents from kv-cache-tester: its traces, one JSON object a line, or the table made of them.

    `hash_ids` may be ids, as in the original, or runs of them. A sub-agent is a session of its own, after the one that
    called it. The table has no ids; its blocks are those of the turn before up to `prefix_prev_tokens`, and new ones.
    """
    _, head = next(_lines(path))
    return _kvct_lines(path, space) if head.startswith(b"{") else _kvct_table(path, space)


def _kvct_lines(path: Path, space: int) -> Iterator[list[Turn]]:
    decode = msgspec.json.Decoder(_Session).decode
    for number, line in _lines(path):
        try:
            session = decode(line)
        except msgspec.DecodeError as e:
            _bad(path, number, f"a JSON object with requests, each with in, out, hash_ids, think_time: {e}")
        if session.block_size != KVCT_BLOCK_TOKENS:
            _bad(path, number, f"a block_size of {KVCT_BLOCK_TOKENS}")
        base = space * _SPACE + number * _SESSION
        main = [asked for asked in session.requests if asked.requests is None]
        for agent in (main, *[asked.requests for asked in session.requests if asked.requests is not None]):
            turns = [_turn(path, number, base, asked) for asked in agent]
            if turns:
                yield turns


def _turn(path: Path, number: int, base: int, asked: _Asked) -> Turn:
    if asked.in_tokens is None:
        _bad(path, number, "`in`, the prompt's tokens, at each request")
    prompt_tokens = _within(path, number, "in", asked.in_tokens)
    runs = [(one, 1) if isinstance(one, int) else one for one in asked.hash_ids]
    if any(first < 0 or count < 1 or first + count > _SESSION for first, count in runs):
        _bad(path, number, f"hash_ids from 0 to {_SESSION - 1}, alone or as [first, count]")
    if sum(count for _, count in runs) * KVCT_BLOCK_TOKENS > prompt_tokens:
        _bad(path, number, f"one id in hash_ids for each whole {KVCT_BLOCK_TOKENS} tokens of `in`, found more")
    think_s = _seconds(path, number, asked.think_time or 0.0)
    joined = _joined([(base + first, count) for first, count in runs])
    return Turn(think_s, prompt_tokens, _within(path, number, "out", asked.out), joined)


def _kvct_table(path: Path, space: int) -> Iterator[list[Turn]]:
    for trace, (_, rows) in enumerate(groupby(_kvct_rows(path), lambda row: row[1][0])):
        agents: dict[bytes, list[Turn]] = {}
        fresh = space * _SPACE + trace * _SESSION
        for together, (number, (_, agent, prompt, output, kept, think)) in enumerate(rows, 1):
            if together > TOGETHER_MAX:
                _bad(path, number, f"at most {TOGETHER_MAX} rows of one session")
            turns = agents.setdefault(agent, [])
            prompt_tokens = _tokens(path, number, "in_tokens", prompt)
            blocks = prompt_tokens // KVCT_BLOCK_TOKENS
            kept_blocks = _tokens(path, number, "prefix_prev_tokens", kept) // KVCT_BLOCK_TOKENS
            runs = _leading(turns[-1].runs, min(kept_blocks, blocks)) if turns else ()
            end = fresh + blocks - sum(count for _, count in runs)
            if end > fresh:
                runs = _joined([*runs, (fresh, end - fresh)])
            fresh = end
            think_s = _seconds(path, number, think or b"0")
            turns.append(Turn(think_s, prompt_tokens, _tokens(path, number, "out_tokens", output), runs))
        yield from agents.values()


def _kvct_rows(path: Path) -> Iterator[tuple[int, list[bytes]]]:
    """Line number and the cells that matter."""
    lines = _lines(path)
    number, line = next(lines)
    names = line.decode("utf-8", "replace").split(",")
    if not set(_KVCT) <= set(names):
        _bad(path, number, f"a JSON object, or a header with the columns {', '.join(_KVCT)}")
    places = [names.index(name) for name in _KVCT]
    for number, line in lines:
        cells = line.split(b",")
        if len(cells) != len(names):
            _bad(path, number, f"{len(names)} cells, found {len(cells)}")
        yield number, [cells[place] for place in places]


def _leading(runs: tuple[tuple[int, int], ...], blocks: int) -> tuple[tuple[int, int], ...]:
    """The first so many blocks, or as many as there are."""
    found = []
    for first, count in runs:
        if blocks <= 0:
            break
        found.append((first, min(count, blocks)))
        blocks -= count
    return tuple(found)


def _joined(runs: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The same blocks in as few runs as there can be: sessions are held in this form, and may have a million blocks."""
    found: list[tuple[int, int]] = []
    for first, count in runs:
        if found and sum(found[-1]) == first:
            found[-1] = (found[-1][0], found[-1][1] + count)
        else:
            found.append((first, count))
    return tuple(found)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    return read_lines(path, "trace", BadTrace)


def _bad(path: Path, number: int, expected: str) -> NoReturn:
    raise BadTrace.at(path, number, expected)


def _tokens(path: Path, number: int, name: str, cell: bytes) -> int:
    return _within(path, number, name, int(cell) if cell.isdigit() and len(cell) < 12 else -1)


def _within(path: Path, number: int, name: str, tokens: int) -> int:
    if not 0 <= tokens <= TOKENS_MAX:
        _bad(path, number, f"{name} as a whole number of tokens from 0 to {TOKENS_MAX}")
    return tokens


def _seconds(path: Path, number: int, text: bytes | float) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0.0 <= seconds < float("inf"):
        _bad(path, number, "think_time in seconds, not less than 0")
    return seconds


def _timestamp_ns(text: bytes) -> int | None:
    """Nanoseconds since the year nought of the calendar, None for what is no time."""
    found = _TIMESTAMP.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(found[i]) for i in range(1, 7))
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second <= 60):
        return None
    # The day's number in a calendar whose years begin in March, so that the leap day is the last.
    years = year - (month < 3)
    days = 365 * years + years // 4 - years // 100 + years // 400 + (153 * ((month + 9) % 12) + 2) // 5 + day
    return ((days * 24 + hour) * 60 + minute) * 60 * 10**9 + second * 10**9 + int((found[7] or b"").ljust(9, b"0"))
