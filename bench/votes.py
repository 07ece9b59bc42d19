"""How many votes does the service take in durably: 50,000 by arrays, and single ones, while it learns?

Answers are asked first; then people vote on them over HTTP by `POST /v1/feedback`: arrays of 256 until `--votes` are
acknowledged, every tenth array sent twice, then single votes from `--clients` connections for `--seconds`. Afterwards
the run's own store is counted. The floor: 50,000 by arrays within a minute, all durable, none doubled, and 200 single
votes a second.
"""

import argparse
import asyncio
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import aiohttp
import httpx

from bench._live import LiveRun, drill_arguments
from core.store import RunReader

ARRAY = 256
ANSWERS = 64
POSTERS = 4
USERS = 1000
RESEND = 10
"""Every so-manieth array goes out twice."""


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
    live = LiveRun(options)
    await live.up()
    try:
        limits = httpx.Limits(max_connections=64)
        async with httpx.AsyncClient(base_url=live.url() or "", timeout=120, trust_env=False, limits=limits) as client:
            answers = await asyncio.gather(*(ask(client, number) for number in range(ANSWERS)))
            before = await tokens(client)
            arrays, array_s = await by_arrays(client, answers, options.votes)
            singles, single_s = await one_by_one(live.url() or "", answers, options.clients, options.seconds)
            learned = await tokens(client) - before
    finally:
        await live.stop()
    sent = [*arrays, *singles]
    with closing(RunReader(live.dir)) as reader:
        kept, said = reader.which("votes", sent), reader.which("feedback", sent)
        votes = [id for id in reader.ids("votes") if id.startswith("bench-")]
    return {
        "sent": len(sent),
        "durable": len(kept & said),
        "doubled": len(votes) - len(set(sent) & set(votes)),
        "array_votes_per_s": round(len(arrays) / array_s, 1),
        "array_s": round(array_s, 1),
        "single_votes_per_s": round(len(singles) / single_s, 1),
        "collector_tokens_meanwhile": learned,
    }


async def ask(client: httpx.AsyncClient, number: int) -> str:
    """The id of an answer. Questions differ, so that there is a ballot for each."""
    question = f"Tom has {number + 2} apples. He buys {number + 3} apples. How many apples does Tom have?"
    body = {"model": "policy", "messages": [{"role": "user", "content": question}], "max_tokens": 60}
    reply = await client.post("/v1/chat/completions", json=body)
    reply.raise_for_status()
    return str(reply.json()["id"])


async def tokens(client: httpx.AsyncClient) -> int:
    """That collectors have sampled so far: learning goes on."""
    return int((await client.get("/status")).json()["buffer"]["tokens"])


def vote(number: int, answers: Sequence[str]) -> dict[str, Any]:
    about = {"id": f"bench-{number}", "user": f"user-{number % USERS}"}
    return {**about, "response_id": answers[number % len(answers)], "binary": number % 3 > 0}


async def by_arrays(client: httpx.AsyncClient, answers: Sequence[str], wanted: int) -> tuple[list[str], float]:
    """Ids acknowledged, and seconds."""
    arrays = [[vote(n, answers) for n in range(at, min(at + ARRAY, wanted))] for at in range(0, wanted, ARRAY)]
    queue = [array for number, array in enumerate(arrays) for array in [array] * (1 + (number % RESEND == 0))]
    acknowledged: dict[str, None] = {}

    async def post_all() -> None:
        while queue:
            array = queue.pop(0)
            reply = await client.post("/v1/feedback", json=array)
            reply.raise_for_status()
            acknowledged.update(dict.fromkeys(result["id"] for result in reply.json()["results"]))

    started = time.monotonic()
    await asyncio.gather(*(post_all() for _ in range(POSTERS)))
    return list(acknowledged), time.monotonic() - started


async def one_by_one(url: str, answers: Sequence[str], clients: int, seconds: float) -> tuple[list[str], float]:
    """Ids acknowledged, and seconds. By aiohttp: 64 connections of httpx take more of the machine than the service."""
    acknowledged: list[str] = []
    started = time.monotonic()

    async def post_on(session: aiohttp.ClientSession, first: int) -> None:
        number = first
        while time.monotonic() - started < seconds:
            async with session.post("/v1/feedback", json=vote(number, answers)) as reply:
                reply.raise_for_status()
                acknowledged.append((await reply.json())["results"][0]["id"])
            number += clients

    async with aiohttp.ClientSession(url) as session:
        await asyncio.gather(*(post_on(session, 10**9 + index) for index in range(clients)))
    return acknowledged, time.monotonic() - started
