"""What a relay is to the bench, how one is run, and ours: the gateway, compiled and interpreted, and the bare relay."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from hashlib import sha256
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import msgspec

import tidegate
from bench.gateway import HOST, free_ports
from bench.loads import LOADS, MODEL
from tidegate.clock import Clock, sleep_s, tick_s
from tidegate.core.profile import Profile
from tidegate.state.keys import KeyFile, new_id, new_secret

START_S = 90.0  # LiteLLM takes twenty where nothing else runs
RETRY_S = 0.2
ASK = b'{"model":"bench-model","messages":[{"role":"user","content":"ready?"}],"max_tokens":1}'
TIDEGATE = "tidegate"
PACKAGE = Path(tidegate.__file__).parent
SOURCES = Path("src").resolve() / "tidegate"
INTERPRETED = {"PYTHONPATH": str(SOURCES.parent)}
CONCURRENCY = 6000  # of an endpoint: every stream of every load at once, so that nothing waits

_GATEWAY = """\
[gateway]
listen = "{host}:{port}"
admin = "{host}:{admin}"
keys = "keys.db"
journal = "journal"
log = "log"
[site.rack]
local = true
[site.cloud]
local = false
"""
_ENDPOINT = """\
[endpoint.e{number}]
site = "{site}"
engine = "openai"
url = "{url}"
serves = ["{model}"]
context_tokens = 10000000
concurrency = {concurrency}
capabilities = ["chat", "vision"]
{more}
"""
_PRICE = "price = { usd_per_1m_input_tokens = 1.0, usd_per_1m_output_tokens = 2.0 }"


class Absent(Exception):
    """A relay cannot be measured on this machine; the text says why."""


class Place(msgspec.Struct, frozen=True):
    """Where a relay runs: its folder, its ports, and those of the engines, behind TLS where `ca` says whom to trust."""

    folder: Path
    port: int
    admin: int
    engines: tuple[int, ...]
    ca: Path | None = None

    def urls(self) -> list[str]:
        """Of the engines. A certificate has a name, and plain HTTP needs nobody to look one up."""
        return [f"https://localhost:{one}" if self.ca else f"http://{HOST}:{one}" for one in self.engines]

    def write(self, name: str, text: str) -> Path:
        """A file in the folder."""
        path = self.folder / name
        path.write_text(text)
        return path


class Start(msgspec.Struct, frozen=True):
    """How a relay is started, and what its clients have to say."""

    command: Sequence[str | Path]
    environment: Mapping[str, str] = {}
    headers: tuple[str, ...] = ()


class Relay(msgspec.Struct, frozen=True):
    """One kind of relay: which loads it can do, and whether with TLS to the engines.

    `ready` installs it if it has to, and gives its version, or raises `Absent`.
    """

    name: str
    ready: Callable[[], str]
    start: Callable[[Place], Start]
    loads: frozenset[str] = frozenset(LOADS)
    tls: bool = False
    has_metrics: bool = False  # the gateway's own, at its admin address


class Running(msgspec.Struct, frozen=True):
    """A relay that answers."""

    port: int
    admin: int
    pid: int
    headers: tuple[str, ...]


@contextmanager
def running(relay: Relay, engines: tuple[int, ...], ca: Path | None, prefix: Sequence[str]) -> Iterator[Running]:
    """A relay in front of the engines, from when it answers. `Absent` where it does not."""
    port, admin = free_ports(2)
    with tempfile.TemporaryDirectory() as name:
        place = Place(Path(name), port, admin, engines, ca)
        start = relay.start(place)
        output = place.folder / "output"
        with output.open("wb") as to:
            child = subprocess.Popen(
                [*prefix, *start.command],
                env={**os.environ, **start.environment},
                stdin=subprocess.DEVNULL,
                stdout=to,
                stderr=to,
                start_new_session=True,
            )
        try:
            one = Running(port, admin, child.pid, start.headers)
            if not _answers(one, child):
                raise Absent(f"does not answer: {_last_line(output)}")
            yield one
        finally:
            _end(child)


def ours() -> list[Relay]:
    """The gateway as this process has it, which is to be compiled; the same interpreted; and the bare relay."""
    return [
        msgspec.structs.replace(gateway_of(TIDEGATE, {}), tls=True),
        gateway_of("tidegate interpreted", INTERPRETED, SOURCES),
        Relay("passthrough", partial(_version, PACKAGE), _passthrough),
    ]


def gateway_of(name: str, environment: Mapping[str, str], package: Path = PACKAGE) -> Relay:
    """The gateway, in a process with this environment as well, which says where the package is if that is another."""
    return Relay(name, partial(_version, package), lambda place: _gateway(place, environment), has_metrics=True)


def _version(package: Path) -> str:
    """Whether it has been made of the sources that are here; or what tells these from others."""
    sources = _digest(package)
    return "this commit" if sources == _digest(SOURCES) else f"sources {sources[:12]}"


def _digest(package: Path) -> str:
    """Of its modules by name."""
    found = sha256()
    for file in sorted(package.rglob("*.py")):
        found.update(b"%b %b" % (str(file.relative_to(package)).encode(), file.read_bytes()))
    return found.hexdigest()


def _gateway(place: Place, environment: Mapping[str, str]) -> Start:
    secret = _key(place.folder / "keys.db")
    text = _GATEWAY.format(host=HOST, port=place.port, admin=place.admin)
    for number, url in enumerate(place.urls()):
        remote = number >= (len(place.engines) + 1) // 2
        more = [_PRICE] if remote else []
        more += [f'tls_ca_file = "{place.ca}"'] if place.ca else []
        text += _ENDPOINT.format(
            number=number,
            site="cloud" if remote else "rack",
            url=url,
            model=MODEL,
            concurrency=CONCURRENCY,
            more="\n".join(more),
        )
    config = place.write("tidegate.toml", text)
    command: list[str | Path] = [sys.executable, "-m", "tidegate.cli.main", "serve", "--config", config]
    return Start(command, environment, (f"authorization: Bearer {secret}",))


def _key(file: Path) -> str:
    secret = new_secret()
    with closing(KeyFile(file, write=True)) as keys:
        keys.create(Profile(id=new_id("bench"), name="bench", created_s=Clock().now_s()), secret, "bench")
    return secret


def _passthrough(place: Place) -> Start:
    ports = ["--listen", str(place.port), "--upstream", str(place.engines[0])]
    return Start([sys.executable, "-m", "bench.passthrough", *ports], INTERPRETED)


def _answers(one: Running, child: subprocess.Popen[bytes]) -> bool:
    """Until it does, or has ended, or is out of time."""
    until_s = tick_s() + START_S
    while tick_s() < until_s and child.poll() is None:
        if _status(one) == 200:
            return True
        sleep_s(RETRY_S)
    return False


def _status(one: Running) -> int:
    headers = dict(header.split(": ", 1) for header in one.headers) | {"content-type": "application/json"}
    with closing(HTTPConnection(HOST, one.port, timeout=10.0)) as connection:
        try:
            connection.request("POST", "/v1/chat/completions", ASK, headers)
            return connection.getresponse().status
        except (OSError, HTTPException):
            return 0


def _last_line(output: Path) -> str:
    lines = output.read_text(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else "it says nothing"


def _end(child: subprocess.Popen[bytes]) -> None:
    """And what it has started, which may have stayed."""
    child.terminate()
    with suppress(subprocess.TimeoutExpired):
        child.wait(10.0)
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
