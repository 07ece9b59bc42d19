"""How many tokens per CPU-second does the system generate, through Serve, engine and collector, against bare AsyncLLM?

A system learns its first version; a bare AsyncLLM gets the same settings, prompts and adapter. Then both generate in
turns, because the machine's speed drifts from minute to minute. In its turn the system's learning is resumed and paused
again; the collector's tokens are divided by the CPU time of replica, engine and collector. The bare engine is measured
in the same way. The ratio is the median over rounds of two consecutive turns.

`ratio_all`: the same as `ratio`, but by the CPU time of every process of the run: also supervisor, raylet, GCS, Serve's
controller and proxies, HAProxy, buffer, store, versions and the rest (`cpu_s_all`, by name).

`ratio`: against a bare engine with as many groups in flight as its seats hold. `ratio_queued`: against one with as many
groups in flight as the collector, so that its queue is never empty.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil

from actors.storage.run_dir import live_url
from bench.votes import spent
from core.config import Config, load
from core.messages import PolicyRef, Published
from core.store.writer import RunReader
from methods.data import prompts
from serve.engine.adapters import Adapters
from serve.engine.arguments import environment
from serve.engine.engine import Engine

REF = PolicyRef(version=1)
WINDOW = 3200
"""Prompts per window: more than are explored during the measurement, so that the trainer stays idle. Its CPU time is
not counted, but on two hyperthreads of one core a busy neighbor slows down every process."""
QUICK_WINDOW = 256
"""More than are explored in one short turn, too."""
Turns = tuple[dict[str, Any], dict[str, Any], dict[str, Any]]
COUNTED = ("ServeReplica", "EngineCore", "ray::Collector")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each turn")
    parser.add_argument("--rounds", type=int, default=5)


def run(options: argparse.Namespace) -> dict[str, Any]:
    seconds, rounds = (8.0, 1) if options.quick else (options.seconds, options.rounds)
    with tempfile.TemporaryDirectory() as folder:
        turns = asyncio.run(measure(Path(folder) / "run", seconds, rounds, QUICK_WINDOW if options.quick else WINDOW))
    return {
        "ratio": _ratio(turns, 1),
        "ratio_all": _ratio(turns, 1, "tokens_per_cpu_s_all"),
        "ratio_queued": _ratio(turns, 2),
        "system": [system for system, _, _ in turns],
        "bare": [bare for _, bare, _ in turns],
        "bare_queued": [queued for _, _, queued in turns],
    }


def _ratio(turns: Sequence[Turns], bare: int, of: str = "tokens_per_cpu_s") -> float:
    ratios = [turn[0][of] / turn[bare]["tokens_per_cpu_s"] for turn in turns]
    return round(statistics.median(ratios), 3)


async def measure(run_dir: Path, seconds: float, rounds: int, window: int) -> list[Turns]:
    settings = ["gate.enabled=false", "report.questions=null", "learning.max_lag=3"]
    settings += [f"learning.groups_per_window={window}"]
    command = [sys.executable, "-m", "actors.cli", "up", "--port", "0", "--dir", str(run_dir), *settings]
    child = subprocess.Popen(command, stdout=sys.stderr, start_new_session=True)
    bare: Bare | None = None
    try:
        await _until(lambda: run_dir.is_dir() and live_url(run_dir) is not None, child, 240)
        url = live_url(run_dir)
        assert url is not None
        await _until(lambda: bool(RunReader(run_dir).events("proven")), child, 900)
        system = System(child, url)
        await system.rest()
        bare = await Bare.start(run_dir)
        await bare.turn(3.0, bare.under_way)  # warm
        turns: list[Turns] = []
        for _ in range(rounds):
            through = await system.turn(seconds)
            turns.append((through, await bare.turn(seconds, bare.held), await bare.turn(seconds, bare.under_way)))
        return turns
    finally:
        if bare is not None:
            await bare.engine.stop()
        child.send_signal(2)
        await asyncio.to_thread(child.wait, 60)


class System:
    """A running `ratchet up` that learns only during its turns."""

    def __init__(self, child: subprocess.Popen[bytes], url: str) -> None:
        self._child = child
        self._client = httpx.AsyncClient(base_url=url, timeout=30, trust_env=False)

    async def turn(self, seconds: float) -> dict[str, Any]:
        """Collector tokens per CPU-second of replica, engine and collector, and of all processes, with the adapter of
        version 1."""
        tokens, before, all_before = await self._tokens(), self._cpu(), spent(self._family())
        await self._command("resume")
        await asyncio.sleep(seconds)
        await self.rest()
        made = await self._tokens() - tokens
        return {**_report(made, before, self._cpu()), **of_all(made, all_before, spent(self._family()))}

    async def rest(self) -> None:
        await self._command("pause")
        while (await self._status())["buffer"]["outstanding"]:
            await asyncio.sleep(0.1)

    async def _tokens(self) -> int:
        return (await self._status())["buffer"]["tokens"]

    async def _status(self) -> dict[str, Any]:
        return (await self._client.get("/status")).raise_for_status().json()

    async def _command(self, name: str) -> None:
        (await self._client.post(f"/admin/{name}", json={})).raise_for_status()

    def _cpu(self) -> dict[str, float]:
        return _cpu_s({name: _titled(self._family(), name) for name in COUNTED})

    def _family(self) -> list[psutil.Process]:
        main = psutil.Process(self._child.pid)
        return [main, *main.children(recursive=True)]


class Bare:
    """The same work on AsyncLLM alone, without Serve or a collector."""

    held: int
    """Groups that fit into the seats of background work. With this many in flight, vLLM's queue is empty."""
    under_way: int
    """Groups that a collector has in flight. With this many, vLLM's queue is never empty and every seat is taken."""

    def __init__(self, engine: Engine, processes: list[psutil.Process], config: Config) -> None:
        self.engine = engine
        self._processes = processes
        self._config = config
        free = config.serve.engine.max_seqs - config.serve.reserve_seats
        self.held, self.under_way = free // config.method.sampler.n, config.collect.in_flight
        self._pool = prompts.read(config.prompts, 0)

    @classmethod
    async def start(cls, run_dir: Path) -> "Bare":
        config = load(run_dir / "config.yaml")
        os.environ.update(environment(config.model, config.serve.engine))
        others = _engines()
        free = config.serve.engine.max_seqs - config.serve.reserve_seats  # the seats of background work
        settings = config.serve.engine.model_copy(update={"max_seqs": free})
        engine = Engine(config.model, settings, max_versions=6, seed=0)
        await engine.start()
        published = RunReader(run_dir).get("versions", Published, str(REF))
        assert published is not None
        await engine.stage(published)
        return cls(engine, [process for process in _engines() if process not in others], config)

    async def turn(self, seconds: float, at_once: int) -> dict[str, Any]:
        counted = {"this process": [psutil.Process()], "EngineCore": self._processes}
        before = _cpu_s(counted)
        tokens = await _generate(self.engine, self._config, self._pool, seconds, at_once)
        return _report(tokens, before, _cpu_s(counted))


def _engines() -> list[psutil.Process]:
    return _titled(psutil.Process().children(recursive=True), "EngineCore")


def _titled(processes: list[psutil.Process], name: str) -> list[psutil.Process]:
    return [process for process in processes if name in " ".join(process.cmdline())]


def _report(tokens: int, before: dict[str, float], after: dict[str, float]) -> dict[str, Any]:
    cpu_s = {name: round(after[name] - before[name], 2) for name in after}
    return {"tokens": tokens, "cpu_s": cpu_s, "tokens_per_cpu_s": round(tokens / sum(cpu_s.values()), 1)}


def of_all(tokens: int, before: dict[str, float], after: dict[str, float]) -> dict[str, Any]:
    """The figures by every process. What a process used that ended meanwhile is not known."""
    used = {name: max(0.0, after[name] - before.get(name, 0.0)) for name in sorted(after)}
    cpu_s = {name: round(seconds, 2) for name, seconds in used.items() if seconds >= 0.01}
    return {"cpu_s_all": cpu_s, "tokens_per_cpu_s_all": round(tokens / sum(used.values()), 1)}


def _cpu_s(counted: dict[str, list[psutil.Process]]) -> dict[str, float]:
    times = {name: [process.cpu_times() for process in processes] for name, processes in counted.items()}
    return {name: sum(t.user + t.system for t in those) for name, those in times.items()}


async def _generate(engine: Engine, config: Config, pool: prompts.Prompts, seconds: float, at_once: int) -> int:
    """Tokens generated for the pool's prompts, with `at_once` groups in flight."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    drawn = config.method.sampler
    params = SamplingParams(
        n=drawn.n,
        temperature=drawn.temperature,
        max_tokens=drawn.max_tokens,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )
    stop_at = time.monotonic() + seconds
    places = iter(range(10**9))
    tokens = 0

    assert isinstance(engine._versions, Adapters)
    lora = engine._versions.adapter(REF)

    async def worker() -> None:
        nonlocal tokens
        while time.monotonic() < stop_at:
            place = next(places)
            ids = engine.render(pool[place].messages)[0]
            request = engine._llm.generate(
                {"prompt_token_ids": ids}, params, request_id=f"bare-{place}", lora_request=lora
            )
            async for output in request:
                tokens += sum(len(choice.token_ids) for choice in output.outputs)

    await asyncio.gather(*(worker() for _ in range(at_once)))
    return tokens


async def _until(condition: Any, child: subprocess.Popen[bytes], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if child.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the run was not ready within {timeout_s:.0f} s, or it ended; see its output above")
        await asyncio.sleep(0.5)
