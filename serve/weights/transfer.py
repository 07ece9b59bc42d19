"""Pruning from node to node, through Ray's object store. What lies at its path already does not travel.

On the node that has a folder, a depot reads it: an actor that is started when another node first asks, and that ends
with whoever started it. On the node that lacks it, whoever asks fetches, and leaves a copy for the others of its node
(`serve.weights.cache`).
"""

import asyncio
import os
import shutil
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from core.artifacts import verify, whole
from core.errors import ArtifactError, RatchetError, Unavailable
from core.messages import Published
from serve.weights.cache import Contents, Shelf, contents_of, copy, holds, in_thread

T = TypeVar("T")

CACHE = "RATCHET_CACHE"
ANSWER_S = 120.0
"""For one part, or one look through a folder, by a node that may be busy."""
PATIENCE_S = 15.0
RETRY_S = 0.5
HOLD_S = 10.0
"""A part stays in the object store for so long, for the nodes that ask next; while one reads it, anyhow."""
MOST_PARTS = 4


class Depot:
    """Reads what lies on its node. What several nodes ask at about the same time is put once, and Ray passes it on."""

    def __init__(self) -> None:
        self._parts: OrderedDict[tuple[str, str, int, int], asyncio.Future[Any]] = OrderedDict()
        self._counts = {"described": 0, "asked": 0, "put": 0, "put_bytes": 0}

    async def contents(self, folder: str) -> Contents:
        self._counts["described"] += 1
        return await asyncio.to_thread(contents_of, Path(folder))

    async def part(self, folder: str, name: str, start: int, length: int) -> list[Any]:
        """A reference to the bytes, uint8; in a list, or Ray would wait for them here."""
        self._counts["asked"] += 1
        key = (folder, name, start, length)
        if key not in self._parts:
            self._parts[key] = asyncio.ensure_future(asyncio.to_thread(self._put, Path(folder) / name, start, length))
            asyncio.get_running_loop().call_later(HOLD_S, self._parts.pop, key, None)
            while len(self._parts) > MOST_PARTS:
                self._parts.popitem(last=False)
        part = self._parts[key]
        try:
            return [await asyncio.shield(part)]
        except Exception:
            if self._parts.get(key) is part:
                del self._parts[key]
            raise

    async def check(self, folder: str) -> None:
        await asyncio.to_thread(verify, Path(folder))

    async def status(self) -> dict[str, int]:
        return {**self._counts, "held": len(self._parts)}

    def _put(self, file: Path, start: int, length: int) -> Any:
        try:
            read = np.fromfile(file, np.uint8, count=length, offset=start)
        except OSError as error:
            raise ArtifactError(f"{file} cannot be read ({error}); restore it or remove its folder") from None
        self._counts["put"] += 1
        self._counts["put_bytes"] += read.nbytes
        return ray.put(read)


class Distant:
    """A folder as its node's depot gives it (`serve.weights.cache.Source`)."""

    def __init__(self, depot: Any, folder: str) -> None:
        self._depot = depot
        self._folder = folder

    async def contents(self) -> Contents:
        return await _answer(self._depot.contents.remote(self._folder), self._folder)

    async def part(self, name: str, start: int, length: int) -> Any:
        (reference,) = await _answer(self._depot.part.remote(self._folder, name, start, length), self._folder)
        return await _answer(reference, self._folder)

    async def check(self) -> None:
        await _answer(self._depot.check.remote(self._folder), self._folder)


class Travel:
    """One process's way to the folders of a run, wherever they lie. It may be sent to another process."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._depots: dict[str, Any] = {}

    def __reduce__(self) -> tuple[type["Travel"], tuple[str]]:
        return Travel, (self._namespace,)

    @cached_property
    def node(self) -> str:
        return ray.get_runtime_context().get_node_id()

    @cached_property
    def folder(self) -> Path:
        """What this run may keep on this node, outside the run directory."""
        return cache() / self._namespace

    @cached_property
    def _shelf(self) -> Shelf:
        return Shelf(self.folder / "versions")

    async def here(
        self, published: Published, whence: Callable[[], Awaitable[str]], wanted: Sequence[Published] = ()
    ) -> Published:
        """The version with a path of this node. `whence` names the node where its own path holds, and is not asked
        when that is here. Raises: Unavailable for now; ArtifactError when it is damaged over there."""
        if await asyncio.to_thread(holds, Path(published.path), published.fingerprint):
            return published
        return await self._patiently(lambda: self._fetched(published, whence, wanted))

    async def bring(self, published: Published, node: str, to: Path) -> Published:
        """The version at `to`, on this node's disk when this returns.

        Raises: Unavailable; ArtifactError when it is damaged over there, or another one lies at `to`; StorageFull."""
        if not await asyncio.to_thread(holds, to, published.fingerprint):
            await self._patiently(lambda: self._brought(published, node, to))
        return published.model_copy(update={"path": str(to)})

    async def _fetched(
        self, published: Published, whence: Callable[[], Awaitable[str]], wanted: Sequence[Published]
    ) -> Published:
        node = await whence()
        if node == self.node:  # damaged or gone, and nowhere else: whoever opens it says which
            return published
        try:
            path = await self._shelf.take(published, await self._source(node, published.path), wanted)
        except OSError as error:  # of this node's cache, which says nothing about the version
            raise Unavailable(f"{published.ref} cannot be kept in {self.folder} ({error}); set {CACHE}") from None
        return published.model_copy(update={"path": str(path)})

    async def _brought(self, published: Published, node: str, to: Path) -> None:
        source = await self._source(node, published.path)
        contents = await source.contents()
        await asyncio.to_thread(_clear, to)
        async with in_thread(whole(to)) as aside:
            await copy(source, contents, aside)

    async def _source(self, node: str, folder: str) -> Distant:
        if node not in self._depots:
            try:
                self._depots[node] = await asyncio.to_thread(_depot, self._namespace, node)
            except (RayError, ValueError) as error:
                raise Unavailable(f"no depot can be reached on node {node} for {folder} ({error})") from None
        return Distant(self._depots[node], folder)

    async def _patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """A depot that ended with whoever started it is started again."""
        stop_at = time.monotonic() + PATIENCE_S
        while True:
            try:
                return await attempt()
            except Unavailable:
                self._depots.clear()
                if time.monotonic() > stop_at:
                    raise
            await asyncio.sleep(RETRY_S)


def cache() -> Path:
    """Where this node keeps copies: in $RATCHET_CACHE, or in the user's cache folder. All in there is ours."""
    given = os.environ.get(CACHE) or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(given).absolute() / "ratchet" / "travelled"


def _clear(to: Path) -> None:
    """What a process that died left aside; a version is brought by one process at a time."""
    for left in to.parent.glob(f".{to.name}.*"):
        shutil.rmtree(left, ignore_errors=True)


def _depot(namespace: str, node: str) -> Any:
    kind: Any = ray.remote(Depot)
    return kind.options(
        name=f"depot-{node}",
        namespace=namespace,
        get_if_exists=True,
        num_cpus=0,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
    ).remote()


async def _answer(reference: Any, folder: str) -> Any:
    try:
        async with asyncio.timeout(ANSWER_S):
            return await reference
    except RatchetError as error:
        raise getattr(error, "cause", error) from None  # without the stack of the depot
    except (RayError, ValueError, OSError) as error:
        raise Unavailable(f"the node that has {folder} is away ({type(error).__name__}: {error})") from None
