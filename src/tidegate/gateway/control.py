"""What operators change while the gateway runs: its configuration, and what they set by hand."""

import asyncio
from urllib.parse import parse_qsl, unquote

import msgspec

from tidegate.config.diff import tables
from tidegate.config.document import json_schema
from tidegate.core.model import Overrides, replace
from tidegate.gateway.changes import Changes
from tidegate.gateway.dispatch import Dispatch
from tidegate.gateway.keep import Keeper
from tidegate.gateway.reload import Reloader
from tidegate.gateway.reply import JSON
from tidegate.http.server import Exchange
from tidegate.wire.changes import Setting
from tidegate.wire.errors import BadRequest

ROUTES = "/api/config, /api/config/schema, /api/overrides, /api/static, /api/endpoints/NAME/drain and .../NAME/pin"
_PATHS = ("/api/config", "/api/overrides", "/api/static", "/api/endpoints/")
_HANDS = {"drain": "drained", "pin": "pinned"}


class Control:
    """Answers what stands at `ROUTES`, to whoever has shown the admin's secret, if there is one."""

    def __init__(self, dispatch: Dispatch, reloader: Reloader, keeper: Keeper, changes: Changes) -> None:
        self._dispatch = dispatch
        self._reloader = reloader
        self._keeper = keeper
        self._changes = changes
        self._schema = msgspec.json.encode(json_schema())
        self._reloading: set[asyncio.Task[None]] = set()

    def answers(self, exchange: Exchange, who: str) -> bool:
        """Answer `who` asks, now or later, if it is ours to answer. Raises BadRequest."""
        if not exchange.path.startswith(_PATHS):
            return False
        path, reads = exchange.path, exchange.method in ("GET", "HEAD")
        if path == "/api/config/schema" and reads:
            exchange.respond(200, ((b"content-type", b"application/schema+json"),), self._schema)
        elif path == "/api/config" and reads:
            exchange.respond(200, (JSON,), msgspec.json.encode(self._config()))
        elif path == "/api/config" and exchange.method == "POST":
            self._reload(exchange, who)
        elif path == "/api/overrides" and reads:
            self._show(exchange)
        elif path == "/api/static":
            self._set(exchange, replace(self._overrides, static=_on(exchange)), who)
        elif path.startswith("/api/endpoints/"):
            self._set(exchange, self._by_hand(exchange, path.removeprefix("/api/endpoints/")), who)
        else:
            return False
        return True

    async def close(self) -> None:
        """Give up reloads that are under way: nothing is put in force any more."""
        for task in self._reloading:
            task.cancel()
        await asyncio.gather(*self._reloading, return_exceptions=True)

    @property
    def _overrides(self) -> Overrides:
        return self._dispatch.router.overrides

    def _config(self) -> dict[str, object]:
        reloader = self._reloader
        return {
            "file": str(reloader.config.file),
            "in_force_since_s": reloader.since_s,
            "last_reload": reloader.last,
            "settings": tables(reloader.config),
        }

    def _reload(self, exchange: Exchange, who: str) -> None:
        dry_run = _dry_run(exchange.query)
        if self._reloader.busy:
            raise BadRequest("A reload is under way; ask again when it is done.", status=409, code="reload_under_way")
        task = asyncio.get_running_loop().create_task(self._reloaded(exchange, who, dry_run=dry_run))
        self._reloading.add(task)
        task.add_done_callback(self._reloading.discard)

    async def _reloaded(self, exchange: Exchange, who: str, *, dry_run: bool) -> None:
        outcome = await self._reloader.reload(who, dry_run=dry_run)
        exchange.respond(422 if outcome.problems else 200, (JSON,), msgspec.json.encode(outcome))

    def _by_hand(self, exchange: Exchange, rest: str) -> Overrides:
        name, _, what = unquote(rest).rpartition("/")
        field = _HANDS.get(what)
        if field is None:
            raise BadRequest(f"There is nothing at {exchange.path[:200]}; there are {ROUTES}.", status=404)
        on, overrides = _on(exchange), self._overrides
        names = set(getattr(overrides, field))
        # What is no longer configured can be taken back, and not set.
        if name not in self._dispatch.upstreams and (on or name not in names):
            known = ", ".join(sorted(self._dispatch.upstreams))
            raise BadRequest(f"There is no endpoint `{name[:64]}`; there are {known}.", status=404)
        names = names | {name} if on else names - {name}
        return replace(overrides, **{field: tuple(sorted(names))})

    def _set(self, exchange: Exchange, overrides: Overrides, who: str) -> None:
        if overrides != self._overrides:
            before = told(self._overrides)
            settings = [
                Setting(path=f"overrides.{name}", before=before[name], after=after)
                for name, after in told(overrides).items()
                if after != before[name]
            ]
            self._changes.add(who, "set by hand", settings, applied=True)
            self._dispatch.override(overrides)
            self._dispatch.log.event("warning", "overrides set by hand", **told(overrides))
            self._keeper.save_soon()
        self._show(exchange)

    def _show(self, exchange: Exchange) -> None:
        shown = {name: getattr(self._overrides, name) for name in Overrides.__struct_fields__}
        exchange.respond(200, (JSON,), msgspec.json.encode(shown))


def told(overrides: Overrides) -> dict[str, str | bool]:
    """What the log says of them."""
    return {
        "drained": ", ".join(overrides.drained),
        "pinned": ", ".join(overrides.pinned),
        "static": overrides.static,
    }


def _dry_run(query: str) -> bool:
    """Raise for a query that means neither: a reload that was to be a trial would not be one."""
    match parse_qsl(query, keep_blank_values=True):
        case [] | [("dry_run", "false" | "0")]:
            return False
        case [("dry_run", "true" | "1")]:
            return True
    raise BadRequest("POST /api/config takes ?dry_run=true, or no query; nothing was changed.")


def _on(exchange: Exchange) -> bool:
    if exchange.method not in ("PUT", "DELETE"):
        raise BadRequest(
            f"{exchange.path[:200]} takes PUT, which sets it, and DELETE, which takes it back; GET /api/overrides "
            "shows what is set.",
            status=405,
            headers=((b"allow", b"PUT, DELETE"),),
        )
    return exchange.method == "PUT"
