"""The versions port for the trainer: it asks here for the version to continue from, and proposes new ones."""

import asyncio
from pathlib import Path

from actors.runtime.ports import TrainerPort
from actors.versions.pruning import Pruning
from actors.versions.register import Register
from core.messages import PolicyRef, Published
from core.store.facts import BaseFact
from core.store.records import event, message
from serve.weights.transfer import WeightsTransfer


class VersionsForTrainer(TrainerPort):
    def __init__(self, register: Register, pruning: Pruning, transfer: WeightsTransfer | None) -> None:
        self._register = register
        self._pruning = pruning
        self._transfer = transfer
        self._one_arrival = asyncio.Lock()

    async def node(self) -> str:
        return self._transfer.node if self._transfer is not None else ""

    async def found(self, base: Published, node: str = "") -> None:
        self._register.check_started()
        self._register.lineage.base = await self._at_home(base, node)
        await self._register.keep([BaseFact(**dict(self._register.lineage.base)).record()])

    async def parent(self) -> Published:
        self._register.check_started()
        return self._register.lineage.parent

    async def last_window(self) -> int:
        self._register.check_started()
        return max((published.window for published in self._register.lineage.published.values()), default=0)

    async def stands(self, version: int) -> bool:
        self._register.check_started()
        return version not in self._register.lineage.withdrawn

    async def learning_rate_scale(self) -> float:
        self._register.check_started()
        return self._register.lineage.learning_rate_scale(self._register.backoff)

    async def newest(self) -> int:
        self._register.check_started()
        return self._register.lineage.explore.version

    async def take_ref(self) -> PolicyRef:
        self._register.check_started()
        ref = self._register.lineage.take_ref()
        await self._register.keep()
        return ref

    async def described(self, version: int) -> Published | None:
        self._register.check_started()
        lineage = self._register.lineage
        if version == 0:
            return lineage.base
        if version not in lineage.published or self._pruning.is_pruned(version):
            return None
        return lineage.published[version]

    async def propose(self, published: Published, node: str = "") -> None:
        register = self._register
        register.check_started()
        if published.ref.version not in register.lineage.published:
            published = await self._at_home(published, node)
        if published.ref.version in register.lineage.published:
            return await register.decide()
        verdicts = register.lineage.propose(published)
        register.metrics.count("versions_published_total")
        about = {"version": published.ref.version, "window": published.window, **published.stats}
        records = [
            message("versions", str(published.ref), str(published.parent), published),
            event(register.clock.now(), "trainer", "published", **about),
        ]
        await register.decide(verdicts, records)

    async def _at_home(self, published: Published, node: str) -> Published:
        """The version with its files in the run directory, on disk before any other part learns of it."""
        if self._transfer is None or not node or node == self._transfer.node:
            return published
        to = (self._register.run_dir / "versions" / Path(published.path).name).absolute()
        async with self._one_arrival:
            return await self._transfer.bring(published, to)
