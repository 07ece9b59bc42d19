"""Weights travel once a node: three nodes of one cluster, two of which cannot see the head's run directory.

Plain actors stand where replicas and trainer would; store, versions, and what travels are the real ones. The nodes
share one kernel, so that a mount can hide the run directory, and one network address."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import cloudpickle

from actors.runtime.rpc import RayPeer
from actors.storage.store import Store
from actors.train.remote_node import Abroad
from actors.versions.versions import Versions
from bench._nodes import Nodes
from core.artifacts import appearing, digest_file, verify
from core.codec import decode, encode
from core.errors import ArtifactError, Unavailable
from core.messages import BASE, PolicyRef, Published, Slots
from core.metrics import Metrics
from serve.weights.cache import PART_BYTES
from serve.weights.transfer import Travel

pytestmark = pytest.mark.real
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # which no node can import
NAMESPACE = "ratchet-travel"
LARGE = 2 * PART_BYTES + 1
PATIENCE_S = 240


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    cluster = Nodes(tmp_path_factory.mktemp("travel"))
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


class Where:
    """The node that has the files, as the versions actor names it."""

    def __init__(self) -> None:
        self._node, self._asked = "", 0

    def move(self, node: str) -> None:
        self._node = node

    def node(self) -> str:
        self._asked += 1
        return self._node

    def asked(self) -> int:
        return self._asked


class Replica:
    """What a replica does with a version until it has it."""

    def __init__(self, where: Any) -> None:
        self._where = where
        self._travel = Travel(NAMESPACE)
        self._tried = 0

    async def node(self) -> str:
        return self._travel.node

    async def sees(self, path: str) -> bool:
        return Path(path).exists()

    async def hold(self, published: Published) -> str:
        async def whence() -> str:
            return await self._where.node.remote()

        while True:
            try:
                there = await self._travel.here(published, whence)
            except Unavailable:
                await asyncio.sleep(0.5)
            else:
                verify(Path(there.path))
                return there.path


class Writer:
    """A trainer's node: what it writes, the head does not see."""

    def write(self, folder: str, version: int, size: int) -> Published:
        return written(Path(folder), version, b"w" * size)


class Learner:
    """The trainer's end: a room that writes where it is told to, and `Abroad` beside it."""

    def __init__(self, run_dir: str) -> None:
        self.run_dir = Path(run_dir)
        self._versions = RayPeer("versions", NAMESPACE, PATIENCE_S)
        self._abroad = Abroad(Travel(NAMESPACE), self._versions, keep=2)

    async def start(self) -> str:
        await self._abroad.settle(self)
        base = self.run_dir / "versions" / "v0000"
        found = (
            Published(ref=BASE, path=str(base), parent=BASE, window=0, fingerprint="print-0")
            if base.exists()
            else written(self.run_dir, 0, b"")
        )
        await self._versions.call("found", encode(found), self._abroad.node)
        return str(self.run_dir)

    async def learn(self) -> int:
        parent = decode(Published, await self._versions.call("parent"))
        await self._abroad.fetch({parent.ref.version})
        verify(self.run_dir / "versions" / f"v{parent.ref.version:04d}")
        ref = await self._versions.call("take_ref")
        made = written(self.run_dir, ref.version, bytes([ref.version]) * 1000)
        await self._versions.call("propose", encode(made), self._abroad.node)
        await self._abroad.tidy()
        return ref.version

    async def folders(self) -> list[str]:
        return sorted(child.name for child in (self.run_dir / "versions").iterdir())


def depot(replica: Any) -> Any:
    node = get(replica.node.remote())
    return ray.get_actor(f"depot-{node}", NAMESPACE)


def get(reference: Any) -> Any:
    return ray.get(reference, timeout=PATIENCE_S)


def within(seconds: float, come_true: Callable[[], bool], what: str) -> None:
    stop_at = time.monotonic() + seconds
    while not come_true():
        assert time.monotonic() < stop_at, f"{what} within {seconds:.0f} s"
        time.sleep(0.02)


def test_weights_travel_once_a_node_however_many_replicas_ask(nodes: Nodes) -> None:
    version = written(nodes.run / "loose", 11, b"w" * LARGE)
    where = on("head", Where)
    at_home, *away = [on(node, Replica, where) for node in ("head", "b", "b", "b", "c", "c")]
    get(where.move.remote(get(at_home.node.remote())))
    assert get([each.sees.remote(version.path) for each in (at_home, *away)]) == [True] + [False] * 5

    assert get(at_home.hold.remote(version)) == version.path
    assert get(where.asked.remote()) == 0, "where the path is, nobody is asked"

    paths = get([each.hold.remote(version) for each in away])
    assert paths[0].startswith(str(nodes.cache("b"))) and paths[3].startswith(str(nodes.cache("c")))
    assert len(set(paths[:3])) == len(set(paths[3:])) == 1
    counts = get(depot(at_home).status.remote())
    assert counts["asked"] == 2 * 4, "three parts of weights and a configuration, by two nodes"
    assert counts["put_bytes"] <= 2 * (LARGE + 2)
    within(30, lambda: get(depot(at_home).status.remote())["held"] == 0, "the object store was not freed")


def test_a_version_that_is_damaged_at_its_source_is_refused_as_such(nodes: Nodes) -> None:
    version = written(nodes.run / "loose", 12, b"w" * 1000)
    (Path(version.path) / "adapter_config.json").write_text("{ }")
    where = on("head", Where)
    at_home, away = (on(node, Replica, where) for node in ("head", "b"))
    get(where.move.remote(get(at_home.node.remote())))
    with pytest.raises(ArtifactError, match="has digest"):
        get(away.hold.remote(version))


def test_a_depot_that_dies_in_the_middle_is_started_again(nodes: Nodes) -> None:
    version = written(nodes.run / "loose", 13, b"w" * LARGE)
    where = on("head", Where)
    at_home, away = (on(node, Replica, where) for node in ("head", "b"))
    get(where.move.remote(get(at_home.node.remote())))
    coming = away.hold.remote(version)
    aside = nodes.cache("b")
    within(PATIENCE_S, lambda: any(aside.glob("**/.v0013*/*.safetensors")), "the first part did not arrive")
    ray.kill(depot(at_home))
    path = get(coming)
    assert digest_file(Path(path) / "adapter_model.safetensors") == digest_file(
        Path(version.path) / "adapter_model.safetensors"
    )
    assert not any(aside.glob("**/.v0013*")), "what had arrived until then is not used"


def test_a_node_that_dies_in_the_middle_is_waited_for_until_another_has_the_files(nodes: Nodes) -> None:
    where = on("head", Where)
    at_home, away, dying = (on(node, Replica, where) for node in ("head", "b", "d"))
    writer = on("d", Writer)
    version = get(writer.write.remote(str(nodes.run / "loose"), 14, LARGE))
    assert not Path(version.path).exists()
    get(where.move.remote(get(dying.node.remote())))
    coming = away.hold.remote(version)
    within(PATIENCE_S, lambda: any(nodes.cache("b").glob("**/.v0014*/*.safetensors")), "no part arrived")
    nodes.kill("d")
    written(nodes.run / "loose", 14, b"w" * LARGE)
    get(where.move.remote(get(at_home.node.remote())))
    path = get(coming)
    verify(Path(path))
    assert not any(nodes.cache("b").glob("**/.v0014*"))


async def test_what_a_trainer_elsewhere_makes_is_on_the_heads_disk_before_anybody_hears_of_it(nodes: Nodes) -> None:
    store = on("head", Store, str(nodes.run), name="store")
    await store.start.remote()
    committing = store.run.remote()
    peers = [RayPeer(name, NAMESPACE, PATIENCE_S) for name in ("store", "buffer")]
    versions: Any = (
        ray.remote(Versions)
        .options(name="versions", num_cpus=0, resources={"head": 1})
        .remote(str(nodes.run), *peers, Metrics(), travel=Travel(NAMESPACE))
    )
    await versions.start.remote()

    trainer = on("c", Learner, str(nodes.run))
    folder = await _soon(trainer.start.remote)
    assert folder.startswith(str(nodes.cache("c")))
    verify(nodes.run / "versions" / "v0000")
    for number in (1, 2, 3, 4):
        assert await _soon(trainer.learn.remote) == number
        verify(nodes.run / "versions" / f"v{number:04d}")
    assert await trainer.folders.remote() == ["v0000", "v0003", "v0004"]

    slots = decode(Slots, await versions.desired.remote(-1, 0.0))
    assert {Path(each.path).parent.parent for each in slots.loaded} == {nodes.run}
    replica = on("b", Replica, versions)
    path = await _soon(lambda: replica.hold.remote(slots.loaded[-1]))
    assert path.startswith(str(nodes.cache("b")))

    ray.kill(trainer)
    moved = on("b", Learner, str(nodes.run))
    assert (await _soon(moved.start.remote)).startswith(str(nodes.cache("b")))
    assert await _soon(moved.learn.remote) == 5
    assert await moved.folders.remote() == ["v0000", "v0004", "v0005"]
    assert decode(Published, await versions.parent.remote()).path == str(nodes.run / "versions" / "v0005")
    del committing


async def _soon(ask: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(PATIENCE_S):
        return await ask()
