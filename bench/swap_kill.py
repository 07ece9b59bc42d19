"""Do requests fail when a replica dies during a swap? 100 swaps under full load, with a kill in every tenth.

There are two policy replicas. 64 clients, more than both engines have seats, request streams of 100 tokens without end.
In every tenth swap one replica gets SIGKILL while the other stages. The next ten swaps begin when its successor serves.
`failed`: requests that failed before their first token. `truncated`: answers cut off by a replica that was not killed.
`mixed`: replicas that end on another version than the rest, plus answers by a version older than the last swap that was
complete at the request.
"""

import argparse
import asyncio
import json
import random
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx
import psutil

from bench.swap import TOKENS, VERSIONS, service
from core.messages import PolicyRef

CLIENTS = 64
REPLICAS = 2
JOIN_S = 180.0


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--swaps", type=int, default=100)
    parser.add_argument("--kind", choices=("lora", "full"), default="lora")
    parser.add_argument("--seed", type=int, default=0)


def run(options: argparse.Namespace) -> dict[str, Any]:
    return asyncio.run(Drill(10 if options.quick else options.swaps, options.seed).run(options.kind))


@dataclass
class Drill:
    swaps: int
    seed: int
    wanted: int = 0
    complete: int = 0
    """The newest version that every replica has reported."""
    killed: set[str] = field(default_factory=set[str])
    seen: Counter[str] = field(default_factory=Counter[str])
    cut: Counter[str] = field(default_factory=Counter[str])
    """Replica -> its answers that were cut off."""
    alien: int = 0

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
        serving = Counter(found["serving"].values())
        return {
            "swaps": self.swaps,
            "kills": len(self.killed),
            "requests": sum(self.seen[outcome] for outcome in ("whole", "cut", "failed")),
            "failed": self.seen["failed"],
            "truncated": sum(n for replica, n in self.cut.items() if _pid(replica) not in self.killed),
            "cut_on_the_killed": sum(n for replica, n in self.cut.items() if _pid(replica) in self.killed),
            "mixed": self.alien + len(serving) - 1,
            "replicas": sum(serving.values()),
            "unproven": len(found["failed"]),
            "outcomes": dict(self.seen),
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
        body = {"model": "policy", "prompt": "Tom has 5 apples.\n", "max_tokens": TOKENS, "stream": True}
        body |= {"ignore_eos": True, "temperature": 1.0}
        while not stop.is_set():
            began, ended, replica, complete = False, False, "", self.complete
            try:
                async with client.stream("POST", "/v1/completions", json=body) as reply:
                    if not reply.is_success:
                        self.seen["failed"] += 1
                        self.seen[f"status {reply.status_code}: {(await reply.aread())[:200]!r}"] += 1
                        continue
                    replica = reply.headers["x-policy-replica"]
                    self.alien += not complete <= int(reply.headers["x-policy-version"]) <= self.wanted
                    async for line in reply.aiter_lines():
                        if line.startswith("data: {"):
                            began = True
                            ended = ended or json.loads(line[6:])["choices"][0]["finish_reason"] == "length"
            except httpx.HTTPError as error:
                self.seen[type(error).__name__] += 1
                if not began:
                    self.seen["failed"] += 1
                    self.seen[f"{'headers and no token' if replica else 'no headers'}: {error}"] += 1
                    continue
            self.seen["whole" if ended else "cut"] += 1
            if not ended:
                self.cut[replica] += 1


def _pid(replica: str) -> str:
    """The process id, which ends a replica's name."""
    return replica.rpartition(".")[2]
