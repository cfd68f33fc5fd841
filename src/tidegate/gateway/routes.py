"""Which addresses take a request for inference, and in which dialect."""

from collections.abc import Callable, Mapping

from tidegate.core.model import Record
from tidegate.wire import embeddings, openai
from tidegate.wire.clients import CLIENTS
from tidegate.wire.ollama.client import OLLAMA_CHAT
from tidegate.wire.openai import Call
from tidegate.wire.translate import Client


class Route(Record, frozen=True, kw_only=True):
    """How a request at one address is read, and in whose dialect it is answered; None is OpenAI's own."""

    parse: Callable[[bytes, Mapping[bytes, bytes]], Call]
    client: Client | None = None


_OPENAI = {
    "/chat/completions": Route(parse=openai.parse_chat),
    "/completions": Route(parse=openai.parse_completion),
    "/embeddings": Route(parse=lambda body, _: embeddings.parse(body)),
}
_OTHERS = {path: Route(parse=client.parse, client=client) for path, client in CLIENTS.items()}
_VERSIONED = _OPENAI | {path.removeprefix("/v1"): route for path, route in _OTHERS.items() if path.startswith("/v1/")}

ROUTES: dict[str, Route] = _OTHERS | _VERSIONED | {"/v1" + path: route for path, route in _VERSIONED.items()}
"""By path. Base addresses are given with `/v1` and without."""

OLLAMA = "/api/"
"""What the addresses of its clients begin with."""

COUNTS: dict[str, Client] = dict.fromkeys(
    ("/v1/messages/count_tokens", "/messages/count_tokens"), CLIENTS["/v1/messages"]
)
"""Where prompts are counted rather than answered, by the client who does so."""


def client_at(path: str) -> Client | None:
    """Whose dialect is spoken at an address, whether or not anything is there; None is OpenAI's own."""
    route = ROUTES.get(path)
    if route is not None:
        return route.client
    return OLLAMA_CHAT if path.startswith(OLLAMA) else COUNTS.get(path)
