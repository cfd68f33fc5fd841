"""One trial of two policies by turns: what both are measured by, what is counted in blocks, and its file."""

import os
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from pathlib import Path

import msgspec

from tidegate.config.build import request_class
from tidegate.config.config import Config
from tidegate.config.diff import taken_over
from tidegate.core.classify import base_of
from tidegate.core.model import Request, Slo, replace
from tidegate.core.promise import kept
from tidegate.core.switchback import COLLAPSE_REQUESTS, Arm, Pair, Standing, Tally, Verdict, collapsed, standing
from tidegate.state import database
from tidegate.telemetry.packing import sync_folder

VERSION = 1


class Kept(msgspec.Struct, kw_only=True):
    """What a file has of a trial: of these settings (by their digest), with pairs in the order that `seed` draws.

    `problem` is why it was stopped before it came to a verdict; empty where it was not.
    """

    version: int
    settings: str
    seed: int
    pairs: list[Pair] = []
    verdict: Verdict = Verdict.GOES_ON
    problem: str = ""


class FileError(Exception):
    """The file of a trial cannot be used; the message says why, and what to do."""


class Block:
    """Requests that come in this time count for this arm."""

    __slots__ = ("arm", "begins_s", "ends_s", "tainted", "tally")

    def __init__(self, arm: Arm, begins_s: float, ends_s: float) -> None:
        self.arm, self.begins_s, self.ends_s = arm, begins_s, ends_s
        self.tally = Tally()
        # Operators had a hand in it.
        self.tainted = False


class Trial:
    """One trial of one candidate: what is known of it, and what is counted just now."""

    def __init__(self, config: Config, candidate: Config) -> None:
        self.config, self.candidate, self.table = config, candidate, config.switchback
        self.settings = settings_of(config)
        self.file = config.file.parent / self.table.file
        self.kept = Kept(version=VERSION, settings=self.settings, seed=int.from_bytes(os.urandom(6), "big"))
        self.arm, self.problem = Arm.AS_IS, ""
        self.blocks: list[Block] = []
        # The pair before this one, whose last requests may be under way.
        self.settling: tuple[Block, Block] | None = None
        # Whether the last block of the candidate's was cut short.
        self.cut = False
        # Of a class with a target, what is usual, and not the most that may be paid.
        self.worth = {n: (table.worth_usd, table.worth_usd_per_1k_tokens) for n, table in config.classes.items()}
        self.slos: dict[Arm, Mapping[str, Slo]] = {
            arm: {name: request_class(name, table).slo for name, table in one.classes.items()}
            for arm, one in ((Arm.AS_IS, config), (Arm.CANDIDATE, candidate))
        }

    @property
    def goes_on(self) -> bool:
        """Whether nothing has ended it."""
        return self.kept.verdict is Verdict.GOES_ON and not self.problem

    def is_of(self, config: Config) -> bool:
        """Whether it is that of these settings of the file."""
        return self.settings == settings_of(config)

    @property
    def standing(self) -> Standing:
        """What it has come to."""
        found = standing(self.kept.pairs, self.table.pairs_max)
        return found if self.kept.verdict is Verdict.GOES_ON else replace(found, verdict=self.kept.verdict)

    def settings_for(self, arm: Arm) -> Config:
        """What is in force in its blocks."""
        return self.candidate if arm is Arm.CANDIDATE else self.config

    def measured(self, request: Request, arm: Arm) -> Request:
        """The request as it is promised by the settings as they are: both arms are measured by that."""
        name = base_of(request.klass)
        own, other, asked = self.slos[Arm.AS_IS].get(name), self.slos[arm].get(name), request.slo
        if own is None or other is None:
            return request
        # What a client has asked for itself stays.
        slo = Slo(
            ttft_s=own.ttft_s if asked.ttft_s == other.ttft_s else asked.ttft_s,
            tpot_s=own.tpot_s if asked.tpot_s == other.tpot_s else asked.tpot_s,
            e2e_s=own.e2e_s if asked.e2e_s == other.e2e_s else asked.e2e_s,
        )
        return replace(request, slo=slo)

    def worth_usd(self, request: Request, output_tokens: int) -> float:
        """What its promise is worth by the settings as they are."""
        own = self.worth.get(base_of(request.klass))
        if own is None:
            return request.worth_usd
        return own[0] + own[1] * (request.prompt_tokens + output_tokens) / 1000.0

    def falls_apart(self, block: Block, unseen: Iterable[Request], now_s: float) -> bool:
        """Whether the candidate keeps next to nothing, beside the block of the other that was last. Of requests under
        way that are `unseen`, those count that are missed already."""
        if block.arm is not Arm.CANDIDATE or block.tainted:
            return False
        tally = replace(block.tally)
        for request in unseen:
            if block.begins_s <= request.arrived_s < block.ends_s:
                asked, e2e_s = self.measured(request, block.arm), now_s - request.arrived_s
                tally.requests += kept(asked, ttft_s=None, e2e_s=e2e_s, output_tokens=None, whole=False) is False
        as_is = [one.tally for one in self.blocks if one.arm is Arm.AS_IS and not one.tainted]
        enough = [one for one in as_is if one.requests >= COLLAPSE_REQUESTS]
        return bool(enough) and collapsed(tally, enough[-1])


class Lock:
    """Holds one file at most: two gateways with one would write over each other's pairs."""

    def __init__(self) -> None:
        self._held: tuple[Path, database.Lock] | None = None

    def take(self, file: Path) -> None:
        """Hold this one. Raises `FileError` where that cannot be."""
        if self._held is not None and self._held[0] == file:
            return
        self.release()
        self._held = (file, database.Lock(file, "trial file", FileError))

    def release(self) -> None:
        """Hold none."""
        if self._held is not None:
            self._held[1].close()
            self._held = None


def settings_of(config: Config) -> str:
    """A digest of what is tried, and with what: pairs of other settings say nothing."""
    candidate = config.candidate
    told = [taken_over(config), None if candidate is None else taken_over(candidate)]
    return blake2b(msgspec.json.encode(told), digest_size=8).hexdigest()


def read(file: Path) -> Kept | None:
    """What is written of a trial, None where there is no file. Raises `FileError` where that is none of ours."""
    try:
        found = msgspec.json.decode(file.read_bytes(), type=Kept)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FileError(f"{file} cannot be read: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise FileError(f"{file} is no trial's ({error}); move it away, or name another file") from None
    if found.version != VERSION:
        raise FileError(f"{file} is of version {found.version}, this is {VERSION}; move it away, or name another file")
    return found


def write(file: Path, content: bytes) -> None:
    """Write it down, so that a power cut leaves it or the one before, which whoever reads meanwhile reads. Raises
    OSError."""
    # Beside the file itself, whatever links lead there: it is the same file for whoever names it otherwise.
    target = Path(os.path.realpath(file))
    beside = Path(f"{target}.new")
    with beside.open("wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    beside.replace(target)
    sync_folder(beside.parent)
