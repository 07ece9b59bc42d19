"""Replicas that reach a desired state, and updates that are broken in every way: all end on the same old version."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from actors.runtime.rpc import local
from actors.storage.store import Store
from actors.versions.versions import Versions
from core.clock import ManualClock
from core.errors import ArtifactError, Unavailable
from core.messages import BASE, Decision, PolicyRef, Published, Slots
from core.metrics import Metrics
from core.store.facts import GateLedger
from core.store.writer import RunReader
from serve.replica.reconcile import Prover, Reconciler
from tests.pure.serve.replica.engines import FakeEngine, published


class Buffer:
    async def decided(self, *_: Any) -> None: ...


class Fleet:
    """The versions actor and so many replicas that follow it, one step at a time."""

    def __init__(self, folder: Path, versions: Versions, engines: Sequence[FakeEngine], clock: ManualClock) -> None:
        self.folder, self.versions, self.clock = folder, versions, clock
        self.base = published(0, folder)
        self.replicas = [self._replica(f"replica-{i}", engine) for i, engine in enumerate(engines)]

    def _replica(self, name: str, engine: FakeEngine) -> Reconciler:
        async def base() -> Published:
            return self.base

        return Reconciler(name, "any", engine, Prover(engine, base))

    async def look(self) -> None:
        for replica in self.replicas:
            report = await replica.apply(await self.versions.replicas.desired(10**6, 0.0))
            await self.versions.replicas.report(report)

    async def offer(self, version: int) -> None:
        ref = await self.versions.trainer.take_ref()
        assert ref.version == version
        await self.versions.trainer.propose(published(version, self.folder))
        await self.look()

    async def promote(self, version: int) -> None:
        champion = PolicyRef(version=(await self.versions.people.status())["slots"]["champion"])
        verdict = Decision(
            verdict="promote",
            candidate=PolicyRef(version=version),
            champion=champion,
            reason="better",
            probes=64,
            certified=False,
            new_champion=True,
        )
        await self.versions.gate.decide(verdict, GateLedger(weighed=version))
        await self.look()

    def serving(self) -> list[int]:
        return [replica.serving.version for replica in self.replicas]


@asynccontextmanager
async def fleet(folder: Path, *engines: FakeEngine) -> AsyncIterator[Fleet]:
    store = Store(str(folder))
    await store.start()
    committing = asyncio.create_task(store.run())
    clock, buffer = ManualClock(), cast(Any, Buffer())
    versions = Versions(str(folder), local(store), buffer, buffer, Metrics(), clock=clock)
    await versions.start()
    try:
        yield Fleet(folder, versions, engines, clock)
    finally:
        committing.cancel()
        await asyncio.gather(committing, return_exceptions=True)
        await store.stop()


async def test_every_replica_serves_what_all_have_proven(tmp_path: Path) -> None:
    async with fleet(tmp_path, FakeEngine(), FakeEngine(), FakeEngine()) as three:
        await three.offer(1)
        assert three.serving() == [0, 0, 0]
        await three.promote(1)
        assert three.serving() == [1, 1, 1]


@pytest.mark.parametrize("fault", ["bad file", "wrong shapes", "NaN", "failed proof", "nothing changed"])
@pytest.mark.parametrize("broken_replicas", [1, 3])
async def test_a_broken_update_ends_with_every_replica_on_the_same_old_version_and_says_why(
    tmp_path: Path, fault: str, broken_replicas: int
) -> None:
    engines = [FakeEngine(fault if i < broken_replicas else "") for i in range(3)]
    async with fleet(tmp_path, *engines) as three:
        await three.offer(1)
        await three.promote(1)
        await three.offer(2)
        await three.look()
        assert three.serving() == [1, 1, 1]
        status = await three.versions.people.status()
        assert status["states"]["2"] == "rejected"
        assert status["slots"]["explore"] == 1
        assert all(PolicyRef(version=2) not in engine.loaded() for engine in engines), "a mixed state is left"
    reader = RunReader(tmp_path)
    (event,) = reader.events("proof_failed")
    assert event.detail["version"] == 2
    words = {
        "bad file": "damaged",
        "wrong shapes": "size mismatch",
        "NaN": "not finite",
        "failed proof": "layers.0.q_proj",
        "nothing changed": "the swap did nothing",
    }
    assert words[fault] in event.detail["why"]


async def test_a_replica_that_joins_late_proves_what_is_served_before_it_reports_it(tmp_path: Path) -> None:
    async with fleet(tmp_path, FakeEngine()) as running:
        await running.offer(1)
        await running.promote(1)
        late = running._replica("late", FakeEngine())
        assert late.serving == BASE
        report = await late.apply(await running.versions.replicas.desired(10**6, 0.0))
        assert report.serving == PolicyRef(version=1)
        assert report.proven == (BASE, PolicyRef(version=1))


async def test_a_late_replica_that_cannot_prove_the_served_version_never_says_it_serves_it(tmp_path: Path) -> None:
    async with fleet(tmp_path, FakeEngine()) as running:
        await running.offer(1)
        await running.promote(1)
        late = running._replica("late", FakeEngine("failed proof", broken=1))
        report = await late.apply(await running.versions.replicas.desired(10**6, 0.0))
        assert report.serving == BASE  # what its health check refuses (serve.replica.deployment)
        assert "policy@v1" in report.failed


async def test_a_served_version_that_no_replica_can_prove_any_more_is_rolled_back(tmp_path: Path) -> None:
    """Its files rotted, say: restarting the only replica for ever would answer nobody."""
    async with fleet(tmp_path, FakeEngine()) as one:
        await one.offer(1)
        await one.promote(1)
        await one.offer(2)
        await one.promote(2)
        assert one.serving() == [2]
        one.clock.advance(60)  # the replica died, and its successor finds a damaged folder
        one.replicas = [one._replica("successor", FakeEngine("bad file"))]
        await one.look()
        status = await one.versions.people.status()
        assert status["slots"]["serve"] == 1
        await one.look()
        assert one.serving() == [1]
    (event,) = RunReader(tmp_path).events("rolled_back")
    assert (event.detail["version"], event.detail["by"]) == (2, "the replicas")
    assert "damaged" in event.detail["reason"]


async def test_a_version_that_is_not_here_yet_is_tried_again_and_staged_from_where_it_lies_then(tmp_path: Path) -> None:
    tried = 0

    async def locate(version: Published) -> Published:
        nonlocal tried
        tried += 1
        if tried == 1:
            raise Unavailable("the node that has it is away")
        return version.model_copy(update={"path": str(elsewhere)})

    engine = FakeEngine()
    base, version = published(0, tmp_path), published(1, tmp_path)
    elsewhere = Path(version.path).rename(tmp_path / "cache")
    replica = Reconciler("replica-0", "any", engine, Prover(engine, _said(base)), locate)
    wanted = Slots(epoch=1, explore=version.ref, loaded=(version,))
    report = await replica.apply(wanted)
    assert report.proven == (BASE,) and not report.failed
    report = await replica.apply(wanted)
    assert report.proven == (BASE, version.ref) and not report.failed


async def test_a_version_that_is_damaged_where_it_lies_is_reported(tmp_path: Path) -> None:
    async def locate(version: Published) -> Published:
        raise ArtifactError(f"{version.path}/weights has another digest; restore it")

    engine = FakeEngine()
    replica = Reconciler("replica-0", "any", engine, Prover(engine, _said(published(0, tmp_path))), locate)
    version = published(1, tmp_path)
    report = await replica.apply(Slots(epoch=1, explore=version.ref, loaded=(version,)))
    assert report.proven == (BASE,) and "another digest" in report.failed["policy@v1"]


def _said(base: Published) -> Callable[[], Awaitable[Published]]:
    async def described() -> Published:
        return base

    return described
