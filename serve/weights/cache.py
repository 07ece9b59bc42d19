"""Copies of folders that lie on other nodes, as this node keeps them. No Ray: where they come from is a protocol.

A copy stands here whole or not at all, and is made once however many processes of this node ask for it at the same
time: the first fetches, the others wait for a file lock, which ends with the process that held it.
"""

import asyncio
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, TypeVar

from core.artifacts import MANIFEST, read_manifest, sweep, vanish, verify, whole
from core.clock import Clock, SystemClock
from core.errors import ArtifactError, Unavailable
from core.messages import Published

T = TypeVar("T")

PART_BYTES = 64 * 2**20
"""What travels at once; two of them are in memory. Small enough for any object store."""
GRACE_S = 600.0
"""A copy that nobody wants any more is kept for so long: a replica may still drain it, or go back to it."""
FORGET_S = 7 * 86400.0
"""Copies of another run are removed when that run has asked for none for so long."""
LOCK_WAIT_S = 600.0
LOOK_S = 0.1
LOCK = "lock"


class Contents(NamedTuple):
    """A folder as its node describes it."""

    manifest: bytes
    sizes: dict[str, int]
    """Bytes of every file that the manifest lists."""


class Source(Protocol):
    """A folder on another node. All raise Unavailable when it is out of reach, ArtifactError when it is damaged."""

    async def contents(self) -> Contents: ...

    async def part(self, name: str, start: int, length: int) -> Any:
        """So many bytes of a file, or what there is of them, as a buffer."""
        ...

    async def check(self) -> None:
        """Compare every file with its digest, over there."""
        ...


def holds(path: Path, fingerprint: str) -> bool:
    """Whether the artifact lies at that path. Reads the manifest only: whoever opens the files verifies them."""
    try:
        return read_manifest(path).get("fingerprint") == fingerprint
    except ArtifactError:
        return False


class Shelf:
    """The copies of one run on this node, each under a name that its manifest's digest is part of."""

    def __init__(self, root: Path, clock: Clock | None = None, part_bytes: int = PART_BYTES) -> None:
        self._root = root
        self._clock = clock or SystemClock()
        self._part_bytes = part_bytes

    async def take(self, published: Published, source: Source, wanted: Sequence[Published] = ()) -> Path:
        """The version's copy, fetched if need be; others are thrown away unless they are `wanted` or were a moment ago.

        Raises: Unavailable when it cannot be fetched now; ArtifactError when the source is damaged; OSError."""
        contents = await source.contents()
        path = self._root / f"{_prefix(published)}-{hashlib.sha256(contents.manifest).hexdigest()[:12]}"
        if await asyncio.to_thread(self._is_whole, path):
            return path
        async with self._alone():
            await asyncio.to_thread(self._prune, {_prefix(each) for each in (published, *wanted)})
            if not await asyncio.to_thread(self._is_whole, path):
                await asyncio.to_thread(vanish, path)
                async with in_thread(whole(path, synced=False)) as aside:
                    await copy(source, contents, aside, self._part_bytes)
                await asyncio.to_thread(self._touch, path)
        return path

    def _is_whole(self, path: Path) -> bool:
        """Never trusted for standing there: it was not synced when it was made."""
        try:
            self._touch(path)
            verify(path)
        except (FileNotFoundError, ArtifactError):
            return False
        return True

    def _touch(self, path: Path) -> None:
        now = self._clock.now()
        os.utime(path, (now, now))
        os.utime(self._root.parent, (now, now))

    def _prune(self, wanted: Collection[str]) -> None:
        sweep(self._root)
        for copied in [child for child in self._root.iterdir() if child.is_dir()]:
            if copied.name.rpartition("-")[0] in wanted:
                self._touch(copied)
            elif self._age_s(copied) > GRACE_S:
                vanish(copied)
        runs = self._root.parent.parent
        for run in [child for child in runs.iterdir() if child.is_dir() and child != self._root.parent]:
            if self._age_s(run) > FORGET_S:
                shutil.rmtree(run, ignore_errors=True)

    def _age_s(self, path: Path) -> float:
        with suppress(FileNotFoundError):
            return self._clock.now() - path.stat().st_mtime
        return 0.0

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """No other process of this node fetches or throws away meanwhile."""
        await asyncio.to_thread(self._root.mkdir, mode=0o700, parents=True, exist_ok=True)
        with (self._root / LOCK).open("a") as lock:
            await _locked(lock)
            try:
                yield
            finally:
                fcntl.flock(lock, fcntl.LOCK_UN)


async def copy(source: Source, contents: Contents, to: Path, part_bytes: int = PART_BYTES) -> None:
    """Fill an empty folder, and compare every file with its digest.

    Raises: ArtifactError when the source is damaged; Unavailable when it is not, and what arrived is."""
    parts = [
        (n, start, part_bytes) for n, size in contents.sizes.items() for start in range(0, max(1, size), part_bytes)
    ]
    ahead = [asyncio.ensure_future(source.part(*part)) for part in parts[:1]]
    try:
        for (name, *_), then in zip(parts, [*parts[1:], None], strict=False):  # the base has no files
            arrived = await ahead.pop()
            if then is not None:
                ahead.append(asyncio.ensure_future(source.part(*then)))
            await asyncio.to_thread(_append, to / name, arrived)
    finally:
        for part in ahead:
            part.cancel()
        await asyncio.gather(*ahead, return_exceptions=True)
    await asyncio.to_thread((to / MANIFEST).write_bytes, contents.manifest)
    try:
        await asyncio.to_thread(verify, to)
    except ArtifactError as error:
        await source.check()
        raise Unavailable(
            f"{error}. It is whole where it came from: it was damaged on the way; fetch it again"
        ) from None


@asynccontextmanager
async def in_thread(context: AbstractContextManager[T]) -> AsyncIterator[T]:
    """A context whose entering and leaving block, for instance because they sync."""
    entered = await asyncio.to_thread(context.__enter__)
    try:
        yield entered
    except BaseException as error:
        await asyncio.to_thread(context.__exit__, type(error), error, error.__traceback__)
        raise
    await asyncio.to_thread(context.__exit__, None, None, None)


def contents_of(folder: Path) -> Contents:
    """Raises: ArtifactError when the manifest, or a file that it lists, is missing."""
    listed = read_manifest(folder)["files"]
    try:
        return Contents((folder / MANIFEST).read_bytes(), {name: (folder / name).stat().st_size for name in listed})
    except OSError as error:
        raise ArtifactError(f"{folder} is damaged ({error}); restore it or remove it") from None


def _prefix(published: Published) -> str:
    return f"v{published.ref.version:04d}-{hashlib.sha256(published.fingerprint.encode()).hexdigest()[:12]}"


def _append(file: Path, part: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab") as stream:
        stream.write(part)


async def _locked(lock: IO[Any]) -> None:
    """Looks again and again: a thread that waited in the kernel could not be given up. Raises: Unavailable."""
    stop_at = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > stop_at:
                raise Unavailable(f"{lock.name} was held for {LOCK_WAIT_S:.0f} s by another replica's fetch") from None
        await asyncio.sleep(LOOK_S)
