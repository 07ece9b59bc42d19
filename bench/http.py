"""What does Ratchet's HTTP path cost, compared with plain `vllm serve` and the same engine?

A run starts, and its learning is paused before version 1 exists, so both sides answer with the base. `vllm serve` runs
beside it with the same model, engine settings (LoRA and worker included) and environment. The two sides take turns: one
is measured with 1, 16 or 64 concurrent users while the other is idle. Each answer is a streamed chat of 32 tokens. On
Ratchet's side it goes through HAProxy, Serve's replica, ingress and recorder.

Ratios are Ratchet / plain, the median over rounds of two consecutive turns; the order of the sides alternates.
`throughput_ratio` (higher is better): generated tokens per second. `ttft_p50_ratio`: median time to the first token.
`total_p99_ratio`: 99th percentile of the time of whole answers. `server_cpu_s_ratio`: CPU time per generated token of
all server processes, including Ray's and HAProxy's. The floor: throughput at least 0.9, median first token at most 1.2.

The users of both sides run in this process, which uses CPU time too (`client_cpu_share`), as does the idle side
(`idle_side_cpu_share`). Plain vLLM uses a quarter of a processor without requests, so its processes are suspended
(SIGSTOP) during Ratchet's turns.
"""

import argparse
import asyncio
import itertools
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp
import httpx
import numpy as np
import psutil

from bench._ask import Answered, ask, open_session
from bench._live import LiveRun, drill_arguments
from bench._plain import PlainServer
from core.config import load
from core.messages import BASE
from methods.data import prompts

AT_ONCE = (1, 16, 64)
TOKENS = 32
SETTINGS = ("gate.enabled=false", "report.questions=null", "learning.groups_per_window=3200")
"""No version is trained before learning is paused, and no report question is asked."""
RATIOS = {
    "throughput_ratio": "tokens_per_s",
    "ttft_p50_ratio": "ttft_ms_p50",
    "total_p99_ratio": "total_ms_p99",
    "server_cpu_s_ratio": "server_cpu_ms_per_token",
}
LEAST_THROUGHPUT = 0.9
MOST_TTFT = 1.2
Round = dict[str, dict[str, float]]
"""The figures of one turn of each side, by the side's name."""


class Server(Protocol):
    def family(self) -> list[psutil.Process]: ...


@dataclass
class Side:
    name: str
    server: Server
    url: str
    model: str
    questions: Iterator[str]
    """Endless. Both sides get the same questions in the same order."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=12.0, help="length of each turn")
    parser.add_argument("--rounds", type=int, default=5)
    drill_arguments(parser, "runs/bench-http")


def run(options: argparse.Namespace) -> dict[str, Any]:
    if options.quick:
        options.seconds, options.rounds = 3.0, 1
    rounds = asyncio.run(measure(options))
    found = {str(at_once): {**ratios(those), "rounds": those} for at_once, those in rounds.items()}
    return {"by_concurrency": found, "within_floor": within_floor(found), "cores": os.cpu_count()}


async def measure(options: argparse.Namespace) -> dict[int, list[Round]]:
    live = LiveRun(options, SETTINGS, anew=True)
    plain: PlainServer | None = None
    try:
        await live.up()
        url = live.url()
        assert url is not None, "up() has returned"
        async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as client:
            await live.rest(client)
        config = load(live.dir / "config.yaml")
        plain = PlainServer(config, live.folder)
        await plain.up()
        pool = prompts.read(config.prompts, options.seed)
        sides = (
            Side("ratchet", live, url, "policy", asked(pool)),
            Side("plain", plain, plain.url, str(BASE), asked(pool)),
        )
        rounds: dict[int, list[Round]] = {at_once: [] for at_once in AT_ONCE}
        for number, at_once in itertools.product(range(options.rounds), AT_ONCE):
            found: dict[str, dict[str, float]] = {}
            for side, idle in itertools.permutations(sides if number % 2 == 0 else sides[::-1]):
                with plain.paused() if idle.server is plain else nullcontext():
                    found[side.name] = await turn(side, idle, at_once, options.seconds)
            print(f"round {number}, {at_once} at once: {found}", file=sys.stderr, flush=True)
            rounds[at_once].append(found)
        return rounds
    finally:
        if plain is not None:
            await plain.stop()
        await live.stop()


def asked(pool: prompts.Prompts) -> Iterator[str]:
    return (pool[place].messages[-1].content for place in itertools.count())


async def turn(side: Side, idle: Side, at_once: int, seconds: float) -> dict[str, float]:
    """The figures of one side with `at_once` concurrent users, each with one request at a time. First each user sends
    one request that is not measured, because an idle server has closed the connections of the last turn."""
    async with open_session(side.url) as client:
        await users(client, side, at_once, 0.0)
        before, idle_before, client_before = cpu_s(side.server), cpu_s(idle.server), time.process_time()
        started = time.monotonic()
        answers = await users(client, side, at_once, seconds)
        took_s = time.monotonic() - started
    versions = {answer.version for answer in answers} - {"", str(BASE.version)}
    if versions:
        raise SystemExit(
            f"{side.name} answered with versions {sorted(versions)}, expected version 0 as on the other side"
        )
    used_s, idle_s = spent_s(before, cpu_s(side.server)), spent_s(idle_before, cpu_s(idle.server))
    found = figures(answers, took_s, used_s)
    shares = {"client_cpu_share": time.process_time() - client_before, "idle_side_cpu_share": idle_s}
    return found | {name: round(used / took_s, 3) for name, used in shares.items()}


async def users(client: aiohttp.ClientSession, side: Side, at_once: int, seconds: float) -> list[Answered]:
    """The answers of `at_once` concurrent users; each gets at least one."""
    stop_at = time.monotonic() + seconds
    answers: list[Answered] = []

    async def user() -> None:
        while True:
            answers.append(await ask(client, side.model, next(side.questions), TOKENS))
            if time.monotonic() >= stop_at:
                return

    async with asyncio.TaskGroup() as tasks:
        for _ in range(at_once):
            tasks.create_task(user())
    return answers


def cpu_s(server: Server) -> dict[psutil.Process, float]:
    found: dict[psutil.Process, float] = {}
    for process in server.family():
        try:
            times = process.cpu_times()
        except psutil.Error:  # the process has ended
            continue
        found[process] = times.user + times.system
    return found


def spent_s(before: dict[psutil.Process, float], after: dict[psutil.Process, float]) -> float:
    """CPU-seconds of the processes that exist at the end; the time of ended processes is unknown."""
    return sum(used - before.get(process, 0.0) for process, used in after.items())


def figures(answers: Sequence[Answered], took_s: float, server_cpu_s: float) -> dict[str, float]:
    tokens = sum(answer.tokens for answer in answers)
    return {
        "answers": len(answers),
        "tokens_per_s": round(tokens / took_s, 1),
        "ttft_ms_p50": round(1e3 * statistics.median(answer.first_s for answer in answers), 2),
        "total_ms_p99": round(1e3 * float(np.percentile([answer.total_s for answer in answers], 99)), 1),
        "server_cpu_ms_per_token": round(1e3 * server_cpu_s / tokens, 4),
    }


def ratios(rounds: Sequence[Round]) -> dict[str, float]:
    return {
        name: round(statistics.median(found["ratchet"][of] / found["plain"][of] for found in rounds), 3)
        for name, of in RATIOS.items()
    }


def within_floor(found: dict[str, dict[str, Any]]) -> bool:
    return all(
        each["throughput_ratio"] >= LEAST_THROUGHPUT and each["ttft_p50_ratio"] <= MOST_TTFT for each in found.values()
    )
