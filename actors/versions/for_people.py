"""The versions port for people: the commands that change the served version by hand."""

from actors.runtime.ports import Moved, Released, Served, ServingPort
from actors.runtime.statuses import VersionsStatus
from actors.versions.pruning import Pruning
from actors.versions.register import Register
from actors.versions.replicas import Replicas
from actors.versions.status import versions_status
from core.errors import VersionError
from core.store.facts import Hold


class VersionsForPeople(ServingPort):
    def __init__(self, register: Register, replicas: Replicas, pruning: Pruning) -> None:
        self._register = register
        self._replicas = replicas
        self._pruning = pruning

    async def promote(self, version: int, by: str, why: str) -> Moved:
        register, lineage = self._register, self._register.lineage
        register.check_started()
        if version in lineage.published and self._pruning.is_pruned(version):
            raise VersionError(
                f"v{version} is pruned, its folder is deleted; restore a backup, or raise run.retention.versions"
            )
        before = lineage.serve.version
        verdicts = lineage.promote_by_hand(version, f"promoted by {by}: {why}")
        promoted = register.event("promoted_by_hand", version=version, before=before, by=by, reason=why)
        await register.decide(verdicts, [promoted])
        return {"serve": version, "before": before}

    async def rollback(self, version: int, by: str, why: str) -> Moved:
        self._register.check_started()
        if version == 0:
            raise VersionError("v0 is the base and cannot be rolled back; name a promoted version such as v3")
        before = self._serve
        await self._register.roll_back(version, why, by)
        return {"serve": self._serve, "before": before}

    async def hold(self, by: str, why: str) -> Served:
        register = self._register
        register.check_started()
        register.lineage.hold(Hold(by=by, why=why, at=register.clock.now()))
        await register.keep([register.event("serving_held", serve=self._serve, by=by, reason=why)])
        return {"serve": self._serve}

    async def release(self, by: str, why: str) -> Released:
        register = self._register
        register.check_started()
        verdicts, waiting, due = register.lineage.release()
        released = register.event("serving_released", serve=self._serve, by=by, reason=why)
        records = [released, register.account(register.ledger)]
        if due is not None:
            records.append(register.rolled_back(verdicts, due.why, "the watch"))
        await register.decide(verdicts, records)
        return {"serve": self._serve, "took_effect": waiting.version if waiting else None}

    async def forget_plateau(self) -> None:
        self._register.check_started()
        self._register.lineage.without_gain = 0
        self._register.lineage.rejections = 0
        await self._register.keep()

    async def status(self) -> VersionsStatus:
        return versions_status(self._register, self._replicas)

    @property
    def _serve(self) -> int:
        return self._register.lineage.serve.version
