"""What does the system cost per token? Through Serve, engine and collector, against bare AsyncLLM, per CPU-second.

One run: a system learns its first version; while its collector fills the next window with that version, the CPU time of
replica, engine and collector is set against the collector's tokens. Then the same prompts go to a bare AsyncLLM with
the same settings and the same adapter, and its processes' CPU time is set against its tokens.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import psutil

from actors.rundir import live_url
from core.config import Config, load
from core.messages import PolicyRef, Published
from core.store import RunReader
from methods import prompts
from serve.engine import Engine
from serve.engine_arguments import environment

REF = PolicyRef(version=1)
WINDOW = 768
"""Prompts: more than are explored while measuring, so that the trainer, whose time is not counted, is at rest as it is
beside the bare engine: on two cores that share one's units, a busy neighbour costs every process CPU time."""
COUNTED = ("ServeReplica", "EngineCore", "ray::Collector")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=40.0, help="length of each measurement")


def run(options: argparse.Namespace) -> dict[str, Any]:
    seconds = 12.0 if options.quick else options.seconds
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        through = measure_system(run_dir, seconds, 128 if options.quick else WINDOW)
        bare = asyncio.run(measure_bare(run_dir, seconds))
    return {
        "ratio": through["tokens_per_cpu_s"] / bare["tokens_per_cpu_s"],
        "system": through,
        "bare": bare,
    }


def measure_system(run_dir: Path, seconds: float, window: int) -> dict[str, float]:
    """Collector tokens per CPU-second of everything that makes them, with the adapter of version 1."""
    settings = ["gate.enabled=false", "report.questions=null", "learning.max_lag=3"]
    settings += [f"learning.groups_per_window={window}"]
    command = [sys.executable, "-m", "actors.cli", "up", "--port", "0", "--dir", str(run_dir), *settings]
    child = subprocess.Popen(command, stdout=sys.stderr, start_new_session=True)
    try:
        _until(lambda: run_dir.is_dir() and live_url(run_dir) is not None, child, 240)
        url = live_url(run_dir)
        assert url is not None
        _until(lambda: bool(RunReader(run_dir).events("proven")), child, 240)
        before = _count(child, url)
        time.sleep(seconds)
        after = _count(child, url)
    finally:
        child.send_signal(2)
        child.wait(60)
    tokens, cpu_s = after[0] - before[0], after[1] - before[1]
    return {"tokens": tokens, "cpu_s": round(cpu_s, 2), "tokens_per_cpu_s": round(tokens / cpu_s, 1)}


async def measure_bare(run_dir: Path, seconds: float) -> dict[str, float]:
    """The same work on AsyncLLM alone: its own API, no Serve, no collector."""
    config = load(run_dir / "config.yaml")
    os.environ.update(environment(config.model, config.serve.engine))
    engine = Engine(config.model, config.serve.engine, max_versions=6, seed=0)
    await engine.start()
    published = RunReader(run_dir).get("versions", Published, str(REF))
    assert published is not None
    await engine.stage(published)
    try:
        await _generate(engine, config, 3.0)
        before = _cpu_s([psutil.Process(), *psutil.Process().children(recursive=True)])
        tokens = await _generate(engine, config, seconds)
        cpu_s = _cpu_s([psutil.Process(), *psutil.Process().children(recursive=True)]) - before
    finally:
        await engine.stop()
    return {"tokens": tokens, "cpu_s": round(cpu_s, 2), "tokens_per_cpu_s": round(tokens / cpu_s, 1)}


async def _generate(engine: Engine, config: Config, seconds: float) -> int:
    """As many groups at once as the collector's seats hold."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    pool = prompts.read(config.prompts, 0)
    drawn = config.method.sampler
    params = SamplingParams(
        n=drawn.n,
        temperature=drawn.temperature,
        max_tokens=drawn.max_tokens,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )
    free = config.serve.engine.max_seqs - config.serve.reserve_seats
    stop_at = time.monotonic() + seconds
    places = iter(range(10**9))
    tokens = 0

    async def worker() -> None:
        nonlocal tokens
        while time.monotonic() < stop_at:
            place = next(places)
            ids = engine.render(pool[place].messages)[0]
            request = engine._llm.generate(
                {"prompt_token_ids": ids}, params, request_id=f"bare-{place}", lora_request=engine._held(REF).lora
            )
            async for output in request:
                tokens += sum(len(choice.token_ids) for choice in output.outputs)

    await asyncio.gather(*(worker() for _ in range(free // drawn.n)))
    return tokens


def _count(child: subprocess.Popen[bytes], url: str) -> tuple[float, float]:
    """Tokens that collectors have, and CPU seconds that making them took."""
    status = httpx.get(f"{url}/status", timeout=30, trust_env=False).json()
    tokens = status["buffer"]["tokens"]
    family = psutil.Process(child.pid).children(recursive=True)
    counted = [p for p in family if any(name in " ".join(p.cmdline()) for name in COUNTED)]
    return tokens, _cpu_s(counted)


def _cpu_s(processes: list[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        times = process.cpu_times()
        total += times.user + times.system
    return total


def _until(condition: Any, child: subprocess.Popen[bytes], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if child.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the system did not get there within {timeout_s:.0f} s")
        time.sleep(0.5)
