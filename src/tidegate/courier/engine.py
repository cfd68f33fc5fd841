"""The llama.cpp beside the courier: what it is, and its two verbs for slots."""

from typing import TypeVar

import msgspec

from tidegate.config.courier import CourierEngineTable
from tidegate.config.secret import Secret
from tidegate.courier.refusal import RefusalError
from tidegate.courier.weights import Weights
from tidegate.http.client import Pool, TransportError, fetch
from tidegate.wire.courier import KvFingerprint, Why
from tidegate.wire.errors import UNREADABLE

LOOK_S_MAX = 5.0  # it tells what it is within milliseconds, also in the middle of a batch
ANSWER_BYTES_MAX = 1 << 20  # chat templates have 100 KB
_JSON = [(b"content-type", b"application/json")]


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine is now."""

    kv: KvFingerprint
    slot_tokens_max: int


class Saved(msgspec.Struct, frozen=True):
    """What it says of a slot that it saved."""

    n_saved: int
    n_written: int


class _Restored(msgspec.Struct, frozen=True):
    n_restored: int
    n_read: int


class _Generation(msgspec.Struct, frozen=True):
    n_ctx: int


class _Props(msgspec.Struct, frozen=True):
    model_path: str
    build_info: str
    total_slots: int
    default_generation_settings: _Generation


def same(look: Look, fingerprint: str) -> None:
    """Raise `RefusalError` where the engine is not one for blobs of that fingerprint."""
    if look.kv.digest != fingerprint:
        raise RefusalError(Why.FINGERPRINT, "the engine has another model, shape or build than the blob")


_T = TypeVar("_T", Saved, _Restored, _Props)


class Engine:
    """Asked over HTTP on this machine. Everything raises `RefusalError`, whatever goes wrong."""

    def __init__(self, pool: Pool, base_path: str, declared: CourierEngineTable, key: Secret | None) -> None:
        self._pool = pool
        self._base = base_path.encode()
        self._key = [] if key is None else [(b"authorization", b"Bearer " + key.reveal().encode())]
        self._declared = declared
        self._weights = Weights(declared.weights_sha256)

    async def look(self) -> Look:
        """What it is now: asked anew each time, since an engine that was started anew may be another one."""
        props = await self._ask(b"GET", b"/props", b"", LOOK_S_MAX, _Props)
        declared = self._declared
        kv = KvFingerprint(
            weights=f"sha256:{await self._weights.of(props.model_path)}",
            kv_type_k=declared.kv_type_k,
            kv_type_v=declared.kv_type_v,
            flash_attention=declared.flash_attention,
            slots=props.total_slots,
            unified=declared.unified,
            arguments=declared.arguments,
            build=props.build_info,
        )
        return Look(kv=kv, slot_tokens_max=props.default_generation_settings.n_ctx)

    async def save(self, slot: int, name: str, timeout_s: float) -> Saved:
        """Have it write a slot into the folder; it waits until the slot is idle."""
        return await self._slot(b"save", slot, name, timeout_s, Saved)

    async def restore(self, slot: int, name: str, timeout_s: float) -> tuple[int, int]:
        """Have it read a slot from the folder, as above; the tokens and bytes that it read."""
        told = await self._slot(b"restore", slot, name, timeout_s, _Restored)
        return told.n_restored, told.n_read

    async def _slot(self, verb: bytes, slot: int, name: str, timeout_s: float, kind: type[_T]) -> _T:
        target = b"/slots/%d?action=%b" % (slot, verb)
        return await self._ask(b"POST", target, msgspec.json.encode({"filename": name}), timeout_s, kind)

    async def _ask(self, method: bytes, target: bytes, body: bytes, timeout_s: float, kind: type[_T]) -> _T:
        headers = [*self._key, *_JSON] if body else self._key
        try:
            status, _, said = await fetch(
                self._pool, method, self._base + target, headers, body, timeout_s, ANSWER_BYTES_MAX
            )
        except TransportError as error:
            raise RefusalError(Why.ENGINE, f"the engine does not answer: {error.cause}") from error
        if status in (401, 403):
            reason = f"the engine refuses us for want of its key: status {status}; see engine.api_key_env"
            raise RefusalError(Why.ENGINE, reason)
        if status != 200:
            raise RefusalError(Why.ENGINE, f"the engine refuses: status {status}")
        try:
            return msgspec.json.decode(said, type=kind)
        except UNREADABLE as error:
            raise RefusalError(Why.ENGINE, "the engine's answer cannot be read: is it a llama.cpp?") from error
