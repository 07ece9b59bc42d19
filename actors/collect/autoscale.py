"""How many collectors there are: as many as find seats. Replicas are Ray Serve's to scale, by requests under way."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from core.config import Config

log = logging.getLogger("ratchet.scaling")

SPARE = 0.25
"""Part of the seats that has to be free for another collector."""
BUSY = 0.9
"""A collector that has less than this part of its prompts under way waits for leases; another would too."""
LOOKS = 5
"""In a row that have to agree, a second apart."""
LEAVE_S = 180.0
"""For what a collector has under way before it is removed."""


@dataclass(frozen=True)
class Seats:
    """Of all replicas together, for background work now."""

    limit: float
    held: float
    waiting: float

    @classmethod
    def of(cls, replicas: Sequence[Mapping[str, Any]]) -> "Seats":
        def total(name: str) -> float:
            return sum(replica.get(name, 0.0) for replica in replicas)

        return cls(total("background_limit"), total("background"), total("background_waiting"))


def step(seats: Seats, in_flight: Sequence[int], each: int, n: int, least: int, most: int) -> int:
    """1: one collector more, -1: one less, 0: as it is. `in_flight`: prompts that each collector has under way, `each`
    the most it may have, `n` samples a prompt.

    One more while seats are free, nobody waits and no collector is short of leases; one less while so many samples
    wait that the seats would stay taken without it."""
    count = len(in_flight)
    if count < least:
        return 1
    if count > most or (count > least and seats.limit > 0 and seats.waiting >= each * n + seats.limit):
        return -1
    free = seats.limit - seats.held
    all_busy = all(under_way >= BUSY * each for under_way in in_flight)
    return 1 if count < most and all_busy and seats.waiting == 0 and free >= max(n, SPARE * seats.limit) else 0


class Parts(Protocol):
    """Who makes and ends them: actors.runtime.supervisor.Lifecycle in earnest."""

    async def add_collector(self, index: int) -> None: ...
    async def remove_collector(self, index: int, leave_s: float) -> None: ...


class Scaling:
    """Give it every status; one collector comes or goes at a time."""

    def __init__(self, config: Config, parts: Parts) -> None:
        self._config = config
        self._parts = parts
        self._agreed = 0
        self._moving: asyncio.Task[None] | None = None

    async def look(self, status: Mapping[str, Any]) -> None:
        """Raises: what kept a collector from starting."""
        most = self._config.collect.max_collectors
        collectors = [part for name, part in status.items() if name.startswith("collector")]
        if most is None or "versions" not in status or not self._settled():
            return
        config, replicas = self._config, list(status["versions"].get("replicas", {}).values())
        in_flight = [int(part.get("in_flight", 0)) for part in collectors]
        least, each, n = config.collect.collectors, config.collect.in_flight, config.method.sampler.n
        wanted = step(Seats.of(replicas), in_flight, each, n, least, most)
        self._agreed = self._agreed + wanted if self._agreed * wanted >= 0 and wanted else 0
        if abs(self._agreed) >= LOOKS:
            self._agreed = 0
            self._moving = asyncio.create_task(self._move(len(collectors), wanted))

    async def stop(self) -> None:
        if self._moving is not None:
            self._moving.cancel()
            await asyncio.gather(self._moving, return_exceptions=True)

    def _settled(self) -> bool:
        if self._moving is not None and not self._moving.done():
            return False
        moved, self._moving = self._moving, None
        if moved is not None:
            moved.result()
        return True

    async def _move(self, count: int, by: int) -> None:
        log.info("%d collectors, now %d", count, count + by)
        if by > 0:
            await self._parts.add_collector(count)
        else:
            await self._parts.remove_collector(count - 1, LEAVE_S)
