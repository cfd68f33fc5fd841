"""The page of dialects: what becomes of every field."""

from tidegate.wire import fate
from tidegate.wire.anthropic import outward
from tidegate.wire.anthropic import shapes as anthropic
from tidegate.wire.fate import Fate
from tidegate.wire.ollama import shapes as ollama
from tidegate.wire.responses import outward as to_responses
from tidegate.wire.responses import shapes as responses

_FATES = {
    Fate.CARRIED: "It says the same on the other side.",
    Fate.NATIVE: "An engine of the same dialect gets it; others have no word for it, and do without.",
    Fate.SET_ASIDE: "No engine gets it, and the answer is still the one that was asked for.",
    Fate.REFUSED: "A 400 names it and says why: without it, the answer would be another one.",
}
_INTRODUCTION = """# Dialects

Between all dialects stands OpenAI's chat completion, the hub. A client may speak any of the dialects below, an engine
any of its own; requests go through the hub, and so do answers. Each field of a dialect that is translated has one of
four fates, and one that is not listed is refused, but for Messages. What of OpenAI's own is changed on the way stands
with the [wire](wire.md).

Where an engine finds fault (400, 422) with a request that was translated for it, that may be the form: another endpoint
is asked, within the attempts that a request has, and where none takes it, the client has the engine's words.
"""
_HUB = """## OpenAI chat completions, completions and embeddings

Unknown fields pass untouched to engines that speak the same dialect, which are all but `anthropic` and
`openai-responses`. A name that differs in its case alone from one that means something here, as `Model`, is a 400:
engines written in Go or C# take it for the same. Under a budget some are not sent to who asks for money
(`unpriced_option`), since no bound is known of what they cost: `service_tier` (but for `auto`, `default`, `flex` and
`standard_only`), `speed` (but for `standard`) and `web_search_options`, OpenRouter's `models`, `preset`, `route`,
`provider` and `plugins`, LiteLLM's `fallbacks` and `extra_body`, xAI's `search_parameters`, DashScope's
`enable_search`, Groq's `compound_custom`, `tools` that a vendor runs itself (of a `type` other than `function` and
`custom`, or without a name), `modalities` other than `text` (and `audio`, where an endpoint has that among its
capabilities), and a `cache_control` with a `ttl` beyond five minutes.

| address | |
| --- | --- |
| `POST /v1/chat/completions`, `/v1/completions` | see [wire](wire.md) |
| `POST /v1/embeddings` | never streamed; needs an endpoint with the capability `embedding` |
"""
_OPENAI = """## OpenAI by its Responses API

OpenAI's newer models take `tools` and think at once at `/v1/responses` alone. As a chat (`engine = "openai"`) they
refuse the two together, and another endpoint is asked. `engine = "openai-responses"` is for these models, whoever asks:
chats, and requests of other dialects, are translated, and what is in this dialect, as Codex's are, goes on as it came.

```toml
[endpoint.gpt]
site = "cloud"
engine = "openai-responses"
url = "https://api.openai.com/v1"
model = "gpt-5.6"
context_tokens = 400000
output_tokens_max = 128000
api_key_env = "OPENAI_API_KEY"
price = { provider = "openai" }
```

It serves chats alone; completions, embeddings, and what its table above refuses are for another endpoint, which may
have the same model. Nothing is stored there: `store` is always false. So a model's earlier thoughts are known to it
only where a client sends them back, sealed (`encrypted_content`; in a chat `reasoning_details`, as OpenRouter has
them). Who seals a thought reads it alone: another account or vendor refuses it, and is then passed over.

Codex takes `wire_api = "responses"` and the gateway's address as a `model_providers` entry. Of its tools those are
served that are functions: `web_search = "disabled"`, and `apps`, `plugins` and `multi_agent` false under `[features]`,
take the others away. For models that it knows by their names it has a custom tool, `apply_patch`: give the model
another name here.
"""
_ANSWERS = """## Answers

| hub | Messages | Responses | Ollama |
| --- | --- | --- | --- |
| `finish_reason` stop | end_turn, or stop_sequence where the engine tells it | completed | stop |
| length | max_tokens | incomplete: max_output_tokens | length |
| tool_calls, function_call | tool_use | completed | stop |
| content_filter | refusal | incomplete: content_filter | stop |
| error, abort, insufficient_system_resource, or an `error` beside it | a broken answer | likewise | likewise |
| `reasoning_content`, `reasoning` | thinking, its signature where the engine gave one | a reasoning item | thinking |
| thinking among the parts of `content` | thinking | a reasoning item | thinking |
| `refusal` | text | a refusal part | text |
| usage, where the engine tells none | 0 | 0 | 0 |
| cached tokens | cache_read_input_tokens, no part of input_tokens | input_tokens_details | not told |
| `logprobs`, `annotations`, `audio`, `extra_content` | not carried | not carried | not carried |
| choices beyond the first | not carried, and cannot be asked for | likewise | likewise |
| a comment between events | ping | the same | nothing |
| an error in mid-stream | an `error` event | `response.failed` | a line with `error` |

Who stops so, or has an `error` in a choice, has not finished its answer: another endpoint gives it while nothing has
passed, and else its rest is asked for, or it ends with an error.

Prompt tokens are known when the answer is complete: Messages has them in `message_delta`, and zeros in
`message_start`. A whole answer whose tool arguments are no JSON object has no form in Messages and Ollama, and fails
as a broken answer does; Responses keeps them as text. `POST /v1/messages/count_tokens` gives an estimate from bytes,
marked `"estimated": true`. Ollama's durations are the engine's own where it tells them, else the gateway's clock;
sizes and digests of models are empty. `GET /api/tags` lists a name without a tag as `NAME:latest`, by which these
clients look for it; under `/api/` a name with `:latest` that is not known stands for the one without.

The header `anthropic-beta` of a Messages client goes on to an `anthropic` endpoint, as the request does (under a
budget, one with `context-1m` to a window of a million tokens alone, since no other has a price for what is beyond it);
no other header is passed on, but the client's trace where [traces](tracing.md) are told.
The field `thread` is refused with `error.details.error_code`
`thread_unsupported_request`, at which the tool runner of the vendor's SDK sends the whole conversation without it; its
`thread()` does where `unsupported_request_behavior` is `"continue_unthreaded"`, and else raises an error.

Gemini signs the calls of tools that it makes (`extra_content`), from its third generation on, and wants that back. Only
OpenAI's dialect has a place for it. At Google's addresses a call without a signature, of such a client or of another
model, gets the one that Google names for it, with which it may answer less well.

Google tells what was thought only by a total that is more than its parts. Where thinking is not told apart, what the
total has beyond them is counted as output and as reasoning, whoever tells it, and so it is told to clients of the other
dialects.

An engine's Messages answer reaches the hub with `pause_turn` as stop and `model_context_window_exceeded` as length;
citations and who called a tool are left out, and a block of a tool that the vendor runs is a broken answer. A client of
Messages has all else as the vendor says it, also what the hub has no word for: `stop_reason` and `stop_details`,
`context_management`, and the usage with what was written to which cache. Clients of Messages and Responses get its
thoughts, texts and calls in the order in which they came, whole or streamed; a whole answer of the hub has a place for
each kind, and none for their order.

An engine's Responses answer reaches the hub with `completed` as stop, or tool_calls where it has called something,
`incomplete` as content_filter or length, and the parts of a thought as one text, with blank lines between them.
Citations and log-probabilities are left out. A client of Responses has its items as they were, with their ids, phases,
summaries and seals. Items of other kinds are passed over; an answer of nothing else is a broken one.

Where a prompt does not fit, a client of Messages is told so in the vendor's words, by which Claude Code makes its
conversation shorter (`prompt is too long: A tokens > B maximum`) or asks for less (`input length and max_tokens exceed
context limit: A + B > C`). It is called too long also where less than 4,000 tokens are left for an answer: with that
Claude Code does not go on.
"""


def dialects() -> str:
    """The page."""
    fates = "\n".join(f"| {fate.value} | {words} |" for fate, words in _FATES.items())
    sections = [
        ("Messages, from clients: `POST /v1/messages`, `/v1/messages/count_tokens`", anthropic.FIELDS),
        ("Messages, to engines: what of a chat completion an `anthropic` endpoint gets", outward.OUTWARD),
        ("Responses, from clients: `POST /v1/responses`", responses.FIELDS),
        ("Responses, to engines: what of a chat completion an `openai-responses` endpoint gets", to_responses.OUTWARD),
        ("Ollama, from clients: `POST /api/chat`", ollama.CHAT),
        ("Ollama, from clients: `POST /api/generate`", ollama.GENERATE),
        ("Ollama's options", ollama.OPTIONS),
    ]
    tables = [f"## {title}\n\n{fate.table(fields)}\n" for title, fields in sections]
    return "\n".join([_INTRODUCTION, f"| fate | |\n| --- | --- |\n{fates}\n", _HUB, *tables, _OPENAI, _ANSWERS])
