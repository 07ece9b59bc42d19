"""Versions move between the nodes of one cluster. Only the head sees the run directory.

Simple actors replace the replicas and the trainer; store, versions and transfer are real. The nodes share one kernel,
so a mount can hide the run directory, and one network address.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import cloudpickle

from actors.runtime.niceness import hosted
from actors.runtime.ports import LearningPort, StorePort, TrainerPort, WindowPort
from actors.runtime.rpc import remote
from actors.storage.store import Store
from actors.train.remote_node import RemoteNode
from actors.versions.versions import Versions
from bench._nodes import Nodes
from core.artifacts import appearing, digest_file, verify
from core.errors import ArtifactError, Unavailable
from core.messages import BASE, PolicyRef, Published
from core.metrics import Metrics
from core.proxy import proxy
from serve.replica.actor_call import ActorCall
from serve.weights.transfer import CHUNK_BYTES, FilesPort, VersionFiles, WeightsTransfer

pytestmark = pytest.mark.real
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # no node can import this module
NAMESPACE = "ratchet-transfer"
LARGE = 6 * CHUNK_BYTES + 1
PATIENCE_S = 240


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    cluster = Nodes(tmp_path_factory.mktemp("transfer"))
    try:
        try:
            for name in ("b", "c", "d"):
                cluster.join(name)
        except PermissionError as error:
            pytest.skip(str(error))
        cluster.connect(NAMESPACE)
        yield cluster
    finally:
        cluster.close()


def written(folder: Path, version: int, body: bytes) -> Published:
    path = folder / "versions" / f"v{version:04d}"
    fingerprint = f"print-{version}"
    manifest = {
        "ref": str(PolicyRef(version=version)),
        "parent": str(BASE),
        "window": version,
        "fingerprint": fingerprint,
        "stats": {},
    }
    with appearing(path, manifest) as aside:
        (aside / "adapter_model.safetensors").write_bytes(body)
        (aside / "adapter_config.json").write_text("{}")
    return Published(
        ref=PolicyRef(version=version), path=str(path), parent=BASE, window=version, fingerprint=fingerprint
    )


def on(node: str, kind: type, *arguments: Any, **options: Any) -> Any:
    return ray.remote(kind).options(num_cpus=0, resources={node: 1}, **options).remote(*arguments)


class Files(VersionFiles):
    """The actor that has the files. It counts the chunks and the bytes put into the object store."""

    def __init__(self) -> None:
        self._asked = self._put_bytes = 0

    async def read_chunk(self, folder: str, name: str, start: int, length: int) -> list[Any]:
        self._asked += 1
        return await super().read_chunk(folder, name, start, length)

    def _put(self, file: Path, start: int, length: int) -> Any:
        self._put_bytes += min(length, file.stat().st_size - start)
        return super()._put(file, start, length)

    async def invoke(self, _: str, method: str, *arguments: Any) -> Any:
        return await getattr(self, method)(*arguments)

    async def counts(self) -> dict[str, int]:
        return {"asked": self._asked, "put_bytes": self._put_bytes, "held": len(self._chunks)}


class Replica:
    """The part of a replica that fetches a version. `source`: the actor that has the files."""

    def __init__(self, source: str) -> None:
        self._transfer = WeightsTransfer(proxy(FilesPort, ActorCall(NAMESPACE, source, "files")), NAMESPACE)
        self._failed = 0

    async def sees(self, path: str) -> bool:
        return Path(path).exists()

    async def failed(self) -> int:
        return self._failed

    async def hold(self, published: Published) -> str:
        while True:
            try:
                there = await self._transfer.here(published)
            except Unavailable:
                self._failed += 1
                await asyncio.sleep(0.5)
            else:
                verify(Path(there.path))
                return there.path


class Writer:
    """Writes a version on a trainer's node. The head does not see these files."""

    def write(self, folder: str, version: int, size: int) -> Published:
        return written(Path(folder), version, b"w" * size)


class Learner:
    """The trainer on a remote node: writes versions to its run directory and uses a real `RemoteNode`."""

    def __init__(self, run_dir: str) -> None:
        self.run_dir = Path(run_dir)
        self._versions = remote(TrainerPort, "versions", NAMESPACE, PATIENCE_S, "trainer")
        self.files = VersionFiles()
        files = remote(FilesPort, "versions", NAMESPACE, PATIENCE_S, "files")
        transfer = WeightsTransfer(files, NAMESPACE)
        self._remote_node = RemoteNode(self._versions, transfer, keep=2)

    async def start(self) -> str:
        self.run_dir = await self._remote_node.start() or self.run_dir
        base = self.run_dir / "versions" / "v0000"
        found = (
            Published(ref=BASE, path=str(base), parent=BASE, window=0, fingerprint="print-0")
            if base.exists()
            else written(self.run_dir, 0, b"")
        )
        await self._versions.found(found, self._remote_node.node)
        return str(self.run_dir)

    async def invoke(self, part: str, method: str, *arguments: Any) -> Any:
        return await getattr(getattr(self, part), method)(*arguments)

    async def learn(self) -> int:
        parent = await self._versions.parent()
        await self._remote_node.fetch({parent.ref.version})
        verify(self.run_dir / "versions" / f"v{parent.ref.version:04d}")
        ref = await self._versions.take_ref()
        made = written(self.run_dir, ref.version, bytes([ref.version]) * 1000)
        await self._versions.propose(made, self._remote_node.node)
        await self._remote_node.prune()
        return ref.version

    async def folders(self) -> list[str]:
        return sorted(child.name for child in (self.run_dir / "versions").iterdir())


def get(reference: Any) -> Any:
    return ray.get(reference, timeout=PATIENCE_S)


def within(seconds: float, come_true: Callable[[], bool], what: str) -> None:
    stop_at = time.monotonic() + seconds
    while not come_true():
        assert time.monotonic() < stop_at, f"{what} within {seconds:.0f} s"
        time.sleep(0.02)


def test_a_version_is_put_once_for_all_replicas_of_all_nodes(nodes: Nodes) -> None:
    version = written(nodes.run / "loose", 11, b"w" * 1000)
    files = on("head", Files, name="files-11")
    at_home, *away = [on(node, Replica, "files-11") for node in ("head", "b", "b", "b", "c", "c")]
    assert get([each.sees.remote(version.path) for each in (at_home, *away)]) == [True] + [False] * 5

    assert get(at_home.hold.remote(version)) == version.path
    assert get(files.counts.remote())["asked"] == 0, "a node that has the path must not ask for chunks"

    paths = get([each.hold.remote(version) for each in away])
    assert paths[0].startswith(str(nodes.cache("b"))) and paths[3].startswith(str(nodes.cache("c")))
    assert len(set(paths[:3])) == len(set(paths[3:])) == 1
    on_disk = sum(file.stat().st_size for file in Path(version.path).iterdir())
    assert get(files.counts.remote())["put_bytes"] == on_disk, "the files must be put once, not once per replica"
    within(30, lambda: get(files.counts.remote())["held"] == 0, "the object store was not freed")


def test_a_version_that_is_damaged_at_its_source_is_refused_as_such(nodes: Nodes) -> None:
    version = written(nodes.run / "loose", 12, b"w" * 1000)
    (Path(version.path) / "adapter_config.json").write_text("{ }")
    files, away = on("head", Files, name="files-12"), on("b", Replica, "files-12")
    with pytest.raises(ArtifactError, match="has digest"):
        get(away.hold.remote(version))
    del files


def begun(nodes: Nodes, version: str) -> bool:
    return any(file.stat().st_size for file in nodes.cache("b").glob(f"**/.{version}*/*.safetensors"))


def test_an_actor_that_dies_in_the_middle_and_is_started_again_gives_the_rest(nodes: Nodes) -> None:
    version = written(nodes.run / "loose", 13, b"w" * LARGE)
    files = on("head", Files, name="files-13", max_restarts=-1)
    away = on("b", Replica, "files-13")
    coming = away.hold.remote(version)
    within(PATIENCE_S, lambda: begun(nodes, "v0013"), "the first chunk did not arrive")
    ray.kill(files, no_restart=False)
    path = get(coming)
    assert get(away.failed.remote()) >= 1, "the actor was not killed during the transfer"
    assert digest_file(Path(path) / "adapter_model.safetensors") == digest_file(
        Path(version.path) / "adapter_model.safetensors"
    )
    assert not any(nodes.cache("b").glob("**/.v0013*")), "partial files were not removed"


def test_a_node_that_dies_in_the_middle_is_waited_for_until_another_has_the_files(nodes: Nodes) -> None:
    dying, away = on("d", Files, name="files-14"), on("b", Replica, "files-14")
    writer = on("d", Writer)
    version = get(writer.write.remote(str(nodes.run / "loose"), 14, LARGE))
    assert not Path(version.path).exists()
    coming = away.hold.remote(version)
    within(PATIENCE_S, lambda: begun(nodes, "v0014"), "no chunk arrived")
    nodes.kill("d")
    within(PATIENCE_S, lambda: get(away.failed.remote()) > 0, "the node's death was not noticed")
    del dying
    written(nodes.run / "loose", 14, b"w" * LARGE)
    files = on("head", Files, name="files-14", get_if_exists=True)
    path = get(coming)
    verify(Path(path))
    assert not any(nodes.cache("b").glob("**/.v0014*"))
    del files


async def test_what_a_trainer_elsewhere_makes_is_on_the_heads_disk_before_anybody_hears_of_it(nodes: Nodes) -> None:
    store = on("head", hosted(Store, gives_way=False), str(nodes.run), name="store")
    await store.start.remote()
    committing = store.run.remote()
    kept = remote(StorePort, "store", NAMESPACE, PATIENCE_S)
    windows = remote(WindowPort, "buffer", NAMESPACE, PATIENCE_S, "windows")
    learning = remote(LearningPort, "buffer", NAMESPACE, PATIENCE_S, "learning")
    files = remote(FilesPort, "trainer", NAMESPACE, PATIENCE_S, "files")
    versions: Any = (
        ray.remote(hosted(Versions, gives_way=False))
        .options(name="versions", num_cpus=0, resources={"head": 1})
        .remote(str(nodes.run), kept, windows, learning, Metrics(), transfer=WeightsTransfer(files, NAMESPACE))
    )
    await versions.start.remote()

    trainer = on("c", Learner, str(nodes.run), name="trainer")
    folder = await _soon(trainer.start.remote)
    assert folder.startswith(str(nodes.cache("c")))
    verify(nodes.run / "versions" / "v0000")
    for number in (1, 2, 3, 4):
        assert await _soon(trainer.learn.remote) == number
        verify(nodes.run / "versions" / f"v{number:04d}")
    assert await trainer.folders.remote() == ["v0000", "v0003", "v0004"]

    slots = await versions.invoke.remote("replicas", "desired", -1, 0.0)
    assert {Path(each.path).parent.parent for each in slots.loaded} == {nodes.run}
    replica = on("b", Replica, "versions")
    path = await _soon(lambda: replica.hold.remote(slots.loaded[-1]))
    assert path.startswith(str(nodes.cache("b")))

    ray.kill(trainer)
    await asyncio.to_thread(within, PATIENCE_S, _is_free, "the dead trainer kept its name")
    moved = on("b", Learner, str(nodes.run), name="trainer")
    assert (await _soon(moved.start.remote)).startswith(str(nodes.cache("b")))
    assert await _soon(moved.learn.remote) == 5
    assert await moved.folders.remote() == ["v0000", "v0004", "v0005"]
    assert (await versions.invoke.remote("trainer", "parent")).path == str(nodes.run / "versions" / "v0005")
    del committing


async def _soon(ask: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(PATIENCE_S):
        return await ask()


def _is_free() -> bool:
    try:
        ray.get_actor("trainer", NAMESPACE)
    except ValueError:
        return True
    return False
