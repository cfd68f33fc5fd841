"""Options by which a request asks for more than an answer of its model at its price: they pass as they came, but not
where a key or a budget bounds what may be asked for."""

from collections.abc import Mapping
from typing import Final

# By these a vendor who has many models (OpenRouter), or a gateway before them (LiteLLM), is told to answer with another
# than `model`.
OTHER_MODELS: Final = (
    "models",
    "preset",
    "fallbacks",
    "context_window_fallbacks",
    "content_policy_fallbacks",
    "extra_body",  # LiteLLM takes what stands in it for fields of the request, `model` among them
)
# Extras that are billed beside the tokens, at prices that nobody lists, add to the prompt where nobody here sees it, or
# have it answered by another model, or at another's price, than is known; the values that ask for none.
EXTRAS: Final[Mapping[str, tuple[bytes, ...]]] = {
    "service_tier": (b"null", b'"auto"', b'"default"', b'"flex"', b'"standard_only"'),
    "speed": (b"null", b'"standard"'),
    "web_search_options": (b"null",),
    "search_parameters": (b"null",),
    "enable_search": (b"null", b"false"),
    "plugins": (b"null", b"[]"),
    "models": (b"null", b"[]"),
    "route": (b"null",),
    "preset": (b"null",),
    "fallbacks": (b"null", b"[]"),
    "context_window_fallbacks": (b"null", b"[]"),
    "content_policy_fallbacks": (b"null", b"[]"),
    "provider": (b"null",),
    "compound_custom": (b"null",),
    "extra_body": (b"null", b"{}"),
}
