"""Days under another gateway's rule, in worlds of scenarios, and the logs that it would have written of them."""

import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from tidegate.core.baseline import BASELINES
from tidegate.sim.outcome import Outcome
from tidegate.sim.rival import Rival
from tidegate.sim.scenario import Scenario, load
from tidegate.sim.stage import play

SCENARIO = "laptop-and-cloud"
ADDRESSES = {"laptop": "http://127.0.0.1:8080", "cloud": "https://api.cloud.example/v1"}

Record = dict[str, Any]
Written = Callable[[Outcome], Record]


def day(rule: str | None, seed: int = 1, scenario: str = SCENARIO) -> list[Outcome]:
    """What a scenario's requests came to under a rule; None is Tidegate."""
    world: Scenario = load(Path("scenarios") / f"{scenario}.toml", seed=seed)
    decider = None if rule is None else Rival(BASELINES[rule], world.endpoints, world.policy)
    return play(world, decider=decider).outcomes


def configuration(scenario: str = SCENARIO) -> str:
    """What the scenario says besides its world, with addresses."""
    text = (Path("scenarios") / f"{scenario}.toml").read_text()
    text = text[text.index("[site.") : text.index("[[traffic]]")] + _classes(text)
    for name, url in ADDRESSES.items():
        text = text.replace(f"[endpoint.{name}]\n", f'[endpoint.{name}]\nurl = "{url}"\n')
    return text


def _classes(text: str) -> str:
    parts = text.split("\n[")
    return "".join(f"\n[{part}" for part in parts if part.startswith("class."))


def payload(outcome: Outcome, *, stream: bool = True) -> Record:
    """LiteLLM's StandardLoggingPayload."""
    request, begin_s = outcome.request, outcome.request.arrived_s
    ok, endpoint = outcome.outcome == "ok", outcome.endpoint or "cloud"
    first_s = outcome.ttft_s if stream and outcome.ttft_s is not None else outcome.e2e_s
    details = {"cached_tokens": outcome.cached_tokens}
    return {
        "id": f"chatcmpl-{request.id}",
        "litellm_call_id": request.id,
        "trace_id": f"t-{request.id}",
        "call_type": "acompletion",
        "cache_hit": None,
        "stream": stream,
        "status": "success" if ok else "failure",
        "startTime": begin_s,
        "endTime": begin_s + outcome.e2e_s,
        "completionStartTime": begin_s + first_s,
        "response_cost": outcome.usd,
        "prompt_tokens": outcome.prompt_tokens if ok else 0,
        "completion_tokens": outcome.output_tokens,
        "model": f"openai/{request.model}",
        "model_group": request.model,
        "model_id": "b68d56d7",
        "api_base": ADDRESSES[endpoint],
        "metadata": {
            "user_api_key_alias": request.key or None,
            "usage_object": {"prompt_tokens": outcome.prompt_tokens, "prompt_tokens_details": details},
            "requester_custom_headers": {"x-tidegate-class": request.klass.partition("/")[0]},
        },
        "messages": None,
        "model_parameters": {"stream": stream},
        "hidden_params": {},
        "error_information": {"error_code": "" if ok else "500"},
    }


def spend_row(outcome: Outcome) -> Record:
    """A row of LiteLLM_SpendLogs, as its API gives it."""
    one = payload(outcome)
    taken = ("call_type", "prompt_tokens", "completion_tokens", "model", "model_group", "api_base", "status")
    return {
        "request_id": one["litellm_call_id"],
        "spend": one["response_cost"],
        "session_id": one["trace_id"],
        "startTime": one["startTime"],
        "endTime": one["endTime"],
        "completionStartTime": one["completionStartTime"],
        "cache_hit": "None",
        "metadata": json.dumps(one["metadata"]),
        "messages": "{}",
        "proxy_server_request": "{}",
        **{name: one[name] for name in taken},
    }


def pair(outcome: Outcome) -> Record:
    """A request and an answer as OpenAI has them, with when and how long."""
    request = outcome.request
    usage = {"prompt_tokens": outcome.prompt_tokens, "completion_tokens": outcome.output_tokens}
    return {
        "id": request.id,
        "time": request.arrived_s,
        "latency_ms": 1000.0 * outcome.e2e_s,
        "ttft_ms": None if outcome.ttft_s is None else 1000.0 * outcome.ttft_s,
        "status": 200 if outcome.outcome == "ok" else 500,
        "cost_usd": outcome.usd,
        "endpoint": ADDRESSES[outcome.endpoint or "cloud"],
        "request": {"model": request.model, "stream": True},
        "response": {"model": request.model, "usage": usage} if outcome.outcome == "ok" else None,
    }


def log(path: Path, outcomes: Iterable[Outcome], write: Written = payload) -> Path:
    """A file with one record on each line, in the order in which they ended."""
    ended = sorted(outcomes, key=lambda one: one.ended_s)
    path.write_text("".join(json.dumps(write(one)) + "\n" for one in ended))
    return path


unstreamed = partial(payload, stream=False)
