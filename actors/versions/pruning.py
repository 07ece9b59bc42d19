"""Deletes version folders that are no longer needed."""

import asyncio
import logging
from pathlib import Path

from actors.versions.lineage import Lineage
from core.artifacts import vanish
from core.store.retention import prunable

log = logging.getLogger("ratchet.versions")


class Pruning:
    """`keep`: run.retention.versions."""

    def __init__(self, root: Path, lineage: Lineage, keep: int | None) -> None:
        self._root = root
        self._lineage = lineage
        self._keep = keep
        self._pruned: set[int] = set()

    def is_pruned(self, version: int) -> bool:
        """Whether the folder was deleted. Versions outside the run directory are never pruned."""
        folder = self._folder(version)
        elsewhere = Path(self._lineage.published[version].path).name != folder.name
        return version in self._pruned or (not elsewhere and not folder.is_dir())

    async def prune(self) -> list[int]:
        """Delete version folders that are no longer needed; returns the versions whose folders were deleted."""
        return [version for version in self._prunable() if await self._prune(version)]

    def _prunable(self) -> list[int]:
        lineage = self._lineage
        if self._keep is None or not lineage.published:
            return []
        slots = lineage.slots()
        used = [lineage.parent.ref, slots.serve, slots.champion, slots.explore, *slots.trial]
        waiting = {each.version for each in (lineage.waiting, lineage.due) if each is not None}
        needed = {*lineage.undecided, *lineage.reporting, *lineage.champions, *waiting, *(ref.version for ref in used)}
        needed |= {lineage.published[version].parent.version for version in lineage.undecided}
        decided = {v: state == "promoted" for v, state in lineage.states.items() if v not in lineage.undecided}
        return prunable(decided, needed, self._keep)

    async def _prune(self, version: int) -> bool:
        # it may have come into use since it was found prunable
        if version in self._pruned or version not in self._prunable() or self.is_pruned(version):
            return False
        self._pruned.add(version)
        try:
            await asyncio.to_thread(vanish, self._folder(version))
        except OSError as error:
            log.error("the folder of v%d cannot be pruned: %s", version, error)
            return False
        return True

    def _folder(self, version: int) -> Path:
        return self._root / f"v{version:04d}"
