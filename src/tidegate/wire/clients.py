"""Every client dialect other than the hub's own, by the address at which it is spoken."""

from tidegate.wire.anthropic.client import Messages
from tidegate.wire.ollama.client import OLLAMA_CHAT, OLLAMA_GENERATE
from tidegate.wire.responses.client import Responses
from tidegate.wire.translate import Client

CLIENTS: dict[str, Client] = {
    "/v1/messages": Messages(),
    "/v1/responses": Responses(),
    "/api/chat": OLLAMA_CHAT,
    "/api/generate": OLLAMA_GENERATE,
}
