"""A trainer on another node than the run directory: it writes into a folder of its own node, and what it trains on
comes from the run directory. `actors.versions` brings there what it proposes."""

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
    """Does nothing on the run directory's own node. `transfer`: None without Ray. `keep`: so many versions besides the
    base stay on the trainer's node, in `folder`."""

    versions: TrainerPort
    transfer: WeightsTransfer | None = None
    keep: int = 2
    folder: Path | None = None

    @property
    def node(self) -> str:
        return self.transfer.node if self.transfer is not None else ""

    async def start(self) -> Path | None:
        """On another node: what takes the run directory's place, with the run's base and no file of an earlier one."""
        if self.transfer is None or await self.versions.node() in ("", self.node):
            return None
        run_dir = self.transfer.folder / "trainer"
        await asyncio.to_thread(shutil.rmtree, run_dir, ignore_errors=True)
        self.folder = run_dir / "versions"
        await self.fetch({0})
        return run_dir

    async def fetch(self, versions: Iterable[int]) -> None:
        """The base and these versions, unless they are pruned. Raises: Unavailable; ArtifactError; StorageFull."""
        if self.transfer is not None and self.folder is not None:
            for version in {0, *versions}:
                if (published := await self.versions.described(version)) is not None:
                    to = self.folder / Path(published.path).name
                    with suppress(Unavailable):  # versions ended in the middle; the next call waits until it is back
                        await self.transfer.bring(published, to)
                    await self.transfer.bring(published, to)  # which finds it there otherwise

    async def prune(self) -> None:
        """Remove all but the base and the newest: the run directory has every one of them."""
        if self.folder is not None:
            for old in sorted(self.folder.glob("v[0-9]*"), key=lambda child: int(child.name[1:]))[1 : -self.keep]:
                await asyncio.to_thread(vanish, old)
