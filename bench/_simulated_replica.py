"""A replica with a simulated engine, and its handle for collectors. It imports little, as there may be 64 of it."""

import asyncio
import random
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from actors.runtime.ports import ReplicaPort
from actors.runtime.rpc import remote
from core.artifacts import verify
from core.codec import decode, decode_batch, encode_batch, pack_ids
from core.messages import BASE, Candidate, PolicyRef, Prompt, ReplicaReport, Sampling

TEXT_CHARS, TOKENS, CONTEXT_TOKENS = 600, 100, 30
"""Sizes of a candidate: 1 kB with its token ids."""
BAKED = 256


class SimulatedReplica:
    """Has a number of seats and a fixed latency, and follows the desired state of the versions actor. A version is
    proven when the digests of its files are correct."""

    def __init__(self, name: str, namespace: str, seats: int, latency_s: float) -> None:
        self._name = name
        self._versions = remote(ReplicaPort, "versions", namespace, part="replicas")
        self._seats = asyncio.Semaphore(seats)
        self._latency_s = latency_s
        self._explore = BASE
        self._proven: dict[PolicyRef, None] = {BASE: None}
        chance = random.Random(0)
        letters = [chr(97 + i) for i in range(26)]
        self._texts = [
            "".join(chance.choices(letters, k=TEXT_CHARS)) + f" The answer is {chance.randrange(3)}."
            for _ in range(BAKED)
        ]
        self._ids = [pack_ids(chance.choices(range(30_000), k=TOKENS - 1)) for _ in range(BAKED)]
        self._context = pack_ids(chance.choices(range(30_000), k=CONTEXT_TOKENS))
        self._next = 0
        self._following: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._following = asyncio.create_task(self._follow())

    async def generate(self, prompts: bytes, sampling: bytes, ref: str | None) -> list[bytes]:
        want = decode(Sampling, sampling)
        asked = decode_batch(Prompt, prompts)
        version = PolicyRef.parse(ref) if ref else self._explore
        return list(await asyncio.gather(*(self._answer(prompt, want, version) for prompt in asked)))

    async def proven(self) -> int:
        """The newest version that this replica has proven."""
        return max(ref.version for ref in self._proven)

    async def _answer(self, prompt: Prompt, want: Sampling, version: PolicyRef) -> bytes:
        async with self._seats:  # one seat answers a whole prompt with its n candidates
            await asyncio.sleep(self._latency_s)
        name = uuid.uuid4().hex
        return encode_batch([self._candidate(f"{name}-{index}", version) for index in range(want.n)])

    def _candidate(self, id: str, version: PolicyRef) -> Candidate:
        self._next += 1
        baked = self._next % BAKED
        return Candidate.model_construct(  # no validation, because engines are not measured
            id=id,
            start=version,
            end=version,
            context_ids=self._context,
            completion_ids=self._next.to_bytes(4, "little") + self._ids[baked],  # unique, so that a window keeps all
            text=self._texts[baked],
            finish="stop",
            render_id="simulated",
        )

    async def _follow(self) -> None:
        epoch = -1
        while True:
            slots = await self._versions.desired(epoch, 2.0)
            epoch, self._explore = slots.epoch, slots.explore
            for published in slots.loaded:
                if published.ref not in self._proven:
                    await asyncio.to_thread(verify, Path(published.path))
                    self._proven[published.ref] = None
            wanted = {BASE, *(published.ref for published in slots.loaded)}
            self._proven = {ref: None for ref in self._proven if ref in wanted}
            report = ReplicaReport(
                replica=self._name, epoch=epoch, serving=slots.serve, proven=tuple(sorted(self._proven, key=_number))
            )
            await self._versions.report(report)


class Plain:
    """The part of a Serve handle that `serve.replica.client.ServedPolicy` uses, over plain actors. Picks the replica
    with the fewest calls from this process, at random among equals."""

    def __init__(self, replicas: Sequence[Any]) -> None:
        self._replicas = list(replicas)
        self._busy = [0] * len(self._replicas)

    @property
    def generate(self) -> "Plain":
        return self

    async def remote(self, *arguments: object) -> Any:
        place = min(range(len(self._busy)), key=lambda at: (self._busy[at], random.random()))
        self._busy[place] += 1
        try:
            return await self._replicas[place].generate.remote(*arguments)
        finally:
            self._busy[place] -= 1


def _number(ref: PolicyRef) -> int:
    return ref.version
