"""What does Ratchet's HTTP path cost, compared with a default `vllm serve`, and what does learning cost its users?

Three sides answer streamed chats of 32 tokens in turns, with 1, 16 or 64 users at once:

    ratchet   as shipped: HAProxy, Serve's replica, ingress and recorder in front of the engine
    default   `vllm serve` with only the model, dtype, `max-model-len` and `max-num-seqs` on its command line
    plain     vLLM's server with Ratchet's engine settings, worker and environment, without its other parts

Learning rests during the turns of all sides, so all answer with the base. Then `ratchet` has one more turn while it
learns (`learning`): collectors, trainer and gate are at work, and it answers with the versions that it has promoted.

A ratio is Ratchet / the other side (`default`, `plain`, `learning_default`, `learning_rest`), the median over rounds;
the order of the sides alternates. `throughput_ratio` (higher is better): generated tokens per second.
`ttft_p50_ratio`: median time to the first token. `total_p99_ratio`: 99th percentile of the time of whole answers.
`server_cpu_s_ratio`: CPU time per generated token of all server processes, including Ray's and HAProxy's; with learning
it includes learning. Each of `--runs` starts all sides anew; a row has the median over runs and its range. The floor at
rest, against both other sides: throughput at least 0.9, median first token at most 1.2.

The users of all sides run in this process, which uses CPU time too (`client_cpu_share`), as do idle sides
(`idle_cpu_share`). vLLM uses a quarter of a processor without requests, so the processes of both vLLM servers are
suspended (SIGSTOP) while another side has its turn.
"""

import argparse
import asyncio
import itertools
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
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
SETTINGS = (
    "learning.groups_per_window=64",
    "learning.max_lag=3",
    "learning.plateau=null",
    "learning.backoff.stop=1000000",
    "report.questions=null",
)
"""Learning never pauses or backs off by itself. Before it is paused by hand it has not filled a window."""
PAIRS = {
    "default": ("ratchet", "default"),
    "plain": ("ratchet", "plain"),
    "learning_default": ("learning", "default"),
    "learning_rest": ("learning", "ratchet"),
}
RATIOS = {
    "throughput_ratio": "tokens_per_s",
    "ttft_p50_ratio": "ttft_ms_p50",
    "total_p99_ratio": "total_ms_p99",
    "server_cpu_s_ratio": "server_cpu_ms_per_token",
}
LEAST_THROUGHPUT = 0.9
MOST_TTFT = 1.2
Round = dict[str, dict[str, Any]]
"""The figures of one turn of each side, by the side's name; `learning` is Ratchet's turn while it learns."""


class Server(Protocol):
    def family(self) -> list[psutil.Process]: ...


@dataclass
class Side:
    name: str
    server: Server
    url: str
    model: str
    questions: Iterator[str]
    """Endless. All sides get the same questions in the same order."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=4.0, help="length of each turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=1, help="fresh starts of all sides")
    drill_arguments(parser, "runs/bench-http")


def run(options: argparse.Namespace) -> dict[str, Any]:
    at_once = AT_ONCE
    if options.quick:
        options.seconds, options.rounds, at_once = 1.5, 1, (1, 16)
    runs = [asyncio.run(measure(options, at_once)) for _ in range(options.runs)]
    found = {str(users): by_pair([rounds[users] for rounds in runs]) for users in at_once}
    return {"by_concurrency": found, "within_floor": within_floor(found), "runs": options.runs, "cores": os.cpu_count()}


async def measure(options: argparse.Namespace, at_once: Sequence[int]) -> dict[int, list[Round]]:
    live = LiveRun(options, SETTINGS, anew=True)
    servers: list[PlainServer] = []
    try:
        await live.up()
        url = live.url()
        assert url is not None, "up() has returned"
        async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as client:
            await live.rest(client)
            config = load(live.dir / "config.yaml")
            servers += [PlainServer(config, live.folder, default=True), PlainServer(config, live.folder)]
            await asyncio.gather(*(server.up() for server in servers))
            pool = prompts.read(config.prompts, options.seed)
            ratchet, *others = (
                Side("ratchet", live, url, "policy", asked(pool)),
                Side("default", servers[0], servers[0].url, str(BASE), asked(pool)),
                Side("plain", servers[1], servers[1].url, str(BASE), asked(pool)),
            )
            rounds = {users: [Round() for _ in range(options.rounds)] for users in at_once}
            for number, users in itertools.product(range(options.rounds), at_once):
                sides = [ratchet, *others] if number % 2 == 0 else [*others[::-1], ratchet]
                for side in sides:
                    idle = [each for each in (ratchet, *others) if each is not side]
                    found = await alone(side, idle, users, options.seconds)
                    check_base(side, found.pop("versions"))
                    rounds[users][number][side.name] = found
                print(f"round {number}, {users} at once: {rounds[users][number]}", file=sys.stderr, flush=True)
            for number in range(options.rounds):
                await live.learn(client)
                for users in at_once:
                    found = await alone(ratchet, others, users, options.seconds)
                    rounds[users][number]["learning"] = found
                    print(f"round {number}, {users} at once while it learns: {found}", file=sys.stderr, flush=True)
        return rounds
    finally:
        for server in servers:
            await server.stop()
        await live.stop()


async def alone(side: Side, idle: Sequence[Side], users: int, seconds: float) -> dict[str, Any]:
    """One turn of a side, with the vLLM servers of the others suspended."""
    with ExitStack() as suspended:
        for each in idle:
            if isinstance(each.server, PlainServer):
                suspended.enter_context(each.server.paused())
        return await turn(side, idle, users, seconds)


def check_base(side: Side, versions: Sequence[str]) -> None:
    """Raises: SystemExit if an answer at rest came from a trained version."""
    if trained := set(versions) - {"", str(BASE.version)}:
        raise SystemExit(f"{side.name} answered with versions {sorted(trained)}, expected version 0 as on other sides")


def asked(pool: prompts.Prompts) -> Iterator[str]:
    return (pool[place].messages[-1].content for place in itertools.count())


async def turn(side: Side, idle: Sequence[Side], at_once: int, seconds: float) -> dict[str, Any]:
    """The figures of one side with `at_once` concurrent users, each with one request at a time. First each user sends
    one request that is not measured, because an idle server has closed the connections of the last turn."""
    async with open_session(side.url) as client:
        await users(client, side, at_once, 0.0)
        before, idle_before, client_before = cpu_s(side.server), idle_cpu_s(idle), time.process_time()
        started = time.monotonic()
        answers = await users(client, side, at_once, seconds)
        took_s = time.monotonic() - started
    used_s, idle_s = spent_s(before, cpu_s(side.server)), spent_s(idle_before, idle_cpu_s(idle))
    found = figures(answers, took_s, used_s)
    shares = {"client_cpu_share": time.process_time() - client_before, "idle_cpu_share": idle_s}
    shares = {name: round(used / took_s, 3) for name, used in shares.items()}
    return {**found, **shares, "versions": sorted({answer.version for answer in answers})}


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


def idle_cpu_s(sides: Sequence[Side]) -> dict[psutil.Process, float]:
    return {process: used for side in sides for process, used in cpu_s(side.server).items()}


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


def by_pair(runs: Sequence[Sequence[Round]]) -> dict[str, Any]:
    """For each pair of sides its ratios: the median over runs, with the range if there are several."""
    found: dict[str, Any] = {}
    for pair, (ours, other) in PAIRS.items():
        each = [ratios(rounds, ours, other) for rounds in runs]
        found[pair] = {name: round(statistics.median(one[name] for one in each), 3) for name in RATIOS}
        if len(each) > 1:
            ranges = {name: [min(one[name] for one in each), max(one[name] for one in each)] for name in RATIOS}
            found[pair] |= {f"{name}_range": ends for name, ends in ranges.items()}
    return {**found, "rounds": runs}


def ratios(rounds: Sequence[Round], ours: str, other: str) -> dict[str, float]:
    return {
        name: round(statistics.median(found[ours][of] / found[other][of] for found in rounds), 3)
        for name, of in RATIOS.items()
    }


def within_floor(found: dict[str, dict[str, Any]]) -> bool:
    """At rest, against both other sides, by the median of the runs."""
    pairs = [each[pair] for each in found.values() for pair in ("default", "plain")]
    return all(p["throughput_ratio"] >= LEAST_THROUGHPUT and p["ttft_p50_ratio"] <= MOST_TTFT for p in pairs)
