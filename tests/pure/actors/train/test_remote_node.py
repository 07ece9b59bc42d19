"""A trainer on another node: the run directory has a version before anybody is told, and the trainer its parent."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from actors.runtime.rpc import local
from actors.storage.store import Store
from actors.train.group import TrainGroup
from actors.train.remote_node import RemoteNode
from actors.train.trainer import Trainer
from actors.versions.versions import Versions
from core.artifacts import appearing, verify, whole
from core.errors import Unavailable, VersionError
from core.messages import BASE, PolicyRef, Published
from core.metrics import Metrics
from core.store.writer import RunReader
from serve.weights.transfer import holds


class FakeTransfer:
    """Nodes are names, and all folders are in reach. `away`: so many transfers fail."""

    def __init__(self, node: str, folder: Path, away: int = 0) -> None:
        self.node, self.folder, self.away = node, folder, away
        self.brought: list[str] = []

    async def bring(self, published: Published, to: Path) -> Published:
        if not holds(to, published.fingerprint):
            self.brought.append(to.name)
            if self.away:
                self.away -= 1
                raise Unavailable("the other node is away")
            with whole(to) as aside:
                shutil.copytree(published.path, aside, dirs_exist_ok=True)
        return published.model_copy(update={"path": str(to)})


class Buffer:
    async def decided(self, *_: Any) -> None: ...

    async def draw(self, *_: Any) -> None:
        """No window comes."""
        await asyncio.sleep(0.01)


@dataclass
class Room:
    run_dir: Path

    def write(self, version: int) -> Published:
        path = self.run_dir / "versions" / f"v{version:04d}"
        if not path.exists():
            with appearing(path, {"fingerprint": f"print-{version}"}) as aside:
                (aside / "weights").write_bytes(bytes([version]))
        ref = PolicyRef(version=version)
        return Published(ref=ref, path=str(path), parent=BASE, window=version, fingerprint=f"print-{version}")


@asynccontextmanager
async def versions_in(run_dir: Path, transfer: Any) -> AsyncIterator[Versions]:
    run_dir.mkdir()
    store = Store(str(run_dir))
    buffer: Any = Buffer()
    await store.start()
    committing = asyncio.create_task(store.run())
    versions = Versions(str(run_dir), local(store), buffer, buffer, Metrics(), transfer=transfer)
    await versions.start()
    try:
        yield versions
    finally:
        committing.cancel()
        await asyncio.gather(committing, return_exceptions=True)
        await store.stop()


async def trainer(versions: Versions, node: str, folder: Path, run_dir: Path, keep: int = 2) -> tuple[RemoteNode, Room]:
    transfer: Any = FakeTransfer(node, folder)
    remote_node = RemoteNode(local(versions.trainer), transfer, keep)
    session = Room(await remote_node.start() or run_dir)
    await versions.trainer.found(session.write(0), remote_node.node)
    return remote_node, session


async def test_on_one_node_nothing_is_copied_and_nothing_is_thrown_away(tmp_path: Path) -> None:
    home = FakeTransfer("head", tmp_path / "cache")
    async with versions_in(tmp_path / "run", home) as versions:
        remote_node, session = await trainer(versions, "head", tmp_path / "cache", tmp_path / "run", keep=1)
        for number in (1, 2, 3):
            await versions.trainer.take_ref()
            await versions.trainer.propose(session.write(number), remote_node.node)
            await remote_node.fetch({number})
            await remote_node.prune()
        assert session.run_dir == tmp_path / "run" and home.brought == []
        assert len(list((tmp_path / "run" / "versions").iterdir())) == 4


async def test_a_version_is_in_the_run_directory_before_anybody_is_told_of_it(tmp_path: Path) -> None:
    home = FakeTransfer("head", tmp_path / "head-cache", away=1)
    async with versions_in(tmp_path / "run", home) as versions:
        remote_node, session = await trainer_after_one_failure(versions, tmp_path)
        assert session.run_dir == tmp_path / "cache" / "trainer"
        await versions.trainer.take_ref()
        made = session.write(1)
        home.away = 1
        with pytest.raises(Unavailable):
            await versions.trainer.propose(made, remote_node.node)
        assert (await versions.replicas.desired(-1, 0.0)).loaded == ()
        await asyncio.gather(*(versions.trainer.propose(made, remote_node.node) for _ in range(3)))
        (told,) = (await versions.replicas.desired(-1, 0.0)).loaded
        assert told.path == str(tmp_path / "run" / "versions" / "v0001")
        verify(Path(told.path))
        reader = RunReader(tmp_path / "run")
        assert [each.path for each in reader.versions()] == [told.path]
        reader.close()
        assert home.brought.count("v0001") == 2, "one that failed, one for all that asked again"


async def trainer_after_one_failure(versions: Versions, tmp_path: Path) -> tuple[RemoteNode, Room]:
    with pytest.raises(Unavailable):
        await trainer(versions, "node-b", tmp_path / "cache", tmp_path / "run")
    return await trainer(versions, "node-b", tmp_path / "cache", tmp_path / "run")


async def test_a_trainer_that_starts_on_another_node_goes_on_from_what_the_run_has(tmp_path: Path) -> None:
    async with versions_in(tmp_path / "run", FakeTransfer("head", tmp_path / "head-cache")) as versions:
        remote_node, session = await trainer(versions, "node-b", tmp_path / "b", tmp_path / "run")
        for number in (1, 2, 3, 4):
            await versions.trainer.take_ref()
            await versions.trainer.propose(session.write(number), remote_node.node)
            await remote_node.prune()
        assert folders(session) == ["v0000", "v0003", "v0004"]

        left_by_an_earlier_run = Room(tmp_path / "c" / "trainer").write(4)
        (Path(left_by_an_earlier_run.path) / "weights").write_bytes(b"other")
        elsewhere, session = await trainer(versions, "node-c", tmp_path / "c", tmp_path / "run")
        assert folders(session) == ["v0000"]
        parent = await versions.trainer.parent()
        c: Any = elsewhere.transfer
        c.away = 1
        await elsewhere.fetch({parent.ref.version, 2, 77})
        assert folders(session) == ["v0000", "v0002", "v0004"], "77 is nobody's"
        verify(session.run_dir / "versions" / "v0004")
        shutil.rmtree(session.run_dir / "versions" / "v0004")
        c.away = 2
        with pytest.raises(Unavailable):
            await elsewhere.fetch({4})


async def test_the_base_of_a_run_is_not_made_again_elsewhere(tmp_path: Path) -> None:
    async with versions_in(tmp_path / "run", FakeTransfer("head", tmp_path / "head-cache")) as versions:
        await trainer(versions, "head", tmp_path / "a", tmp_path / "run")
        before = (tmp_path / "run" / "versions" / "v0000" / "manifest.json").read_bytes()
        _, session = await trainer(versions, "node-b", tmp_path / "b", tmp_path / "run")
        assert (session.run_dir / "versions" / "v0000" / "manifest.json").read_bytes() == before


async def test_a_trainer_writes_its_base_into_the_folder_of_its_node_and_the_run_gets_it(tmp_path: Path) -> None:
    class Loading(Room):
        def open(self) -> Published:
            return self.write(0)

    async with versions_in(tmp_path / "run", FakeTransfer("head", tmp_path / "head-cache")) as versions:
        transfer: Any = FakeTransfer("node-b", tmp_path / "b")
        session: Any = Loading(tmp_path / "run")
        buffer: Any = Buffer()
        asked = local(versions.trainer)
        remote_node = RemoteNode(asked, transfer)
        part = Trainer(session, buffer, buffer, buffer, asked, 1.0, Metrics(), remote_node=remote_node)
        running = asyncio.create_task(part.run())
        base = await versions.replicas.base(10.0)
        running.cancel()
        assert base.path == str(tmp_path / "run" / "versions" / "v0000")
        assert holds(tmp_path / "b" / "trainer" / "versions" / "v0000", "print-0")


async def test_what_is_pruned_is_described_to_nobody(tmp_path: Path) -> None:
    async with versions_in(tmp_path / "run", None) as versions:
        assert await versions.trainer.node() == "" and await versions.trainer.described(0) is None
        await versions.trainer.found(Room(tmp_path / "run").write(0))
        await versions.trainer.take_ref()
        made = Room(tmp_path / "run").write(1)
        await versions.trainer.propose(made)
        assert ((await versions.trainer.described(1)) or b"").path == made.path
        shutil.rmtree(made.path)
        assert await versions.trainer.described(1) is None
        with pytest.raises(VersionError, match="pruned"):
            await versions.people.promote(1, "me", "to see")


def test_a_group_of_workers_writes_where_its_trainer_is_told_to(tmp_path: Path) -> None:
    session: Any = Room(tmp_path / "run")
    TrainGroup(session, {}, gpu=False).run_dir = tmp_path / "trainer"
    assert session.run_dir == tmp_path / "trainer"


def folders(session: Room) -> list[str]:
    return sorted(child.name for child in (session.run_dir / "versions").iterdir())
