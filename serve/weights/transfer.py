"""Copies the files of a version to a node without the run directory, through Ray's object store.

The actor that has the files puts them into the store, one chunk at a time (`VersionFiles`). The node that needs them
asks that actor for references and verifies the digest of every file (`WeightsTransfer`).
"""

import asyncio
import hashlib
import os
import time
from collections import OrderedDict
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import ray
from ray.exceptions import RayError

from core.artifacts import MANIFEST, read_manifest, sweep, sync, sync_tree, vanish, verify, whole
from core.errors import ArtifactError, Unavailable
from core.messages import Published

CACHE = "RATCHET_CACHE"
CHUNK_BYTES = 32 * 2**20
SHARED_CHUNKS, SHARE_S = 4, 5.0
"""At most SHARED_CHUNKS stay in the object store, for SHARE_S, for other nodes that ask for the same version."""
ANSWER_S = 120.0
GRACE_S, FORGET_S = 600.0, 7 * 86400.0
"""Time since the last use after which an unwanted copy is deleted, and after which a run's whole folder is."""


class FilesPort(Protocol):
    """The port of an actor that has version files on its node."""

    async def read_chunk(self, folder: str, name: str, start: int, length: int) -> list[Any]:
        """A reference to the bytes (uint8), in a list so that Ray does not resolve it. Fewer bytes: the file ends."""
        ...

    async def verify_files(self, folder: str, fingerprint: str) -> None:
        """Raises: ArtifactError when the version is damaged on its node."""
        ...


class VersionFiles(FilesPort):
    """Serves the version files of this node to other nodes."""

    put = staticmethod(ray.put)

    @cached_property
    def _chunks(self) -> OrderedDict[tuple[str, str, int], asyncio.Task[Any]]:
        return OrderedDict()

    async def read_chunk(self, folder: str, name: str, start: int, length: int) -> list[Any]:
        key = (folder, name, start)
        if key not in self._chunks:
            self._chunks[key] = asyncio.create_task(asyncio.to_thread(self._put, Path(folder) / name, start, length))
            asyncio.get_running_loop().call_later(SHARE_S, self._chunks.pop, key, None)
        reading = self._chunks[key]
        while len(self._chunks) > SHARED_CHUNKS:
            self._chunks.popitem(last=False)
        return [await asyncio.shield(reading)]

    async def verify_files(self, folder: str, fingerprint: str) -> None:
        await asyncio.to_thread(_require, Path(folder), fingerprint)

    def _put(self, file: Path, start: int, length: int) -> Any:
        try:
            return self.put(np.fromfile(file, np.uint8, count=length, offset=start))
        except OSError as error:
            raise ArtifactError(f"{file} cannot be read ({error}); restore it or remove its folder") from None


@dataclass(frozen=True)
class WeightsTransfer:
    """Copies versions from the node of one actor to this node."""

    source: FilesPort
    namespace: str
    chunk_bytes: int = CHUNK_BYTES

    @property
    def node(self) -> str:
        return ray.get_runtime_context().get_node_id()

    @property
    def folder(self) -> Path:
        """This run's folder on this node, outside the run directory: in $RATCHET_CACHE or the user's cache folder."""
        given = os.environ.get(CACHE) or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(given).absolute() / "ratchet" / "weights" / self.namespace

    async def here(self, published: Published, wanted: Iterable[Published] = ()) -> Published:
        """The version with a path on this node: its own path, or that of a copy. Copies outside `wanted` expire.

        Raises: Unavailable when it cannot be copied now; ArtifactError when it is damaged at its source."""
        if holds(Path(published.path), published.fingerprint):
            return published
        manifest = bytes(await self._read(published.path, MANIFEST, 0))
        copy = self.folder / "copies" / f"{_name(published)}-{hashlib.sha256(manifest).hexdigest()[:12]}"
        try:
            if not await asyncio.to_thread(_is_whole, copy):
                await asyncio.to_thread(vanish, copy)
                await asyncio.to_thread(self._prune, [published, *wanted])
                await self._copy(published, manifest, copy)
        except (OSError, ArtifactError) as error:
            if not await asyncio.to_thread(_is_whole, copy):  # unless another process of this node finished the copy
                if isinstance(error, ArtifactError):
                    raise
                raise Unavailable(f"{published.ref} cannot be kept in {self.folder} ({error}); set {CACHE}") from None
        return published.model_copy(update={"path": str(copy)})

    async def bring(self, published: Published, to: Path) -> Published:
        """Copy the version to `to` on this node's disk. Nothing else may write into the parent folder meanwhile.

        Raises: Unavailable; StorageFull; ArtifactError when the version is damaged at its source, or when `to` has
        another version."""
        if not holds(to, published.fingerprint):
            await asyncio.to_thread(sweep, to.parent)
            await self._copy(published, bytes(await self._read(published.path, MANIFEST, 0)), to)
        return published.model_copy(update={"path": str(to)})

    async def _copy(self, published: Published, manifest: bytes, to: Path) -> None:
        with whole(to, synced=False) as aside:  # a sync here would block the event loop; see below
            (aside / MANIFEST).write_bytes(manifest)
            try:
                for name in read_manifest(aside)["files"]:
                    await self._copy_file(published.path, name, aside / name)
                await asyncio.to_thread(_require, aside, published.fingerprint)
            except ArtifactError as error:
                with _away_is_unavailable(published.path):
                    await self.source.verify_files(published.path, published.fingerprint)
                raise Unavailable(f"{error}. The source is intact: it was damaged in transit; try again") from None
            await asyncio.to_thread(sync_tree, aside)
        await asyncio.to_thread(sync, to.parent)

    async def _copy_file(self, folder: str, name: str, to: Path) -> None:
        to.parent.mkdir(parents=True, exist_ok=True)
        with to.open("wb") as file:
            ends = False
            while not ends:
                chunk = await self._read(folder, name, file.tell())
                await asyncio.to_thread(file.write, chunk)
                ends = len(chunk) < self.chunk_bytes

    async def _read(self, folder: str, name: str, start: int) -> Any:
        with _away_is_unavailable(folder):
            (reference,) = await self.source.read_chunk(folder, name, start, self.chunk_bytes)
            async with asyncio.timeout(ANSWER_S):
                return await reference

    def _prune(self, wanted: list[Published]) -> None:
        copies = self.folder / "copies"
        copies.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # another process of this node prunes too
            for used in (self.folder, *(copy for each in wanted for copy in copies.glob(f"{_name(each)}-*"))):
                os.utime(used)
            limits = dict.fromkeys(copies.iterdir(), GRACE_S) | dict.fromkeys(self.folder.parent.iterdir(), FORGET_S)
            for folder, limit_s in limits.items():  # also partial copies of killed processes
                if time.time() - max(path.stat().st_mtime for path in (folder, *folder.rglob("*"))) > limit_s:
                    vanish(folder)


def holds(path: Path, fingerprint: str) -> bool:
    """Whether the path has this version. Reads only the manifest: the engine verifies the files when it opens them."""
    with suppress(ArtifactError):
        return read_manifest(path).get("fingerprint") == fingerprint
    return False


@contextmanager
def _away_is_unavailable(folder: str) -> Generator[None]:
    try:
        yield
    except (ArtifactError, Unavailable) as error:
        raise getattr(error, "cause", error) from None  # without the stack trace of the actor
    except (RayError, TimeoutError) as error:
        raise Unavailable(
            f"the node that has {folder} is unavailable ({type(error).__name__}: {error}); try again"
        ) from None


def _require(folder: Path, fingerprint: str) -> None:
    if (found := verify(folder).get("fingerprint")) != fingerprint:
        raise ArtifactError(f"{folder} has fingerprint {found}, expected {fingerprint}; restore it or remove it")


def _is_whole(copy: Path) -> bool:
    with suppress(FileNotFoundError, ArtifactError):
        os.utime(copy)
        return bool(verify(copy))
    return False


def _name(published: Published) -> str:
    return f"v{published.ref.version:04d}-{hashlib.sha256(published.fingerprint.encode()).hexdigest()[:12]}"
