"""The versions port for replicas: they pull the desired state, prove its versions, and report."""

import asyncio
import logging

from actors.runtime.ports import ReplicaPort
from actors.versions.register import Register
from actors.versions.replicas import Replicas
from core.errors import Overdue
from core.messages import PolicyRef, Published, ReplicaReport, Slots

log = logging.getLogger("ratchet.versions")

REPORT_WAIT_S = 5.0
"""After this time a replica continues without an answer, so that no replica waits for a store whose disk is full."""


class VersionsForReplicas(ReplicaPort):
    def __init__(self, register: Register, replicas: Replicas) -> None:
        self._register = register
        self._replicas = replicas
        self._considering: set[asyncio.Task[None]] = set()

    async def base(self, wait_s: float) -> Published:
        lineage = self._register.lineage
        if not await self._register.comes_true(lambda: lineage.base is not None, wait_s):
            raise Overdue(f"the trainer did not describe the base within {wait_s:.0f} s; see its log")
        assert lineage.base is not None
        return lineage.base

    async def desired(self, seen_epoch: int, wait_s: float) -> Slots:
        self._register.check_started()
        await self._register.comes_true(lambda: self._register.desired.epoch > seen_epoch, wait_s)
        return self._register.desired

    async def report(self, report: ReplicaReport) -> None:
        self._register.check_started()
        self._replicas.take(report)
        task = asyncio.create_task(self._consider())
        self._considering.add(task)
        task.add_done_callback(self._considered)
        done, _ = await asyncio.wait({task}, timeout=REPORT_WAIT_S)
        if done:
            task.result()

    async def trouble(self, replica: str, kind: str, why: str) -> None:
        await self._register.keep([self._register.event(kind, replica=replica, why=why)])

    def _considered(self, task: asyncio.Task[None]) -> None:
        self._considering.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a replica's report could not be processed: %r", task.exception())

    async def _consider(self) -> None:
        """Mark undecided versions as proven or failed; roll back a served version that no replica can serve."""
        register, lineage = self._register, self._register.lineage
        for version in lineage.undecided:
            ref = PolicyRef(version=version)
            why = self._replicas.why_failed(ref)
            if why is not None:
                await register.failed(version, why)
            elif self._replicas.all_hold(ref, lineage.epoch) and lineage.proven(version):
                await register.keep([register.event("proven", version=version, arrived=self._replicas.arrived(ref))])
        why = self._replicas.why_unservable(lineage.serve)
        if why is not None:  # also during a hold: otherwise users would get no answer at all
            await register.roll_back(lineage.serve.version, f"no replica can prove it: {why}", by="the replicas")
