"""Do requests fail when a replica dies during a swap? 100 swaps under full load, with a kill in every tenth.

There are two policy replicas. 64 clients, more than both engines have seats, request streams of 100 tokens without end.
In every tenth swap one replica gets SIGKILL while the other stages. The next ten swaps begin when its successor serves.
`failed`: requests that failed before their first token. `truncated`: answers cut off by a replica that was not killed.
`cut_on_the_killed`: answers cut off with the replica that was.

The log-probabilities of every answer, cut ones included, name the versions that its tokens come from
(`bench/_token_versions.py`). `mixed`: answers with tokens of another version than their header says, answers by a
version older than the last swap that was complete at the request, and replicas that end on another version than the
rest. Whole models are swapped in place, so that an answer may go on with the next version: `moved_on` counts those,
which with adapters are mixed. `undecided`: answers that two versions explain about equally well, about which the tokens
say nothing.
"""

import argparse
import asyncio
import json
import random
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx
import psutil

from bench._token_versions import SWITCH_NATS, Floats, margin, named, scored
from bench.swap import CONFIGS, TOKENS, VERSIONS, service
from core.config import load
from core.messages import BASE, PolicyRef

CLIENTS = 64
REPLICAS = 2
JOIN_S = 180.0
BODY = {"model": "policy", "prompt": "Tom has 5 apples.\n", "max_tokens": TOKENS, "stream": True, "temperature": 1.0}
BODY |= {"ignore_eos": True, "logprobs": 0, "return_token_ids": True}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--swaps", type=int, default=100)
    parser.add_argument("--kind", choices=("lora", "full"), default="lora")
    parser.add_argument("--seed", type=int, default=0)


def run(options: argparse.Namespace) -> dict[str, Any]:
    return asyncio.run(Drill(10 if options.quick else options.swaps, options.seed).run(options.kind))


@dataclass
class Streamed:
    """One request. `complete` and `wanted`: the newest version on every replica when it was sent, and the newest that
    any replica may have had when it ended."""

    complete: int
    wanted: int = 0
    end: Literal["whole", "cut", "failed"] = "failed"
    why: str = ""
    version: int = 0
    """The version in its header."""
    replica: str = ""
    prompt_ids: list[int] = field(default_factory=list[int])
    ids: list[int] = field(default_factory=list[int])
    logprobs: list[float] = field(default_factory=list[float])


@dataclass
class Drill:
    swaps: int
    seed: int
    wanted: int = 0
    complete: int = 0
    """The newest version that every replica has reported."""
    killed: set[str] = field(default_factory=set[str])
    streams: list[Streamed] = field(default_factory=list[Streamed])

    async def run(self, kind: str) -> dict[str, Any]:
        rng = random.Random(self.seed)
        async with service(kind, f"serve.replicas={REPLICAS}") as (actor, url, versions):
            async with httpx.AsyncClient(
                base_url=url, timeout=120, trust_env=False, limits=httpx.Limits(max_connections=CLIENTS)
            ) as client:
                stop = asyncio.Event()
                clients = [asyncio.create_task(self._stream_forever(client, stop)) for _ in range(CLIENTS)]
                for number in range(1, self.swaps + 1):
                    self.wanted = number
                    like = versions[number % VERSIONS].model_copy(update={"ref": PolicyRef(version=number)})
                    swapping = asyncio.ensure_future(actor.serve.remote(like))
                    if number % 10 == 5:
                        await asyncio.sleep(rng.uniform(0, 0.1))
                        self._kill(rng)
                    await swapping
                    if number % 10 == 5:
                        await self._joined(actor)
                    self.complete = number
                    print(f"swap {number} of {self.swaps}", file=sys.stderr, flush=True)
                stop.set()
                await asyncio.gather(*clients)
            found = await actor.found.remote()
            answers = [each for each in self.streams if each.ids]
            scores = await asyncio.to_thread(
                scored,
                load(CONFIGS[kind]),
                Path(versions[0].path).parents[1],
                [BASE, *(version.ref for version in versions)],
                [([*each.prompt_ids, *each.ids], len(each.prompt_ids)) for each in answers],
            )
        serving = Counter(found["serving"].values())
        counts = account(self.streams, self.killed) | tokens_of(answers, scores, kind)
        return counts | {
            "mixed": counts["strangers"] + counts["outdated"] + len(serving) - 1,
            "swaps": self.swaps,
            "kills": len(self.killed),
            "replicas": sum(serving.values()),
            "unproven": len(found["failed"]),
        }

    def _kill(self, rng: random.Random) -> None:
        """Send SIGKILL to a random replica."""
        family = psutil.Process().children(recursive=True)
        victim = rng.choice([p for p in family if "ray::ServeReplica" in " ".join(p.cmdline())])
        self.killed.add(str(victim.pid))
        victim.kill()

    async def _joined(self, actor: Any) -> None:
        async with asyncio.timeout(JOIN_S):
            while len({_pid(replica) for replica in (await actor.found.remote())["serving"]} - self.killed) < REPLICAS:
                await asyncio.sleep(0.5)

    async def _stream_forever(self, client: httpx.AsyncClient, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self.stream_one(client)

    async def stream_one(self, client: httpx.AsyncClient) -> None:
        streamed = Streamed(self.complete)
        try:
            async with client.stream("POST", "/v1/completions", json=BODY) as reply:
                if reply.is_success:
                    streamed.replica = reply.headers["x-policy-replica"]
                    streamed.version = int(reply.headers["x-policy-version"])
                    await _read(reply, streamed)
                else:
                    streamed.why = f"status {reply.status_code}: {(await reply.aread())[:200]!r}"
        except httpx.HTTPError as error:
            where = "headers and no token" if streamed.replica else "no headers"
            streamed.why = type(error).__name__ if streamed.ids else f"{where}: {error!r}"
        streamed.wanted = self.wanted
        self.streams.append(streamed)


async def _read(reply: httpx.Response, streamed: Streamed) -> None:
    async for line in reply.aiter_lines():
        if not line.startswith("data: {"):
            continue
        for choice in json.loads(line[6:]).get("choices", ()):
            streamed.prompt_ids += choice.get("prompt_token_ids") or []
            streamed.ids += choice.get("token_ids") or []
            streamed.logprobs += (choice.get("logprobs") or {}).get("token_logprobs") or []
            if streamed.ids:
                streamed.end = "whole" if choice["finish_reason"] == "length" else "cut"


def account(streams: Sequence[Streamed], killed: set[str]) -> dict[str, Any]:
    ends = Counter(each.end for each in streams)
    cut_with_killed = sum(each.end == "cut" and _pid(each.replica) in killed for each in streams)
    return {
        "requests": len(streams),
        "whole": ends["whole"],
        "failed": ends["failed"],
        "truncated": ends["cut"] - cut_with_killed,
        "cut_on_the_killed": cut_with_killed,
        "outdated": sum(bool(each.replica) and not each.complete <= each.version <= each.wanted for each in streams),
        "why": dict(Counter(each.why for each in streams if each.why)),
    }


def tokens_of(answers: Sequence[Streamed], scores: Sequence[Mapping[int, Floats]], kind: str) -> dict[str, Any]:
    """Counts answers by the versions that their tokens come from; `scores` as of `bench._token_versions.scored`."""
    own, moved, strange = 0, 0, list[dict[str, Any]]()
    for each, by_version in zip(answers, scores, strict=True):
        names = named(each.logprobs, by_version, like(each.version))
        if names == [like(each.version)]:
            own += 1
        elif kind == "full" and went_on(names, each.version, each.wanted):
            moved += 1
        else:
            strange.append({"header": each.version, "tokens_of": names, "replica": each.replica})
    margins = [margin(each.logprobs, found) for each, found in zip(answers, scores, strict=True)]
    return {
        "of_their_version": own,
        "moved_on": moved,
        "strangers": len(strange),
        "first_strangers": strange[:5],
        "undecided": sum(nats < SWITCH_NATS for nats in margins),
    }


def like(version: int) -> int:
    """The trained version whose weights this one has; the drill serves VERSIONS of them again and again."""
    return 0 if version == 0 else version % VERSIONS + 1


def went_on(names: Sequence[int], version: int, wanted: int) -> bool:
    """Whether these are consecutive versions from `version` to `wanted`."""
    later = [like(number) for number in range(version, wanted + 1)]
    return any(later[at : at + len(names)] == list(names) for at in range(len(later)))


def _pid(replica: str) -> str:
    """The process id, which ends a replica's name."""
    return replica.rpartition(".")[2]
