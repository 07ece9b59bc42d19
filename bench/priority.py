"""Does an occasional user wait longer for the first token while the system learns?

Users arrive one by one and request a streamed chat of 60 tokens each. The gaps between arrivals are drawn uniformly
from --gap-least to --gap-most seconds, or from a Poisson process with the same mean. The first half arrives while
learning is paused, the second half while collectors, trainer and gate are at full load. Requests may overlap.

`ttft_idle_ms_p50`, `ttft_loaded_ms_p50`, `ttft_loaded_ms_p99`: time to the first token. `decode_step_ms`: median time
between two tokens of an answer under load. The floor (`within_floor`): loaded p50 is at most idle p50 plus two decode
steps.
"""

import argparse
import asyncio
import random
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import aiohttp
import httpx
import numpy as np

from bench._ask import Answered, ask, open_session
from bench._live import LiveRun, drill_arguments
from core.config import load
from methods.data import prompts

TOKENS = 60
WARM = 3
STEPS = 2
"""Decode steps by which the first token may be later under load."""
SETTINGS = (
    "learning.groups_per_window=128",
    "learning.max_lag=3",
    "learning.plateau=null",
    "learning.backoff.stop=1000000",
    "report.questions=null",
)
"""Learning never pauses or backs off, and uses all CPU time it can get."""
QUICK = ("learning.groups_per_window=32",)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--users", type=int, default=30, help="users in each half")
    parser.add_argument("--gap-least", type=float, default=5.0, help="seconds between two users")
    parser.add_argument("--gap-most", type=float, default=30.0)
    parser.add_argument("--arrivals", choices=("uniform", "poisson"), default="uniform")
    drill_arguments(parser, "runs/bench-priority")


def run(options: argparse.Namespace) -> dict[str, Any]:
    if options.quick:
        options.users, options.gap_least, options.gap_most = 6, 0.5, 2.0
    return asyncio.run(measure(options))


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    rng = random.Random(options.seed)
    live = LiveRun(options, (*SETTINGS, *QUICK) if options.quick else SETTINGS, anew=True)
    try:
        await live.up()
        url = live.url() or ""
        async with httpx.AsyncClient(base_url=url, timeout=120, trust_env=False) as client:
            await live.rest(client)
            questions = fresh_questions(live, options.seed, WARM + 2 * options.users)
            async with open_session(url) as users:
                for question in questions[:WARM]:
                    await ask(users, "policy", question, TOKENS)
                halves = questions[WARM : WARM + options.users], questions[WARM + options.users :]
                idle = await arrivals(users, halves[0], gaps_s(rng, options))
                await live.learn(client)
                before, started = await load_of(live, client), time.monotonic()
                loaded = await arrivals(users, halves[1], gaps_s(rng, options))
                took_s, after = time.monotonic() - started, await load_of(live, client)
    finally:
        await live.stop()
    learned = {name: after[name] - before[name] for name in after}
    return {
        **figures(idle, loaded),
        "users": options.users,
        "arrivals": options.arrivals,
        "gaps_s": [options.gap_least, options.gap_most],
        "loaded_s": round(took_s, 1),
        "collector_tokens_per_s": round(learned["tokens"] / took_s, 1),
        "windows_drawn": learned["windows_drawn"],
        "versions_served": sorted({answer.version for answer in loaded}, key=int),
    }


def fresh_questions(live: LiveRun, seed: int, wanted: int) -> list[str]:
    """Questions in another order than the collectors', whose recent prompts are in the engine's prefix cache."""
    pool = prompts.read(load(live.dir / "config.yaml").prompts, seed + 1)
    return [pool[place].messages[-1].content for place in range(wanted)]


def gaps_s(rng: random.Random, options: argparse.Namespace) -> list[float]:
    least, most = options.gap_least, options.gap_most
    if options.arrivals == "poisson":
        return [rng.expovariate(2 / (least + most)) for _ in range(options.users)]
    return [rng.uniform(least, most) for _ in range(options.users)]


async def arrivals(users: aiohttp.ClientSession, questions: Sequence[str], gaps: Sequence[float]) -> list[Answered]:
    async with asyncio.TaskGroup() as tasks:
        asked: list[asyncio.Task[Answered]] = []
        for question, gap in zip(questions, gaps, strict=True):
            await asyncio.sleep(gap)
            asked.append(tasks.create_task(ask(users, "policy", question, TOKENS)))
    return [task.result() for task in asked]


async def load_of(live: LiveRun, client: httpx.AsyncClient) -> dict[str, int]:
    """The tokens and windows of learning so far. Raises: SystemExit when learning is paused."""
    buffer = (await live.reach(client, "a status of the buffer", lambda status: "tokens" in status["buffer"]))["buffer"]
    if buffer["paused"] is not None:
        raise SystemExit(f"learning was paused ({buffer['paused']}), so nothing was measured under load")
    print(f"learning: {buffer}", file=sys.stderr, flush=True)
    return {name: buffer[name] for name in ("tokens", "windows_drawn")}


def figures(idle: Sequence[Answered], loaded: Sequence[Answered]) -> dict[str, Any]:
    step_ms = 1e3 * statistics.median(gap for answer in loaded for gap in answer.gaps_s)
    idle_ms, loaded_ms = ([1e3 * answer.first_s for answer in answers] for answers in (idle, loaded))
    floor_ms = statistics.median(idle_ms) + STEPS * step_ms
    return {
        "ttft_idle_ms_p50": round(statistics.median(idle_ms), 2),
        "ttft_loaded_ms_p50": round(statistics.median(loaded_ms), 2),
        "ttft_loaded_ms_p99": round(float(np.percentile(loaded_ms, 99)), 2),
        "decode_step_ms": round(step_ms, 2),
        "floor_ms": round(floor_ms, 2),
        "within_floor": statistics.median(loaded_ms) <= floor_ms,
    }
