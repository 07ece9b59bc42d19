"""Copies of other nodes' folders: made once, whole or not at all, never believed unseen, thrown away when unwanted."""

import asyncio
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from core.artifacts import MANIFEST, appearing, verify
from core.clock import ManualClock
from core.errors import ArtifactError, Unavailable
from core.messages import BASE, PolicyRef, Published
from serve.weights.cache import GRACE_S, Contents, Shelf, contents_of, holds


def published(version: int, folder: Path, body: bytes = b"weights") -> Published:
    path = folder / "versions" / f"v{version:04d}"
    with appearing(path, {"fingerprint": f"print-{version}"}) as aside:
        (aside / "inner").mkdir()
        (aside / "inner" / "weights").write_bytes(body)
        (aside / "empty").write_bytes(b"")
    return Published(
        ref=PolicyRef(version=version), path=str(path), parent=BASE, window=version, fingerprint=f"print-{version}"
    )


class FarFolder:
    """A folder of another node. `fault`: what goes wrong on the way, so many times."""

    def __init__(self, version: Published, fault: str = "", times: int = 1) -> None:
        self.folder, self.fault, self.times = Path(version.path), fault, times
        self.parts: list[tuple[str, int]] = []

    async def contents(self) -> Contents:
        return contents_of(self.folder)

    async def part(self, name: str, start: int, length: int) -> bytes:
        self.parts.append((name, start))
        await asyncio.sleep(0)
        if self.fault and self.times:
            self.times -= 1
            if self.fault == "away":
                raise Unavailable("the node is away")
            return b"damaged"
        with (self.folder / name).open("rb") as file:
            file.seek(start)
            return file.read(length)

    async def check(self) -> None:
        verify(self.folder)


def shelf(tmp_path: Path, clock: ManualClock | None = None) -> Shelf:
    return Shelf(tmp_path / "cache" / "run" / "versions", clock)


def copies(tmp_path: Path) -> list[str]:
    return sorted(p.name[:5] for p in (tmp_path / "cache" / "run" / "versions").iterdir() if p.is_dir())


async def test_a_copy_has_every_file_and_the_manifest(tmp_path: Path) -> None:
    version = published(1, tmp_path)
    path = await shelf(tmp_path).take(version, FarFolder(version))
    assert (path / "inner" / "weights").read_bytes() == b"weights" and (path / "empty").read_bytes() == b""
    assert (path / MANIFEST).read_bytes() == (Path(version.path) / MANIFEST).read_bytes()
    assert holds(path, "print-1") and not holds(path, "print-2") and not holds(tmp_path, "print-1")


async def test_a_folder_that_is_no_more_than_its_manifest_travels_too(tmp_path: Path) -> None:
    folder = tmp_path / "versions" / "v0000"
    with appearing(folder, {"fingerprint": "base"}):
        pass
    base = Published(ref=BASE, path=str(folder), parent=BASE, window=0, fingerprint="base")
    path = await shelf(tmp_path).take(base, FarFolder(base))
    assert path != folder and holds(path, "base")


async def test_a_large_file_travels_in_parts(tmp_path: Path) -> None:
    version = published(1, tmp_path, b"12345678")
    far = FarFolder(version)
    path = await Shelf(tmp_path / "cache" / "run" / "versions", part_bytes=3).take(version, far)
    assert (path / "inner" / "weights").read_bytes() == b"12345678"
    assert [start for name, start in far.parts if name == "inner/weights"] == [0, 3, 6]


async def test_any_number_that_ask_at_the_same_time_fetch_once(tmp_path: Path) -> None:
    version = published(1, tmp_path)
    far = FarFolder(version)
    paths = await asyncio.gather(*(shelf(tmp_path).take(version, far) for _ in range(8)))
    assert len(set(paths)) == 1 and sorted(far.parts) == [("empty", 0), ("inner/weights", 0)]
    await shelf(tmp_path).take(version, far)
    assert len(far.parts) == 2


async def test_what_was_damaged_on_the_way_is_refused_and_can_be_fetched_again(tmp_path: Path) -> None:
    version = published(1, tmp_path)
    far = FarFolder(version, fault="damage")
    with pytest.raises(Unavailable, match="damaged on the way"):
        await shelf(tmp_path).take(version, far)
    assert copies(tmp_path) == []
    verify(await shelf(tmp_path).take(version, far))


async def test_what_is_damaged_at_its_source_says_so(tmp_path: Path) -> None:
    version = published(1, tmp_path)
    (Path(version.path) / "inner" / "weights").write_bytes(b"rotten")
    with pytest.raises(ArtifactError, match="inner/weights has digest"):
        await shelf(tmp_path).take(version, FarFolder(version))
    (Path(version.path) / "inner" / "weights").unlink()
    with pytest.raises(ArtifactError, match="is damaged"):
        await shelf(tmp_path).take(version, FarFolder(version))
    assert copies(tmp_path) == []


async def test_a_copy_that_rotted_here_is_made_anew(tmp_path: Path) -> None:
    version = published(1, tmp_path)
    path = await shelf(tmp_path).take(version, FarFolder(version))
    (path / "inner" / "weights").write_bytes(b"")  # as a machine leaves it that lost power: nothing here is synced
    assert await shelf(tmp_path).take(version, FarFolder(version)) == path
    verify(path)


async def test_a_source_that_goes_away_leaves_nothing_and_does_not_keep_the_next_one_out(tmp_path: Path) -> None:
    version = published(1, tmp_path)
    far = FarFolder(version, fault="away")
    with pytest.raises(Unavailable, match="away"):
        await shelf(tmp_path).take(version, far)
    assert copies(tmp_path) == []
    verify(await shelf(tmp_path).take(version, far))


class Stuck(FarFolder):
    """Gives one part and then nothing more."""

    async def part(self, name: str, start: int, length: int) -> bytes:
        if len(self.parts):
            await asyncio.sleep(600)
        return await super().part(name, start, length)


def fetch_for_ever(tmp_path: Path, version: Published) -> None:
    asyncio.run(shelf(tmp_path).take(version, Stuck(version)))


async def test_a_process_killed_while_it_fetches_leaves_no_half_copy_and_no_lock(tmp_path: Path) -> None:
    version = published(1, tmp_path)
    child = multiprocessing.get_context("fork").Process(target=fetch_for_ever, args=(tmp_path, version))
    child.start()
    root = tmp_path / "cache" / "run" / "versions"
    async with asyncio.timeout(30):
        while not any(child.glob("**/weights") for child in root.glob(".v*")):
            await asyncio.sleep(0.01)
        waiting = asyncio.create_task(shelf(tmp_path).take(version, FarFolder(version)))
        assert not (await asyncio.wait({waiting}, timeout=0.3))[0], "it is alone while it fetches"
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        path = await waiting
    child.join()
    verify(path)
    assert [left.name for left in root.iterdir() if left.is_dir()] == [path.name]


async def test_a_copy_is_kept_while_it_is_wanted_and_a_while_longer(tmp_path: Path) -> None:
    clock = ManualClock(1e9)
    kept = shelf(tmp_path, clock)
    one, two, three, four = (published(n, tmp_path) for n in (1, 2, 3, 4))
    for version in (one, two):
        await kept.take(version, FarFolder(version))
    clock.advance(GRACE_S - 1)
    await kept.take(three, FarFolder(three), [one])
    assert copies(tmp_path) == ["v0001", "v0002", "v0003"]
    clock.advance(2)
    await kept.take(four, FarFolder(four), [one, three])
    assert copies(tmp_path) == ["v0001", "v0003", "v0004"]


async def test_copies_of_a_run_that_ended_long_ago_go_and_those_of_a_run_that_lives_stay(tmp_path: Path) -> None:
    clock = ManualClock(1e9)
    version, later = published(1, tmp_path), published(2, tmp_path)
    for run in ("ended", "lives"):
        await Shelf(tmp_path / "cache" / run / "versions", clock).take(version, FarFolder(version))
    clock.advance(6 * 86400)
    await Shelf(tmp_path / "cache" / "lives" / "versions", clock).take(version, FarFolder(version))
    clock.advance(2 * 86400)
    await shelf(tmp_path, clock).take(later, FarFolder(later))
    assert sorted(child.name for child in (tmp_path / "cache").iterdir()) == ["lives", "run"]


async def test_a_base_with_the_same_weights_and_another_proof_is_another_copy(tmp_path: Path) -> None:
    """A run directory that was removed and made anew under its old name."""
    old, new = published(0, tmp_path / "old", b"proof"), published(0, tmp_path / "new", b"other proof")
    assert old.fingerprint == new.fingerprint
    first = await shelf(tmp_path).take(old, FarFolder(old))
    assert await shelf(tmp_path).take(new, FarFolder(new)) != first
