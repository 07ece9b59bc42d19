"""Explores leased prompts, many at once, and streams what it found into the buffer."""

import asyncio
import time
from contextlib import suppress
from typing import Any

from actors.calls import Peer
from core.clock import Clock, SystemClock
from core.codec import decode, encode_batch
from core.config import Config
from core.errors import Overdue, RatchetError
from core.messages import Lease, Outcome
from core.protocols import Policy
from methods import prompts, recipes
from methods.explore import explore

LEASE_WAIT_S = 20.0
BATCH = 32
"""Outcomes of one delivery; what gathers while the last one is under way goes out together."""


class Collector:
    def __init__(self, buffer: Peer, config: Config, policy: Policy, clock: Clock | None = None) -> None:
        self._config = config
        self._policy = policy
        self._clock = clock or SystemClock()
        self._buffer = buffer
        self._method = recipes.build(config.method)
        self._outbox: asyncio.Queue[Outcome] = asyncio.Queue(maxsize=4 * BATCH)
        self._in_flight = 0
        self._room = asyncio.Condition()
        self._explored = 0
        self._idle_s = 0.0

    async def start(self) -> None:
        self._prompts = await asyncio.to_thread(prompts.read, self._config.prompts, self._config.run.seed)

    async def run(self) -> None:
        """Keep as many prompts in flight as the config allows and the buffer's leases cover."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._deliver_for_ever())
            while True:
                async with self._room:
                    await self._room.wait_for(lambda: self._free > 0)
                lease = await self._lease(self._free)
                if lease is None:
                    continue
                for place in lease.places:
                    self._in_flight += 1
                    tasks.create_task(self._explore(lease, place))

    async def stop(self) -> None: ...

    async def status(self) -> dict[str, Any]:
        return {
            "in_flight": self._in_flight,
            "explored": self._explored,
            "idle_s": self._idle_s,
            "tokens": dict(self._policy.tokens),
        }

    @property
    def _free(self) -> int:
        return self._config.collect.in_flight - self._in_flight

    async def _lease(self, wanted: int) -> Lease | None:
        asked = time.monotonic()
        body = await self._buffer.call("lease", wanted, LEASE_WAIT_S)
        if self._in_flight == 0:
            self._idle_s += time.monotonic() - asked
        return decode(Lease, body) if body is not None else None

    async def _explore(self, lease: Lease, place: int) -> None:
        """One place, from lease to outbox. A policy that is away makes it a failure, never the end of the collector."""
        started = time.monotonic()
        try:
            prompt = self._prompts[place]
            outcome = await explore(
                self._method, prompt, self._policy, lease_id=lease.id, place=place, clock=self._clock
            )
            await self._outbox.put(outcome)
            self._explored += 1
            await asyncio.sleep((time.monotonic() - started) * (1 / self._config.run.cpu_share - 1))
        except (RatchetError, OSError) as error:
            failure = f"{type(error).__name__}: {error}"
            await self._outbox.put(Outcome(lease_id=lease.id, place=place, prompt_id="", failure=failure))
        finally:
            self._in_flight -= 1
            async with self._room:
                self._room.notify_all()

    async def _deliver_for_ever(self) -> None:
        while True:
            batch = [await self._outbox.get()]
            while len(batch) < BATCH and not self._outbox.empty():
                batch.append(self._outbox.get_nowait())
            with suppress(Overdue):  # the lease expires and the prompts are explored again
                await self._buffer.call("deliver", encode_batch(batch))
