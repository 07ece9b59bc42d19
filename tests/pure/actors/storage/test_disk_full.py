"""A full disk: nothing is written, nothing acknowledged, learning stands still by itself and goes on by itself."""

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.cli.preflight import check_disk
from actors.in_process import LocalSystem, ScriptedSession
from actors.runtime.rpc import STORE, RemoteCall, local
from actors.storage.store import TROUBLE, Store
from core import config as configuration
from core.artifacts import appearing, says_full
from core.clock import ManualClock
from core.config import RunConfig
from core.errors import ConfigError, Overdue, StorageFull, StoreError
from core.messages import PolicyRef, Published, Vote, Window
from core.metrics import JsonlSink, Metrics
from core.store.records import event, message
from core.store.writer import RunReader
from methods.scripted_policy import ScriptedPolicy
from tests.pure.test_in_process import settings

FLOOR = 1000


class Disk:
    """How many bytes are free, as a test says."""

    def __init__(self, free: int = 2 * FLOOR) -> None:
        self.free = free

    def __call__(self, _: Path) -> int:
        return self.free


def vote(id: str) -> tuple[str, str, str, bytes]:
    return message("votes", id, "p", Vote(id=id, prompt_id="p", answer="7"))


def a_store(folder: Path, disk: Disk, clock: ManualClock | None = None, metrics: Metrics | None = None) -> Store:
    run = RunConfig(min_free_bytes=FLOOR)
    return Store(str(folder), run, free=disk, clock=clock or ManualClock(100.0), look_s=0.005, metrics=metrics)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def test_below_the_floor_nothing_is_written_and_the_caller_is_told(tmp_path: Path) -> None:
    disk = Disk()
    store = a_store(tmp_path, disk)
    await store.start()
    running = asyncio.create_task(store.run())
    await store.append([vote("a")])
    disk.free = FLOOR - 1
    with pytest.raises(StorageFull, match=r"run\.min_free_bytes .* nothing was written"):
        await store.append([vote("b")])
    assert [v.id for v in RunReader(tmp_path).all("votes", Vote)] == ["a"]
    full = (await store.status())["full"]
    assert full["since"] == 100.0 and "free some space" in full["remedy"]
    running.cancel()


async def test_once_there_is_room_it_is_told_for_how_long_there_was_none_though_nobody_asks(tmp_path: Path) -> None:
    disk, clock, metrics = Disk(0), ManualClock(100.0), Metrics()
    store = a_store(tmp_path, disk, clock, metrics)
    await store.start()
    assert metrics.values() == {"disk_full": 0, "disk_free_bytes": 0} | {
        f"events_total{{kind={kind}}}": 0 for kind in TROUBLE
    }
    running = asyncio.create_task(store.run())
    with pytest.raises(StorageFull):
        await store.append([vote("a")])
    await until(lambda: metrics.values()["disk_full"] == 1)
    clock.advance(30)
    disk.free = FLOOR
    await until(lambda: RunReader(tmp_path).events("disk_full"))
    (told,) = RunReader(tmp_path).events()
    assert told.detail == {"since": 100.0, "seconds": 30.0}
    status = await store.status()
    assert status["full"] is None and status["room_for_s"] == 0
    await until(lambda: metrics.values()["disk_full"] == 0)
    assert metrics.values()["disk_free_bytes"] == FLOOR
    running.cancel()


async def test_a_call_waits_for_room_and_is_answered_then(tmp_path: Path) -> None:
    disk = Disk(0)
    store = a_store(tmp_path, disk)
    await store.start()
    running = asyncio.create_task(store.run())
    asked = asyncio.create_task(local(store).append([vote("a")]))
    await until(lambda: store._full)
    assert not asked.done()
    disk.free = FLOOR
    assert await asked == 1
    running.cancel()


async def test_one_bad_record_is_the_error_of_who_gave_it_only(tmp_path: Path) -> None:
    store = a_store(tmp_path, Disk())
    await store.start()
    asked = [asyncio.create_task(store.append([each])) for each in (vote("a"), ("nonsense", "", "", b""), vote("b"))]
    await asyncio.sleep(0)
    running = asyncio.create_task(store.run())
    first, second, third = await asyncio.gather(*asked, return_exceptions=True)
    assert (first, third) == (1, 1) and isinstance(second, StoreError)
    running.cancel()


# --- over Ray ---


class FakeMethod:
    def __init__(self, answer: Callable[..., Any]) -> None:
        self.remote = answer


class FakeActor:
    """What `ray.get_actor` gives: methods with `.remote`, each answering with something to await."""

    def __init__(self, **methods: Callable[..., Any]) -> None:
        self.invoke = FakeMethod(lambda part, method, *arguments: methods[method](*arguments))
        for name, answer in methods.items():
            setattr(self, name, FakeMethod(answer))


class FoundCall(RemoteCall):
    def __init__(self, deadline_s: float, **actors: FakeActor) -> None:
        super().__init__("asked", "here", deadline_s, "")
        self._actors = actors

    def _find(self, name: str) -> Any:
        if name not in self._actors:
            raise ValueError(f"Failed to look up actor with name '{name}'")
        return self._actors[name]


def full_store(full: list[bool]) -> FakeActor:
    async def status() -> dict[str, Any]:
        return {"full": {"since": 0.0} if full[0] else None, "room_for_s": None}

    return FakeActor(status=status)


async def test_no_deadline_counts_while_the_store_is_full() -> None:
    refusals = iter([StorageFull("no room")] * 3)

    async def append() -> int:
        for refusal in refusals:
            raise refusal
        return 7

    assert await FoundCall(0.05, asked=FakeActor(append=append))("append") == 7


async def test_who_waits_for_one_that_waits_for_room_is_patient_too() -> None:
    full, session, calls = [True], asyncio.Event(), []

    async def propose() -> str:
        calls.append("propose")
        await session.wait()
        return "kept"

    call = FoundCall(0.02, asked=FakeActor(propose=propose), **{STORE: full_store(full)})
    asked = asyncio.create_task(call("propose"))
    await asyncio.sleep(0.2)
    assert not asked.done()
    session.set()
    assert await asked == "kept" and calls == ["propose"], "it was asked once, not again and again"


async def test_with_room_on_the_disk_a_deadline_is_a_deadline() -> None:
    async def propose() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Overdue, match=r"asked\.propose did not answer within 0 s"):
        await FoundCall(0.02, asked=FakeActor(propose=propose), **{STORE: full_store([False])})("propose")
    with pytest.raises(Overdue):
        await FoundCall(0.02, asked=FakeActor(propose=propose))("propose")


# --- the whole system ---


class FullRoom(ScriptedSession):
    """Trains, and finds no room for the first version a few times."""

    refusals = 3
    trained = 0
    wrote = 0

    def make(self, window: Window, ref: PolicyRef, *rest: Any, **more: Any) -> Published:
        if self.refusals:
            self.refusals -= 1
            raise StorageFull(f"no room for {ref}")
        self.wrote += 1
        return super().make(window, ref, *rest, **more)


async def test_learning_stands_still_on_a_full_disk_and_goes_on_by_itself(tmp_path: Path) -> None:
    config = settings(tmp_path)
    run = LocalSystem(
        config, tmp_path, ScriptedPolicy(0, {0: 0.3, **dict.fromkeys(range(1, 9), 0.6)}), ScriptedSession(tmp_path)
    )
    disk = Disk(2 * config.run.min_free_bytes)
    run.store = Store(str(tmp_path), config.run, config.learning, free=disk, look_s=0.01)
    run.buffer.state.store = local(run.store)
    for part in (run.versions.register, run.trainer, run.evaluator):
        part._store = local(run.store)
    going = asyncio.create_task(run.run(decided=3))
    await until(lambda: going.done() or run.store._commits > 5)
    disk.free = 0
    await until(lambda: run.store._full)
    commits = run.store._commits
    await asyncio.sleep(0.3)
    assert run.store._commits == commits and not going.done()
    disk.free = 2 * config.run.min_free_bytes
    await going
    reader = RunReader(tmp_path)
    assert len(reader.events("disk_full")) == 1
    places = [place for drawn in reader.windows().values() for place in drawn]
    assert len(places) == len(set(places))


async def test_a_version_waits_for_room_and_is_written_then(tmp_path: Path) -> None:
    config = settings(tmp_path, "run.versions=1")
    session = FullRoom(tmp_path)
    run = LocalSystem(config, tmp_path, ScriptedPolicy(0, {0: 0.3, 1: 0.6, 2: 0.6}), session)
    await run.run(decided=1)
    assert session.refusals == 0 and session.wrote >= 1
    (told,) = RunReader(tmp_path).events("disk_full")
    assert told.actor == "trainer" and told.detail["seconds"] >= 1


# --- files ---


class SafetensorError(Exception):
    """safetensors' own, which is no OSError."""


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_directory_that_finds_no_room_leaves_nothing_and_says_so(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(StorageFull, match="v0001"), appearing(tmp_path / "versions" / "v0001", {}) as aside:
        (aside / "half").write_bytes(b"1")
        raise error
    assert list((tmp_path / "versions").iterdir()) == []


def test_other_errors_are_not_taken_for_a_full_disk() -> None:
    assert not says_full(OSError(errno.EIO, "Input/output error")) and not says_full(ValueError("full"))


def test_a_line_of_metrics_that_finds_no_room_is_left_out_whole(tmp_path: Path) -> None:
    sink = JsonlSink(tmp_path / "metrics.jsonl")
    sink.flush(1.0, {"a": 1})
    sink._file.close()
    with open("/dev/full", "ab", buffering=0) as full:  # every write says ENOSPC
        sink._file = full
        sink.flush(2.0, {"a": 2})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"at": 1.0, "a": 1}\n'


def test_a_run_without_room_from_the_start_is_refused(tmp_path: Path) -> None:
    config = configuration.load(None, [f"run.dir={tmp_path}/new/run", "run.min_free_bytes=1048576"])
    with pytest.raises(ConfigError, match=r"0 MiB are free .* run\.min_free_bytes requires 1"):
        check_disk(config, Disk(0))
    check_disk(config, Disk(2**20))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a file system of its own, which only root may mount")
def test_on_a_file_system_that_is_really_full_nothing_is_lost(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    if os.system(f"mount -t tmpfs -o size=600k tmpfs {folder} 2>/dev/null") != 0:
        pytest.skip("this machine lets nobody mount a small file system")
    try:
        asyncio.run(_fill_and_free(folder))
    finally:
        os.system(f"umount -l {folder}")


async def _fill_and_free(folder: Path) -> None:
    store = Store(str(folder), RunConfig(min_free_bytes=0), look_s=0.01)
    await store.start()
    running = asyncio.create_task(store.run())
    ballast = folder / "ballast"
    ballast.write_bytes(bytes(200_000))
    kept: list[str] = []
    with pytest.raises(StorageFull):
        for number in range(1000):
            await store.append([event(0.0, "x", "filler", text=os.urandom(2000).hex()), vote(str(number))])
            kept.append(str(number))
    assert [v.id for v in RunReader(folder).all("votes", Vote)] == kept
    ballast.unlink()
    await store.append([vote("after")])
    assert [v.id for v in RunReader(folder).all("votes", Vote)] == [*kept, "after"]
    running.cancel()
    await store.stop()
