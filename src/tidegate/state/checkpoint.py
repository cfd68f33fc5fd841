"""What was learned, kept in a file, and taken back from it only where it fits: never guessed.

The file holds the newest few snapshots, so that one that is damaged costs the interval before it and not everything.
"""

from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path

import msgspec

from tidegate.config.build import Upstream
from tidegate.core.model import Endpoint, Overrides, Policy, Record
from tidegate.core.revive import aged, fault, revived
from tidegate.core.state import State
from tidegate.state.database import Database, Kind
from tidegate.wire.tokens import TokenRatio

KEPT = 3  # the newest, one for when that is damaged, and one for when whatever did it took two
# A state takes 5 KB for each endpoint: this is room for 3,000 of them.
BODY_BYTES_MAX = 16 * 1024 * 1024
_DIGEST_BYTES = 16


class CheckpointError(Exception):
    """The file cannot be opened, read or written; the message says where, why and what to do."""


CHECKPOINTS = Kind(
    noun="learned state",
    afresh="start from what the configuration says",
    application_id=0x54474C53,  # "TGLS": no other program's database passes for one
    # Another meaning of any number in `State` is another format, even where the old ones can still be decoded.
    format=1,
    schema="CREATE TABLE snapshot (number INTEGER PRIMARY KEY AUTOINCREMENT, checksum BLOB, body BLOB)",
    error=CheckpointError,
)


class Checkpoint(Record, frozen=True, kw_only=True, omit_defaults=False):
    """All that was learned at one moment, and what it depends on.

    `policy` has the settings in force, `endpoints` the `fingerprint` of each by name, `ratios` the sums of bytes and
    of tokens by model. `state` is what `Router.snapshot` makes.
    """

    at_s: float
    software: str
    policy: dict[str, int | float]
    endpoints: dict[str, str]
    ratios: dict[str, tuple[float, float]]
    state: msgspec.Raw


class _ByHand(msgspec.Struct):
    """As much of a state as operators have set. It is read alone: no other type in it can keep it back."""

    overrides: Overrides = Overrides()


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway begins with: `state` is None where nothing was there. Where `refused` says why nothing that was
    learned is taken back, it has what operators had set by hand, and no more.

    It was saved at `at_s`, `age_s` ago, or by a clock that was ahead of ours by `ahead_s`. `dropped` are endpoints
    that are gone or not what they were, `skipped` says what is wrong with newer snapshots.
    """

    state: State | None = None
    ratios: dict[str, TokenRatio] = {}
    at_s: float | None = None
    age_s: float = 0.0
    ahead_s: float = 0.0
    dropped: tuple[str, ...] = ()
    skipped: str = ""
    refused: str = ""


class Checkpoints:
    """The file, made if it is not there.

    CheckpointError where it is in use, damaged, of another format, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"{path.parent}: {error.strerror}; name a folder that can be made") from None
        self._file = Database(path, CHECKPOINTS)

    def write(self, body: bytes) -> None:
        """Put an encoded checkpoint beside the newest ones, and remove the oldest: both, or neither."""
        if len(body) > BODY_BYTES_MAX:
            raise CheckpointError(
                f"{self.path}: a snapshot of {len(body)} bytes exceeds {BODY_BYTES_MAX}; configure fewer endpoints"
            )
        with self._file.transaction() as db:
            db.execute("INSERT INTO snapshot (checksum, body) VALUES (?, ?)", (_checksum(body), body))
            db.execute("DELETE FROM snapshot WHERE number <= (SELECT max(number) FROM snapshot) - ?", (KEPT,))

    def read(self) -> list[tuple[object, object]]:
        """The checksum and body of each snapshot, the newest first, as they stand there."""
        newest_first = "SELECT checksum, substr(body, 1, ?) FROM snapshot ORDER BY number DESC LIMIT ?"
        with self._file.explained():
            return self._file.connection.execute(newest_first, (BODY_BYTES_MAX, KEPT)).fetchall()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def fingerprint(endpoint: Endpoint, upstream: Upstream) -> str:
    """What the numbers that are learned of an endpoint depend on: with another one they are another endpoint's.

    What it costs, which class may go there and what else it is able to do change none of them.
    """
    depends = (
        endpoint.name,
        upstream.engine.value,
        str(upstream.url),
        upstream.model or endpoint.models,
        endpoint.context_tokens,
        endpoint.concurrency,
        endpoint.owned,
        endpoint.shares_compute,
        endpoint.prior,
        endpoint.machine,
    )
    return blake2b(msgspec.json.encode(depends), digest_size=_DIGEST_BYTES).hexdigest()


def settings(policy: Policy) -> dict[str, int | float]:
    """The policy as a checkpoint keeps it: in the clear, so that a difference can be named.

    Who explores, hedges, resumes or has no patience learns the same, of more endpoints.
    """
    other = ("explore_share", "hedge_share", "stall_s", "resume")
    return {name: getattr(policy, name) for name in policy.__struct_fields__ if name not in other}


def restore(
    found: Checkpoints, policy: Policy, fingerprints: Mapping[str, str], serves: frozenset[str], now_s: float
) -> Restored:
    """What of the newest snapshot that is whole and of this policy holds for endpoints that are still the same.

    `serves` are the models that there still are. Raises CheckpointError.
    """
    skipped: list[str] = []
    by_hand: Overrides | None = None
    for checksum, body in found.read():
        try:
            made = _whole(checksum, body)
            if by_hand is None:  # of the newest, also where what was learned does not hold
                by_hand = msgspec.json.decode(made.state, type=_ByHand).overrides
            state = msgspec.json.decode(made.state, type=State)
            _check(made, state, settings(policy))
        except ValueError as error:  # msgspec's errors are ValueErrors too
            skipped.append(str(error))
            continue
        state.overrides = by_hand
        same = {name for name, known in fingerprints.items() if made.endpoints.get(name) == known}
        age_s = max(0.0, now_s - made.at_s)
        return Restored(
            state=aged(revived(state, same, now_s), age_s),
            ratios={m: TokenRatio(*sums).aged(age_s) for m, sums in made.ratios.items() if m in serves},
            at_s=made.at_s,
            age_s=age_s,
            ahead_s=max(0.0, made.at_s - now_s),
            dropped=tuple(sorted(name for name in made.endpoints if name not in same)),
            skipped=_once(skipped),
        )
    return Restored(
        state=None if by_hand is None or by_hand == Overrides() else State(overrides=by_hand),
        refused=f"{found.path}: {_once(skipped)}" if skipped else "",
    )


def _whole(checksum: object, body: object) -> Checkpoint:
    """A snapshot as it was written. ValueError says why it is not, and what to do."""
    if not isinstance(body, bytes) or checksum != _checksum(body):
        raise ValueError("a snapshot is damaged: its checksum does not hold; see to the disk")
    return msgspec.json.decode(body, type=Checkpoint)


def _check(made: Checkpoint, state: State, now: dict[str, int | float]) -> None:
    """ValueError where what was learned is of another policy or of other software, with what to do."""
    was = made.policy
    if changed := sorted(name for name in was.keys() | now.keys() if was.get(name) != now.get(name)):
        told = ", ".join(f"policy.{name} was {was.get(name)} and is {now.get(name)}" for name in changed)
        raise ValueError(
            f"a snapshot was learned under another policy: {told}; put it back and restart, before "
            f"{KEPT} newer ones have taken its place, or go on and learn anew"
        )
    wrong = fault(state)
    if not all(size > 0.0 and tokens > 0.0 for size, tokens in made.ratios.values()):
        wrong = "`ratios` has one that is not positive"
    if wrong:
        raise ValueError(
            f"a snapshot does not fit this software: {wrong}; start the one that wrote it: {made.software}"
        )


def _once(reasons: list[str]) -> str:
    return "; ".join(dict.fromkeys(reasons))


def _checksum(body: bytes) -> bytes:
    return blake2b(body, digest_size=_DIGEST_BYTES).digest()
