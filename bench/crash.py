"""Does killing any process at any moment lose acknowledged data, and how do users notice it?

A run with two policy replicas learns under a load of questions and votes. Again and again a random process gets
SIGKILL: store, buffer, collector, trainer, evaluator, versions, feedback, admin, a policy replica, an engine, and
sometimes all at once. The run must recover before the next kill. At the end the store is compared with the
acknowledgements that clients got.

`lost`: acknowledged votes and feedback that are not on disk at the end, and outcomes of prompts that this process had
read from the run's disk before (`samples_acknowledged`, each a prompt with all its samples). `votes_doubled`: votes
that count more than once, among them `votes_sent_again`. `duplicated`: explored prompts in more than one window.
`unpromoted_answers`: answers by a version before its promotion. `stale_answers`: answers by a version that was replaced
more than STALE_S before the request.

Users ask on whatever is dead, and retry as the OpenAI SDK does. `cut`: requests whose answer broke after its first
token. `refused`: requests without a token, with all retries. `retried`: requests that needed a retry, whatever their
end. `by_victim` has each of them for the time from one kill to the next.

`recovery_s`: time until every part answers, every replica serves the wanted version, and users get answers.
`without_service_s`: the longest time meanwhile in which no user had a whole answer. Each kill is recorded in --out, so
the drill can be interrupted.
"""

import argparse
import asyncio
import json
import math
import random
import sys
import time
from collections.abc import Hashable, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from actors.replay.resettling import votes_of_people
from bench._clients import CLIENTS, Answered, ClientLog, Load, recovered
from bench._live import SETTINGS, LiveRun, drill_arguments
from core.messages import BASE
from core.store.facts import PromptVoted
from core.store.writer import RunReader

PARTS = {
    "store": "ray::Store",
    "buffer": "ray::Buffer",
    "collector": "ray::Collector",
    "trainer": "ray::Trainer",
    "evaluator": "ray::Evaluator",
    "versions": "ray::Versions",
    "feedback": "ray::FeedbackDesk",
    "admin": "ray::Admin",
    "replica": "ray::ServeReplica",
    "engine": "VLLM::EngineCore",
}
EVERYTHING = "everything"
HOW = ("answered", "cut", "refused", "retried")
EVERYTHING_RATIO = 0.03
STALE_S = 10.0
"""Replicas do not swap at the same moment."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--only", default=",".join(PARTS), help="victims, comma-separated; besides all at once")
    drill_arguments(parser, "runs/bench-crash")


def run(options: argparse.Namespace) -> dict[str, Any]:
    return asyncio.run(drill(options, 4 if options.quick else options.kills))


async def drill(options: argparse.Namespace, wanted: int) -> dict[str, Any]:
    victims = [name for name in PARTS if name in options.only.split(",")]
    live = LiveRun(options, SETTINGS)
    log = live.folder / "kills.jsonl"
    kills = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    rng = random.Random(f"{options.seed}:{len(kills)}")
    limits = httpx.Limits(max_connections=4 * CLIENTS)
    async with httpx.AsyncClient(timeout=60, trust_env=False, limits=limits) as client:
        load = Load(live, client)
        await live.up()
        load.start()
        try:
            await recovered(load)
            while len(kills) < wanted:
                await asyncio.sleep(rng.uniform(1, 6))
                kills.append(await kill_one(live, load, rng, victims))
                with log.open("a") as file:
                    file.write(json.dumps(kills[-1]) + "\n")
                load.log.save()
                print(kills[-1], file=sys.stderr, flush=True)
        finally:
            await load.stop()
            await live.stop()
    return account(live.dir, load.log, kills)


async def kill_one(live: LiveRun, load: Load, rng: random.Random, victims: Sequence[str]) -> dict[str, Any]:
    victim = EVERYTHING if rng.random() < EVERYTHING_RATIO else rng.choice(victims)
    load.killed, killed_at = victim, time.time()
    if victim == EVERYTHING:
        await live.kill()
        await live.up()
    else:
        title = PARTS[victim]
        await live.until(f"a {victim}", lambda: bool(live.processes(title)))
        before = {process.pid for process in live.processes(title)}
        killed_at = time.time()
        rng.choice(live.processes(title)).kill()
        await live.until(f"a new {victim}", lambda: bool({p.pid for p in live.processes(title)} - before))
    await live.until("an answer", lambda: bool(load.ends_after(killed_at)))
    await recovered(load)
    now = time.time()
    found = {
        "recovery_s": now - killed_at,
        "without_service_s": longest_gap([killed_at, *load.ends_after(killed_at), now]),
    }
    return {"victim": victim, **{name: round(seconds, 2) for name, seconds in found.items()}}


def longest_gap(times: Sequence[float]) -> float:
    return max(later - earlier for earlier, later in pairwise(times))


def account(run_dir: Path, log: ClientLog, kills: list[dict[str, Any]]) -> dict[str, Any]:
    """Compares the store with the replies that clients got."""
    with closing(RunReader(run_dir)) as reader:
        lost = {name: len(ids - set(reader.ids(name))) for name, ids in acknowledged(log).items()}
        places = [place for window in reader.windows().values() for place in window]
        since, twice, versions = served_since(reader), doubled(reader), len(reader.versions())
    recovery, service = ([kill[name] for kill in kills] for name in ("recovery_s", "without_service_s"))
    return {
        "kills": len(kills),
        "lost": sum(lost.values()),
        "lost_by": lost,
        "duplicated": len(places) - len(set(places)),
        "unpromoted_answers": sum(not promoted(answer, since) for answer in log.answers),
        "stale_answers": sum(stale(answer, since) for answer in log.answers),
        "recovery_s_p50": float(np.percentile(recovery, 50)),
        "recovery_s_p99": float(np.percentile(recovery, 99)),
        "without_service_s_p50": float(np.percentile(service, 50)),
        "without_service_s_p99": float(np.percentile(service, 99)),
        "without_service_s_sum": round(sum(service), 2),
        "requests": log.requests,
        **{how: log.ended(how) for how in HOW},
        "failed_attempts": dict(log.failed_attempts),
        "votes_sent_again": len(log.sent_again),
        "votes_sent_again_that_were_stored": len(log.met_twice),
        "votes_doubled": twice,
        "votes_acknowledged": len(log.votes),
        "feedback_acknowledged": len(log.feedback),
        "samples_acknowledged": len(log.outcomes),
        "versions_learned": versions,
        "by_victim": {victim: figures for victim in (*PARTS, EVERYTHING) if (figures := of(victim, kills, log))},
    }


def doubled(reader: RunReader, *, liked_once: bool = True) -> int:
    """Votes of people that count more than once: the same id twice in a prompt's ballot, or more votes in the buffer's
    count of a prompt than its ballot has. `liked_once`: nobody voted twice on one answer, so that this counts too."""
    found = 0
    for prompt, voted in reader.read_all(PromptVoted).items():
        ballot = votes_of_people(reader, prompt)
        found += repeated([vote.id for vote in ballot]) + max(0, voted.kept - sum(vote.counted for vote in ballot))
        if liked_once:
            found += repeated([(vote.voter, vote.response_id) for vote in ballot if vote.response_id])
    return found


def repeated(names: Sequence[Hashable]) -> int:
    return len(names) - len(set(names))


def acknowledged(log: ClientLog) -> dict[str, set[str]]:
    """Acknowledged ids by table."""
    return {"votes": log.votes, "feedback": log.feedback, "outcomes": log.outcomes}


def served_since(reader: RunReader) -> list[tuple[float, int]]:
    """From the run's events: times and the version to serve from then on, oldest first."""
    since = [(0.0, BASE.version)]
    for event in reader.events("decided", "rolled_back"):
        if event.kind == "rolled_back":
            since.append((event.at, event.detail["serve"]))
        elif event.detail["verdict"] == "promote":
            since.append((event.at, event.detail["version"]))
    return since


def promoted(answer: Answered, since: Sequence[tuple[float, int]]) -> bool:
    """Whether the answer came from a version that was promoted before it."""
    return any(at <= answer.at and version == answer.version for at, version in since)


def stale(answer: Answered, since: Sequence[tuple[float, int]]) -> bool:
    """Whether its version was the served one at no time between STALE_S before the request and the answer."""
    until = [at for at, _ in since[1:]] + [math.inf]
    spans = [(begin, end) for (begin, version), end in zip(since, until, strict=True) if version == answer.version]
    return promoted(answer, since) and not any(
        begin <= answer.at and answer.asked_at - STALE_S <= end for begin, end in spans
    )


def of(victim: str, kills: list[dict[str, Any]], log: ClientLog) -> dict[str, float]:
    mine = [kill for kill in kills if kill["victim"] == victim]
    if not mine:
        return {}
    seconds = {name: [kill[name] for kill in mine] for name in ("recovery_s", "without_service_s")}
    return {
        "kills": len(mine),
        **{f"{name}_median": float(np.median(found)) for name, found in seconds.items()},
        **{f"{name}_max": max(found) for name, found in seconds.items()},
        **{how: log.ends[victim][how] for how in HOW},
    }
