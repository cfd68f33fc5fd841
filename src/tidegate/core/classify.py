"""The class of a request: what it is for, and how much work it is."""

# Turns of a chat, a page or a few files as context, documents and repositories.
SHORT_TOKENS_MAX = 512
MEDIUM_TOKENS_MAX = 4096


def classify(base: str, prompt_tokens: int) -> str:
    """The hierarchical class, such as `interactive/short`: what is learned of one length says little of another."""
    if prompt_tokens <= SHORT_TOKENS_MAX:
        return f"{base}/short"
    if prompt_tokens <= MEDIUM_TOKENS_MAX:
        return f"{base}/medium"
    return f"{base}/long"


def base_of(klass: str) -> str:
    """What it is for, as it is configured: `interactive` of `interactive/short`."""
    end = klass.find("/")
    return klass if end < 0 else klass[:end]
