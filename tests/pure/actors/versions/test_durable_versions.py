"""What replicas are told to serve is on disk before they are told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from actors.runtime.ports import StorePort
from actors.runtime.rpc import LocalCall
from actors.storage.store import Store
from actors.versions.versions import Versions
from core.errors import StoreError
from core.messages import BASE, Decision, PolicyRef, Published, ReplicaReport, Slots
from core.metrics import Metrics
from core.proxy import proxy
from core.store.facts import GateLedger, LineageFact
from core.store.writer import RunReader


class Heard:
    """What the buffer was told."""

    def __init__(self) -> None:
        self.settled: list[int] = []

    async def decided(self, window: int, version: int, *_: Any) -> None:
        self.settled.append(version)


class Gate:
    """A store that takes its time, or refuses, when a test says so."""

    def __init__(self, store: Store) -> None:
        self._store = LocalCall(store)
        self.open = asyncio.Event()
        self.open.set()
        self.refusals = 0
        self.delays_s: list[float] = []

    async def __call__(self, method: str, *arguments: Any, **settings: Any) -> Any:
        await self.open.wait()
        if self.delays_s:
            await asyncio.sleep(self.delays_s.pop(0))
        if self.refusals:
            self.refusals -= 1
            raise StoreError("the disk is gone; nothing was written")
        return await self._store(method, *arguments, **settings)


def published(version: int, folder: Path) -> Published:
    ref = PolicyRef(version=version)
    return Published(ref=ref, path=str(folder / f"v{version}"), parent=BASE, window=version, fingerprint=str(version))


def promotion(version: int) -> Decision:
    ref = PolicyRef(version=version)
    return Decision(verdict="promote", candidate=ref, champion=BASE, reason="better", probes=64, certified=False)


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[Versions, Gate, Heard]]:
    store = Store(str(folder))
    await store.start()
    committing = asyncio.create_task(store.run())
    gate, heard = Gate(store), Heard()
    buffer: Any = heard
    versions = Versions(str(folder), proxy(StorePort, gate), buffer, buffer, Metrics())
    await versions.start()
    try:
        yield versions, gate, heard
    finally:
        committing.cancel()
        await asyncio.gather(committing, return_exceptions=True)
        await store.stop()


async def offered(versions: Versions, folder: Path) -> PolicyRef:
    """A version that its one replica has proven."""
    ref = await versions.trainer.take_ref()
    await versions.trainer.propose(published(ref.version, folder))
    await versions.replicas.report(ReplicaReport(replica="a", epoch=99, proven=(BASE, ref)))
    return ref


async def test_a_promotion_is_desired_only_once_it_is_on_disk(tmp_path: Path) -> None:
    async with running(tmp_path) as (versions, gate, _):
        ref = await offered(versions, tmp_path)

        async def desired() -> Slots:
            return await versions.replicas.desired(10**6, 0.01)

        before = await desired()
        gate.open.clear()
        deciding = asyncio.create_task(versions.gate.decide(promotion(ref.version), GateLedger(weighed=1)))
        await asyncio.sleep(0.05)
        assert (await desired()) == before, "a version is desired that a crash would forget"
        assert before.serve == BASE
        gate.open.set()
        await deciding
        after = await desired()
        assert after.serve == ref
        assert after.epoch > before.epoch


async def test_a_write_that_waits_for_room_does_not_overwrite_a_newer_lineage(tmp_path: Path) -> None:
    async with running(tmp_path) as (versions, gate, _):
        ref = await offered(versions, tmp_path)
        await versions.gate.decide(promotion(ref.version), GateLedger(weighed=1))
        gate.delays_s = [0.2, 0.0]  # the first to ask is the last to be let in
        early = asyncio.create_task(versions.trainer.take_ref())
        await asyncio.sleep(0.01)
        await versions.people.rollback(ref.version, "a person", "it is rude")
        await early
        snapshot = RunReader(tmp_path).read(LineageFact)
        assert snapshot is not None and snapshot.serve == 0
        assert snapshot.states[1] == "rolled_back"


async def test_what_the_store_refused_is_written_and_told_with_the_next(tmp_path: Path) -> None:
    async with running(tmp_path) as (versions, gate, heard):
        ref = await versions.trainer.take_ref()
        gate.refusals = 1
        with pytest.raises(StoreError):
            await versions.trainer.propose(published(ref.version, tmp_path))
        await versions.trainer.propose(published(ref.version, tmp_path))  # the trainer, started again
        assert [p.ref for p in RunReader(tmp_path).versions()] == [ref]
        await versions.replicas.report(ReplicaReport(replica="a", epoch=99, proven=(BASE, ref)))
        gate.refusals = 1
        with pytest.raises(StoreError):
            await versions.gate.decide(promotion(ref.version), GateLedger(weighed=1))
        assert heard.settled == []
        await versions.trainer.propose(published(ref.version, tmp_path))
        reader = RunReader(tmp_path)
        assert [d.candidate for d in reader.all("decisions", Decision)] == [ref]
        ledger = reader.read(GateLedger)
        assert ledger is not None and ledger.weighed == 1
        assert heard.settled == [ref.version]
