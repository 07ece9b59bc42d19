"""Lets the trainer run on another node than the run directory. The trainer writes versions into a folder of its own
node and fetches the versions that it needs. `actors.versions` copies proposed versions into the run directory."""

import asyncio
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from actors.runtime.ports import TrainerPort
from core.artifacts import vanish
from core.errors import Unavailable
from serve.weights.transfer import WeightsTransfer


@dataclass
class RemoteNode:
    """Does nothing on the run directory's node. `transfer`: None without Ray. `keep`: number of versions, besides the
    base, that stay in `folder` on the trainer's node."""

    versions: TrainerPort
    transfer: WeightsTransfer | None = None
    keep: int = 2
    folder: Path | None = None

    @property
    def node(self) -> str:
        return self.transfer.node if self.transfer is not None else ""

    async def start(self) -> Path | None:
        """On another node: create and return the folder that replaces the run directory, with the base in it and
        nothing of an earlier run. Else None."""
        if self.transfer is None or await self.versions.node() in ("", self.node):
            return None
        run_dir = self.transfer.folder / "trainer"
        await asyncio.to_thread(shutil.rmtree, run_dir, ignore_errors=True)
        self.folder = run_dir / "versions"
        await self.fetch({0})
        return run_dir

    async def fetch(self, versions: Iterable[int]) -> None:
        """Copy the base and these versions here, except pruned ones. Raises: Unavailable; ArtifactError;
        StorageFull."""
        if self.transfer is not None and self.folder is not None:
            for version in {0, *versions}:
                if (published := await self.versions.described(version)) is not None:
                    to = self.folder / Path(published.path).name
                    with suppress(Unavailable):  # versions died during the copy; the next call waits until it is back
                        await self.transfer.bring(published, to)
                    await self.transfer.bring(published, to)  # does nothing if the first call succeeded

    async def prune(self) -> None:
        """Delete all but the base and the newest versions here; the run directory has them all."""
        if self.folder is not None:
            for old in sorted(self.folder.glob("v[0-9]*"), key=lambda child: int(child.name[1:]))[1 : -self.keep]:
                await asyncio.to_thread(vanish, old)
