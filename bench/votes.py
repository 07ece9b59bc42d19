"""How many votes per second does the service store durably while it learns, in arrays and one by one?

It first requests some answers and then votes on them over HTTP by `POST /v1/feedback`: arrays of 256 until `--votes`
are acknowledged, with every tenth array sent twice; then single votes from `--clients` connections for `--seconds`;
then single votes for half as long while learning is paused. Afterwards it counts the votes in the run's store.
`cpu_ms_per_vote` is the CPU time of each part per single vote, with learning included while it runs. The floor: 50,000
votes in arrays within a minute, all durable, none doubled, and 200 single votes per second.
"""

import argparse
import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import aiohttp
import httpx
import psutil

from bench._live import SETTINGS, LiveRun, drill_arguments
from bench.crash import doubled
from core.store.writer import RunReader

ARRAY = 256
ANSWERS = 64
POSTERS = 4
USERS = 1000
RESEND = 10
"""Every RESEND-th array is sent twice."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--votes", type=int, default=50_000)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=20.0)
    drill_arguments(parser, "runs/bench-votes")


def run(options: argparse.Namespace) -> dict[str, Any]:
    if options.quick:
        options.votes, options.seconds = 5_000, 5.0
    return asyncio.run(drill(options))


async def drill(options: argparse.Namespace) -> dict[str, Any]:
    live = LiveRun(options, SETTINGS)
    await live.up()
    try:
        limits = httpx.Limits(max_connections=64)
        async with httpx.AsyncClient(base_url=live.url() or "", timeout=120, trust_env=False, limits=limits) as client:
            answers = await asyncio.gather(*(ask(client, number) for number in range(ANSWERS)))
            # nothing is leased or sampled while a slow verdict is pending
            await live.reach(client, "prompts in flight", lambda status: status["buffer"].get("outstanding", 0) > 0)
            before = await tokens(client)
            arrays, array_s = await by_arrays(client, answers, options.votes)
            busy = await one_by_one(live, answers, options.clients, options.seconds, 10**9)
            # on a slow machine the first samples are delivered after the votes
            status = await live.reach(client, "samples", lambda status: status["buffer"]["tokens"] > before)
            learned = int(status["buffer"]["tokens"]) - before
            await live.rest(client)
            try:
                calm = await one_by_one(live, answers, options.clients, options.seconds / 2, 2 * 10**9)
            finally:  # leave a run that continues after this learning
                (await client.post("/admin/resume", json={})).raise_for_status()
    finally:
        await live.stop()
    told = {**arrays, **busy.told, **calm.told}
    sent = list(told)
    with closing(RunReader(live.dir)) as reader:
        kept, said = reader.which("votes", sent), reader.which("feedback", sent)
        votes = [id for id in reader.ids("votes") if id.startswith("bench-")]
        twice = doubled(reader, liked_once=False)  # these users vote on one answer again and again
    return {
        "sent": len(sent),
        "durable": sum(id in said and (id in kept or result == "kept") for id, result in told.items()),
        "doubled": twice + len(set(votes) - set(sent)),
        "array_votes_per_s": round(len(arrays) / array_s, 1),
        "array_s": round(array_s, 1),
        "single_votes_per_s": busy.per_s,
        "single_votes_per_s_at_rest": calm.per_s,
        "collector_tokens_meanwhile": learned,
        "cpu_ms_per_vote": busy.cpu_ms,
        "cpu_ms_per_vote_at_rest": calm.cpu_ms,
    }


async def ask(client: httpx.AsyncClient, number: int) -> str:
    """The id of an answer. Questions differ, so that each has its own ballot."""
    question = f"Tom has {number + 2} apples. He buys {number + 3} apples. How many apples does Tom have?"
    body = {"model": "policy", "messages": [{"role": "user", "content": question}], "max_tokens": 60}
    reply = await client.post("/v1/chat/completions", json=body)
    reply.raise_for_status()
    return str(reply.json()["id"])


async def tokens(client: httpx.AsyncClient) -> int:
    """Tokens that collectors have sampled so far, as evidence that learning continues."""
    return int((await client.get("/status")).json()["buffer"]["tokens"])


def vote(number: int, answers: Sequence[str]) -> dict[str, Any]:
    about = {"id": f"bench-{number}", "user": f"user-{number % USERS}"}
    return {**about, "response_id": answers[number % len(answers)], "binary": number % 3 > 0}


async def by_arrays(client: httpx.AsyncClient, answers: Sequence[str], wanted: int) -> tuple[dict[str, str], float]:
    """The acknowledged ids with their results, and the seconds it took."""
    arrays = [[vote(n, answers) for n in range(at, min(at + ARRAY, wanted))] for at in range(0, wanted, ARRAY)]
    queue = [array for number, array in enumerate(arrays) for array in [array] * (1 + (number % RESEND == 0))]
    acknowledged: dict[str, str] = {}

    async def post_all() -> None:
        while queue:
            array = queue.pop(0)
            reply = await client.post("/v1/feedback", json=array)
            reply.raise_for_status()
            for result in reply.json()["results"]:
                acknowledged.setdefault(result["id"], result["result"])

    started = time.monotonic()
    await asyncio.gather(*(post_all() for _ in range(POSTERS)))
    return acknowledged, time.monotonic() - started


@dataclass(frozen=True)
class Singles:
    told: dict[str, str]
    """Acknowledged id -> result. Only `kept` casts no vote: a dislike of a text without an extractable answer."""
    per_s: float
    cpu_ms: dict[str, float]
    """CPU time per vote, by part. `client` is this process."""


async def one_by_one(live: LiveRun, answers: Sequence[str], clients: int, seconds: float, first: int) -> Singles:
    """Send single votes. Uses aiohttp, because 64 httpx connections use more CPU time than the service."""
    acknowledged: dict[str, str] = {}
    before, started = spent_with_client(live), time.monotonic()

    async def post_on(session: aiohttp.ClientSession, number: int) -> None:
        while time.monotonic() - started < seconds:
            async with session.post("/v1/feedback", json=vote(number, answers)) as reply:
                reply.raise_for_status()
                (result,) = (await reply.json())["results"]
                acknowledged[result["id"]] = result["result"]
            number += clients

    async with aiohttp.ClientSession(live.url() or "") as session:
        await asyncio.gather(*(post_on(session, first + index) for index in range(clients)))
    took_s = time.monotonic() - started
    used = {
        part: 1e3 * (used_s - before.get(part, 0.0)) / len(acknowledged)
        for part, used_s in spent_with_client(live).items()
    }
    cpu_ms = {part: round(ms, 3) for part, ms in sorted(used.items(), key=lambda each: -each[1]) if ms > 0.005}
    return Singles(acknowledged, round(len(acknowledged) / took_s, 1), cpu_ms)


def spent_with_client(live: LiveRun) -> dict[str, float]:
    return {**spent(live.family()), "client": time.process_time()}


def spent(family: Sequence[psutil.Process]) -> dict[str, float]:
    """CPU-seconds so far by part: the class of an actor, or the name of a program."""
    used = defaultdict[str, float](float)
    for process in family:
        try:
            title, times = (process.cmdline() or [""])[0], process.cpu_times()
        except psutil.Error:  # the process has ended
            continue
        used[named(title)] += times.user + times.system
    return used


def named(title: str) -> str:
    """`ray::FeedbackDesk.feedback` -> `FeedbackDesk`; for other programs the name of the file."""
    if title.startswith("ray::"):
        return title.removeprefix("ray::").partition(".")[0].partition(":")[0]
    return title.split(" ")[0].rpartition("/")[2]
