"""A real engine in a process of its own: llama.cpp's server, as a user would run `llama-server`.

`python -m tidegate.lab.llama --model FILE --port N ...` serves until SIGTERM or SIGINT. `Engine` runs
that command, waits until it answers, and leaves no process behind, however its own process ends.
"""

import argparse
import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from tidegate.config.extra import installs
from tidegate.lab.command import end_with

HOST = "127.0.0.1"
BATCH_TOKENS = 128  # a client that leaves frees its slot when the batch ends: within a second on one core
CACHE_MIB_MAX = 512  # prompts kept beside the slots: 22,000 tokens of SmolLM2. llama.cpp's own bound is 8 GiB
VERBOSITY = 2  # warnings and errors; one level up, each request writes seven lines into a log without bound
START_S_MAX = 60.0  # SmolLM2 loads in under a second; a busy test machine takes many
STOP_S_MAX = 5.0  # SIGTERM is answered at once, except while loading
ANSWER_S_MAX = 10.0  # /health and /props wait for the batch that is being computed
LOG_TAIL_BYTES = 2_000  # of a dead engine's log in the error: the reason stands in the last lines
READY = b"ready "  # first word of the launcher's only line on stdout; the address follows


class EngineDiedError(Exception):
    """The engine ended or did not answer in time. The message ends with its last words."""


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """What to serve, and on how much of the machine."""

    model: Path
    port: int = 0  # 0: any free one
    context_tokens: int = 2048  # of each slot; llama.cpp knows multiples of 256 only
    slots: int = 2
    threads: int = 1
    cpu: int | None = None  # the core to stay on; None leaves it to the system
    batch_tokens: int = BATCH_TOKENS
    alias: str = "smollm2"  # the model's name in its answers
    template: Path | None = None  # Jinja chat template in place of the model's own, say one that knows tools
    flash_attention: bool = True  # llama.cpp's choice; without, the same sums in another order
    sleep_after_s: int | None = None  # without a request it unloads the model, and loads it for the next one
    saves: Path | None = None  # folder into which slots are saved, and from which they are restored; None: neither

    def arguments(self) -> list[str]:
        """The command line that means this; `parse` is its inverse."""
        words = [f"--model={self.model}", f"--port={self.port}", f"--ctx={self.context_tokens}"]
        words += [f"--slots={self.slots}", f"--threads={self.threads}", f"--batch={self.batch_tokens}"]
        words += [f"--alias={self.alias}"]
        words += [] if self.cpu is None else [f"--cpu={self.cpu}"]
        words += [] if self.template is None else [f"--template={self.template}"]
        words += [] if self.flash_attention else ["--no-flash-attention"]
        words += [] if self.sleep_after_s is None else [f"--sleep-after={self.sleep_after_s}"]
        words += [] if self.saves is None else [f"--slot-save-path={self.saves}"]
        return words


class Engine:
    """A llama.cpp server process: `async with Engine(spec, log) as engine: engine.url`.

    It dies with the thread that started it, so start it on the main thread's loop. `start` after `stop`
    or `kill` brings up a new process, on the same port if the spec names one.
    """

    def __init__(self, spec: Spec, log: Path) -> None:
        self.spec = spec
        self.log = log
        self.url = ""
        self._process: Process | None = None

    @property
    def port(self) -> int:
        """Where it listens; known once started."""
        return int(self.url.rsplit(":", 1)[1])

    @property
    def pid(self) -> int:
        """Process id of the running engine."""
        assert self._process is not None, "not started"
        return self._process.pid

    async def start(self) -> None:
        """Return when `/health` says 200 and each slot has the context that was asked for."""
        assert self._process is None, "already started"
        command = [sys.executable, "-m", "tidegate.lab.llama", *self.spec.arguments()]
        command.append(f"--parent={os.getpid()}")
        with self.log.open("wb") as log:
            # In a session of its own, a Ctrl-C in the terminal reaches us alone: we decide when it stops.
            self._process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=PIPE, stderr=log, start_new_session=True
            )
        try:
            async with asyncio.timeout(START_S_MAX):
                self.url = await self._address()
                await self._check()
        except TimeoutError as error:
            await self.kill()
            raise EngineDiedError(f"no answer in {START_S_MAX:.0f} s; {self._last_words()}") from error
        except BaseException:
            await self.kill()
            raise

    async def stop(self) -> int:
        """End it politely, and by force after `STOP_S_MAX`. Its exit status: 0 unless it died before."""
        return await self._end(signal.SIGTERM)

    async def kill(self) -> int:
        """End it at once, as a crash would; returns when it is gone, with its exit status."""
        return await self._end(signal.SIGKILL)

    async def _end(self, how: signal.Signals) -> int:
        process, self._process = self._process, None
        assert process is not None, "not started"
        if process.returncode is None:
            process.send_signal(how)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_S_MAX):
                    await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
        return await process.wait()

    async def _address(self) -> str:
        """The child's own word: on a fixed port, a stranger might answer `/health` in its place."""
        assert self._process is not None
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line.startswith(READY):
            status = await self._process.wait()
            raise EngineDiedError(f"exit status {status} before it was ready; {self._last_words()}")
        return line.removeprefix(READY).decode().strip()

    async def _check(self) -> None:
        status, _ = await _get(self.port, "/health")
        if status != 200:
            raise EngineDiedError(f"/health answers {status}; {self._last_words()}")
        _, body = await _get(self.port, "/props")
        slot_tokens = msgspec.json.decode(body, type=_Props).default_generation_settings.n_ctx
        if slot_tokens != self.spec.context_tokens:
            raise EngineDiedError(
                f"a slot has {slot_tokens} tokens of context, not {self.spec.context_tokens}; "
                "ask for a multiple of 256 within what the model was trained for"
            )

    def _last_words(self) -> str:
        tail = self.log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()
        return f"last lines of {self.log}:\n{tail}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            await self.stop()


class _Settings(msgspec.Struct):
    n_ctx: int


class _Props(msgspec.Struct):
    default_generation_settings: _Settings


async def _get(port: int, path: str) -> tuple[int, bytes]:
    """Status and body of one GET."""
    async with asyncio.timeout(ANSWER_S_MAX):
        reader, writer = await asyncio.open_connection(HOST, port)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            writer.close()
    return int(head.split(b" ", 2)[1]), body


def parse(words: Sequence[str]) -> tuple[Spec, int | None]:
    """The command line as a Spec, and the process without which the engine must not live."""
    parser = argparse.ArgumentParser(prog="python -m tidegate.lab.llama", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="GGUF file")
    parser.add_argument("--port", type=int, default=0, help="0 for any free one")
    parser.add_argument("--ctx", type=int, default=2048, help="tokens of each slot, a multiple of 256")
    parser.add_argument("--slots", type=int, default=2, help="requests served at once")
    parser.add_argument("--threads", type=int, default=1, help="one per engine on shared cores")
    parser.add_argument("--cpu", type=int, help="core to stay on")
    parser.add_argument("--batch", type=int, default=BATCH_TOKENS, help="prompt tokens computed at a time")
    parser.add_argument("--alias", default="smollm2", help="the model's name in answers")
    parser.add_argument("--template", type=Path, help="Jinja chat template in place of the model's own")
    parser.add_argument("--no-flash-attention", action="store_true", help="the same sums in another order")
    parser.add_argument("--sleep-after", type=int, help="seconds without a request after which it unloads the model")
    parser.add_argument("--slot-save-path", type=Path, help="folder of saved slots")
    parser.add_argument("--parent", type=int, help="process without which this one exits")
    asked = parser.parse_args(words)
    if asked.cpu is not None and asked.cpu not in os.sched_getaffinity(0):
        parser.error(f"--cpu {asked.cpu} is not available; choose from {sorted(os.sched_getaffinity(0))}")
    spec = Spec(
        model=asked.model,
        port=asked.port,
        context_tokens=asked.ctx,
        slots=asked.slots,
        threads=asked.threads,
        cpu=asked.cpu,
        batch_tokens=asked.batch,
        alias=asked.alias,
        template=asked.template,
        flash_attention=not asked.no_flash_attention,
        sleep_after_s=asked.sleep_after,
        saves=asked.slot_save_path,
    )
    return spec, asked.parent


def serve(spec: Spec) -> Any:
    """The `xllamacpp.Server`: loaded, and serving in threads of this process while it is referenced."""
    try:
        import xllamacpp
    except ImportError:
        sys.exit(f"the engine is not installed; run `{installs('demo')}`")
    params = xllamacpp.CommonParams()
    params.model.path = str(spec.model)
    params.model_alias = {spec.alias}
    params.hostnames, params.port = [HOST], spec.port
    params.n_parallel = spec.slots
    params.n_ctx = spec.context_tokens * spec.slots  # llama.cpp divides it among the slots
    params.fit_params = False  # shrinks the context to the memory otherwise
    params.n_batch = params.n_ubatch = spec.batch_tokens
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = spec.threads
    if spec.template is not None:
        params.chat_template = spec.template.read_text()
    if not spec.flash_attention:
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    if spec.sleep_after_s is not None:
        params.sleep_idle_seconds = spec.sleep_after_s
    if spec.saves is not None:
        params.slot_save_path = f"{spec.saves}/"  # which it puts before a name as it is
    params.cache_ram_mib = CACHE_MIB_MAX
    params.endpoint_metrics = True  # /slots and /props are on anyway
    params.ui = False
    params.warmup = False  # no gain without an accelerator
    params.verbosity = VERBOSITY
    try:
        return xllamacpp.Server(params)
    except RuntimeError as error:
        sys.exit(f"llama.cpp did not start: {error}")


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    spec, parent = parse(sys.argv[1:])
    end_with(os.getppid() if parent is None else parent, signal.SIGKILL)  # an orphan keeps a core
    ending = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ending)  # before the engine's threads start: they inherit it
    if spec.cpu is not None:
        os.sched_setaffinity(0, {spec.cpu})  # before the engine counts cores
    server = serve(spec)
    sys.stdout.buffer.write(READY + server.listening_address.encode() + b"\n")
    sys.stdout.flush()
    signal.sigwait(ending)
    os._exit(0)  # without waiting for requests in flight: their threads end with the process


if __name__ == "__main__":
    main()
