"""A trainer on another node than the run directory: its room writes into a folder of that node, and what it goes on
from comes from the run directory. What it writes is brought there when it is proposed (`actors.versions`)."""

import asyncio
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from actors.runtime.ports import TrainerPort
from core.artifacts import vanish
from serve.weights.transfer import Travel


class Room(Protocol):
    run_dir: Path


class Abroad:
    def __init__(self, travel: Travel, versions: TrainerPort, keep: int) -> None:
        """`keep`: how many versions besides the base stay on the trainer's node."""
        self._travel = travel
        self._versions = versions
        self._keep = keep
        self._home = ""
        self._folder: Path | None = None
        """The room's versions, when they are not those of the run directory."""

    @property
    def node(self) -> str:
        return self._travel.node

    async def settle(self, room: Room) -> None:
        """Find out where the run directory is; on another node, the room goes on from the run's base, and from
        nothing that an earlier trainer, or an earlier run of this name, left there."""
        self._home = await self._versions.node()
        if self._home in ("", self.node):
            return
        room.run_dir = self._travel.folder / "trainer"
        self._folder = room.run_dir / "versions"
        await asyncio.to_thread(shutil.rmtree, room.run_dir, ignore_errors=True)
        await self.fetch({0})

    async def fetch(self, versions: Iterable[int]) -> None:
        """The folders of these versions, as far as they are kept anywhere. Raises: Unavailable; ArtifactError."""
        if self._folder is None:
            return
        for version in {0, *versions}:
            published = await self._versions.described(version)
            if published is not None:
                await self._travel.bring(published, self._home, self._folder / Path(published.path).name)

    async def tidy(self) -> None:
        """Throw away all but the base and the newest: the run directory has every one of them."""
        if self._folder is not None:
            await asyncio.to_thread(self._prune, self._folder)

    def _prune(self, folder: Path) -> None:
        os.utime(self._travel.folder)
        written = sorted((child for child in folder.glob("v[0-9]*")), key=lambda child: int(child.name[1:]))
        for old in written[1 : -self._keep]:
            vanish(old)


class AtHome:
    """Without Ray there is one node."""

    node = ""

    async def settle(self, room: Room) -> None: ...
    async def fetch(self, versions: Iterable[int]) -> None: ...
    async def tidy(self) -> None: ...
