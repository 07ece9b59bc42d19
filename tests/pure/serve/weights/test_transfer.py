"""Files of a version on another node: whole or not at all, verified, reused, removed when unwanted. Without Ray."""

import asyncio
import errno
import multiprocessing
import os
import signal
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray.exceptions import OwnerDiedError

from core.artifacts import MANIFEST, appearing, verify
from core.errors import ArtifactError, Overdue, StorageFull, Unavailable
from core.messages import BASE, PolicyRef, Published
from core.proxy import proxy
from serve.weights.transfer import FORGET_S, GRACE_S, SHARED_CHUNKS, FilesPort, VersionFiles, WeightsTransfer, holds


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RATCHET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "ratchet" / "weights"


def published(version: int, folder: Path, body: bytes = b"weights") -> Published:
    path = folder / "versions" / f"v{version:04d}"
    with appearing(path, {"fingerprint": f"print-{version}"}) as aside:
        (aside / "inner").mkdir()
        (aside / "inner" / "weights").write_bytes(body)
        (aside / "empty").write_bytes(b"")
    return Published(
        ref=PolicyRef(version=version), path=str(path), parent=BASE, window=version, fingerprint=f"print-{version}"
    )


class Reference:
    """What `ray.put` returns: awaiting it gives the bytes, or the fault."""

    def __init__(self, put: Any) -> None:
        self.put = put

    def __await__(self) -> Generator[Any, None, Any]:
        yield from asyncio.sleep(0).__await__()
        if isinstance(self.put, Exception):
            raise self.put
        return self.put


class Source(VersionFiles):
    """The actor on the other node. `faults`: instead of the bytes of a weights file, one after the other."""

    def __init__(self, *faults: Any) -> None:
        self.faults = list(faults)
        self.asked: list[tuple[str, int]] = []
        self.puts = 0

    def put(self, value: Any) -> Reference:  # type: ignore[override]
        self.puts += 1
        return Reference(value)

    async def ask(self, method: str, *arguments: Any) -> Any:
        if method == "read_chunk":
            self.asked.append(arguments[1:3])
            if self.faults and arguments[1] == "inner/weights":
                fault = self.faults.pop(0)
                if isinstance(fault, Overdue | Unavailable):
                    raise fault
                return [Reference(fault)]
        return await getattr(self, method)(*arguments)


def transfer(source: Source) -> WeightsTransfer:
    return WeightsTransfer(proxy(FilesPort, source.ask), "run", chunk_bytes=1000)


async def here(version: Published, source: Source, *wanted: Published) -> Path:
    """As on a node that does not see the version's own path."""
    hidden = Path(version.path).rename(Path(version.path).with_name("hidden"))
    try:
        return Path((await WeightsTransfer(seeing(source, hidden), "run").here(version, wanted)).path)
    finally:
        hidden.rename(version.path)


def seeing(source: Source, folder: Path) -> FilesPort:
    async def ask(method: str, _: str, *arguments: Any) -> Any:
        return await source.ask(method, str(folder), *arguments)

    return proxy(FilesPort, ask)


def copies(cache: Path) -> list[str]:
    return sorted(child.name[:5] for child in (cache / "run" / "copies").iterdir())


async def test_a_copy_has_every_file_and_the_manifest(tmp_path: Path, cache: Path) -> None:
    version = published(1, tmp_path)
    path = await here(version, Source())
    assert path.parent == cache / "run" / "copies"
    assert (path / "inner" / "weights").read_bytes() == b"weights" and (path / "empty").read_bytes() == b""
    assert (path / MANIFEST).read_bytes() == (Path(version.path) / MANIFEST).read_bytes()
    assert holds(path, "print-1") and not holds(path, "print-2") and not holds(tmp_path, "print-1")


async def test_where_the_path_holds_the_version_nobody_is_asked(tmp_path: Path, cache: Path) -> None:
    version, source = published(1, tmp_path), Source()
    assert await transfer(source).here(version) == version
    assert await transfer(source).bring(version, Path(version.path)) == version
    assert source.asked == [] and not cache.exists()


async def test_a_base_that_is_no_more_than_its_manifest_is_copied_too(tmp_path: Path) -> None:
    folder = tmp_path / "versions" / "v0000"
    with appearing(folder, {"fingerprint": "base"}):
        pass
    base = Published(ref=BASE, path=str(folder), parent=BASE, window=0, fingerprint="base")
    assert holds(await here(base, Source()), "base")


@pytest.mark.parametrize("size", [2500, 2000])
async def test_a_large_file_is_read_in_chunks(tmp_path: Path, size: int) -> None:
    version, source, to = published(1, tmp_path, os.urandom(size)), Source(), tmp_path / "to" / "v0001"
    await transfer(source).bring(version, to)
    verify(to)
    assert [start for name, start in source.asked if name == "inner/weights"] == [0, 1000, 2000]


async def test_nodes_that_ask_at_the_same_time_share_what_is_put_once(tmp_path: Path) -> None:
    version, source = published(1, tmp_path), Source()
    await asyncio.gather(*(transfer(source).bring(version, tmp_path / node / "v0001") for node in "abc"))
    assert source.puts == 3 and len(source.asked) == 9, "a manifest and two files"


async def test_the_object_store_keeps_no_more_than_a_few_chunks(tmp_path: Path) -> None:
    version, source = published(1, tmp_path, b"w" * 100), Source()
    for start in range(0, 100, 10):
        await source.read_chunk(version.path, "inner/weights", start, 10)
    assert len(source._chunks) == SHARED_CHUNKS
    before = source.puts
    await source.read_chunk(version.path, "inner/weights", 90, 10)
    await source.read_chunk(version.path, "inner/weights", 0, 10)
    assert source.puts == before + 1


async def test_a_copy_that_is_there_is_reused_by_other_processes(tmp_path: Path) -> None:
    version, source = published(1, tmp_path), Source()
    first = await here(version, source)
    asked = len(source.asked)
    assert await here(version, source) == first
    assert [name for name, _ in source.asked[asked:]] == [MANIFEST]


async def test_several_processes_may_copy_at_the_same_time_and_all_get_it(tmp_path: Path, cache: Path) -> None:
    version, source = published(1, tmp_path), Source()
    hidden = Path(version.path).rename(tmp_path / "hidden")
    unseen = WeightsTransfer(seeing(source, hidden), "run")
    paths = {each.path for each in await asyncio.gather(*(unseen.here(version) for _ in range(8)))}
    verify(Path(paths.pop()))
    assert not paths and copies(cache) == ["v0001"], "what lost the race is not left aside"


async def test_bytes_damaged_on_the_way_are_refused_and_can_be_fetched_again(tmp_path: Path, cache: Path) -> None:
    version, source = published(1, tmp_path), Source(np.frombuffer(b"damaged", np.uint8))
    with pytest.raises(Unavailable, match="damaged in transit"):
        await here(version, source)
    assert copies(cache) == []
    verify(await here(version, source))


async def test_a_version_damaged_at_its_source_is_no_version(tmp_path: Path, cache: Path) -> None:
    version = published(1, tmp_path)
    (Path(version.path) / "inner" / "weights").write_bytes(b"rotten")
    with pytest.raises(ArtifactError, match="inner/weights has digest"):
        await here(version, Source())
    (Path(version.path) / "inner" / "weights").unlink()
    with pytest.raises(ArtifactError, match="inner/weights has digest missing"):
        await here(version, Source())
    (Path(version.path) / MANIFEST).unlink()
    with pytest.raises(ArtifactError, match="cannot be read"):
        await here(version, Source())
    assert copies(cache) == []


async def test_another_version_at_the_source_path_is_not_taken_for_this_one(tmp_path: Path, cache: Path) -> None:
    other = published(1, tmp_path).model_copy(update={"fingerprint": "print-of-another-run"})
    with pytest.raises(ArtifactError, match=r"print-1, expected print-of-another-run"):
        await here(other, Source())
    assert copies(cache) == []


@pytest.mark.parametrize(
    "fault", [Unavailable("restarting"), Overdue("silent"), OwnerDiedError("00" * 28, None, "here")]
)
async def test_a_source_that_is_away_leaves_nothing_and_is_asked_again(tmp_path: Path, cache: Path, fault: Any) -> None:
    version, source = published(1, tmp_path), Source(fault)
    with pytest.raises(Unavailable):
        await here(version, source)
    assert copies(cache) == []
    verify(await here(version, source))


async def test_a_copy_that_rotted_here_is_made_anew(tmp_path: Path) -> None:
    version = published(1, tmp_path)
    path = await here(version, Source())
    (path / "inner" / "weights").write_bytes(b"")
    assert await here(version, Source()) == path
    verify(path)


async def test_a_full_disk_is_said_where_the_version_must_be_durable(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    version = published(1, tmp_path)
    with pytest.raises(StorageFull):
        await transfer(Source(full)).bring(version, tmp_path / "to" / "v0001")
    assert list((tmp_path / "to").iterdir()) == []
    with pytest.raises(Unavailable, match="RATCHET_CACHE"):
        await here(version, Source(full))


class Stuck(Source):
    """Gives one chunk and then nothing more."""

    async def ask(self, method: str, *arguments: Any) -> Any:
        if arguments[1:3] == ("inner/weights", 1000):
            await asyncio.sleep(600)
        return await super().ask(method, *arguments)


def bring_for_ever(version: Published, to: Path) -> None:
    asyncio.run(transfer(Stuck()).bring(version, to))


async def test_a_process_killed_while_it_writes_leaves_no_half_version(tmp_path: Path) -> None:
    version, to = published(1, tmp_path, b"w" * 1500), tmp_path / "to" / "v0001"
    child = multiprocessing.get_context("fork").Process(target=bring_for_ever, args=(version, to))
    child.start()
    async with asyncio.timeout(30):
        while not any(to.parent.glob(".v*/inner/weights")):
            await asyncio.sleep(0.01)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert not to.exists() and len(list(to.parent.iterdir())) == 1
    verify(Path((await transfer(Source()).bring(version, to)).path))
    assert list(to.parent.iterdir()) == [to], "what it left aside is gone"


def grow_old(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    for each in (*path.rglob("*"), path):
        os.utime(each, (then, then))


async def test_a_copy_stays_while_it_is_wanted_and_a_while_longer(tmp_path: Path, cache: Path) -> None:
    one, two, three, four = (published(n, tmp_path) for n in (1, 2, 3, 4))
    for version in (one, two):
        grow_old(await here(version, Source()), GRACE_S - 60)
    left = cache / "run" / "copies" / ".v0009.0123abcd"
    (left / "inner").mkdir(parents=True)
    grow_old(left, GRACE_S + 60)
    (left / "inner" / "weights").write_bytes(b"another process writes this just now")
    await here(three, Source(), one)
    assert copies(cache) == [".v000", "v0001", "v0002", "v0003"]
    for copy in (cache / "run" / "copies").iterdir():
        grow_old(copy, GRACE_S + 60)
    await here(four, Source(), one, three)
    assert copies(cache) == ["v0001", "v0003", "v0004"]


async def test_copies_of_a_run_that_ended_long_ago_go(tmp_path: Path, cache: Path) -> None:
    for name in ("ended", "lives"):
        (cache / name / "copies" / "v0001").mkdir(parents=True)
        grow_old(cache / name, FORGET_S + 60)
    (cache / "lives" / "copies" / "v0002").mkdir()
    await here(published(1, tmp_path), Source())
    assert sorted(child.name for child in cache.iterdir()) == ["lives", "run"]


async def test_a_base_with_the_same_weights_and_another_proof_is_another_copy(tmp_path: Path) -> None:
    """A run directory that was removed and made anew under its old name."""
    old, new = published(0, tmp_path / "old", b"proof"), published(0, tmp_path / "new", b"other proof")
    assert old.fingerprint == new.fingerprint
    first, second = await here(old, Source()), await here(new, Source())
    assert first != second and (second / "inner" / "weights").read_bytes() == b"other proof"
