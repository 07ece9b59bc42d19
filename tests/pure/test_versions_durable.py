"""What replicas are told to serve is on disk before they are told."""

import asyncio
from pathlib import Path
from typing import Any

from actors.calls import LocalPeer
from actors.store import Store
from actors.versions import Versions
from core.codec import decode, encode
from core.messages import BASE, Decision, PolicyRef, Published, ReplicaReport, Slots
from core.metrics import Metrics


class Buffer:
    async def settle(self, *_: Any) -> None: ...


class Gate:
    """A store that takes its time when a test says so."""

    def __init__(self, store: Store) -> None:
        self._store = LocalPeer(store)
        self.open = asyncio.Event()
        self.open.set()

    async def call(self, method: str, *arguments: Any) -> Any:
        await self.open.wait()
        return await self._store.call(method, *arguments)


def published(version: int, folder: Path) -> Published:
    ref = PolicyRef(version=version)
    return Published(ref=ref, path=str(folder / f"v{version}"), parent=BASE, window=version, fingerprint=str(version))


def promotion(version: int) -> bytes:
    ref = PolicyRef(version=version)
    kept = Decision(verdict="promote", candidate=ref, champion=BASE, reason="better", probes=64, certified=False)
    return encode(kept)


async def test_a_promotion_is_desired_only_once_it_is_on_disk(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    await store.start()
    committing = asyncio.create_task(store.run())
    gate = Gate(store)
    versions = Versions(str(tmp_path), gate, LocalPeer(Buffer()), Metrics())
    await versions.start()
    ref = await versions.take_ref()
    await versions.propose(encode(published(ref.version, tmp_path)))
    report = ReplicaReport(replica="a", epoch=99, proven=(BASE, ref))
    await versions.report(report.model_dump_json())

    async def desired() -> Slots:
        return decode(Slots, await versions.desired(10**6, 0.01))

    before = await desired()
    gate.open.clear()
    deciding = asyncio.create_task(versions.decide(promotion(ref.version), {"weighed": 1}))
    await asyncio.sleep(0.05)
    assert (await desired()) == before, "a version is desired that a crash would forget"
    assert before.serve == BASE
    gate.open.set()
    await deciding
    after = await desired()
    assert after.serve == ref
    assert after.epoch > before.epoch
    committing.cancel()
    await asyncio.gather(committing, return_exceptions=True)
    await store.stop()
