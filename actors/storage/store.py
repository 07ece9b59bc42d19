"""The store: the only actor that writes to disk. It collects the writes of all parts into one transaction, and answers
once that is on disk.

While the disk is full it writes and acknowledges nothing: `append` raises StorageFull, and callers that use
`actors.runtime.rpc` wait. In between it deletes samples that no window can need any more, in small transactions.
"""

import asyncio
import json
import logging
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from actors.runtime.ports import Part, StorePort
from actors.runtime.statuses import StoreStatus
from core.clock import Clock, Pulse, SystemClock
from core.config import LearningConfig, RunConfig
from core.errors import RatchetError, StorageFull, Unavailable
from core.messages import Scored
from core.metrics import Metrics
from core.store.facts import WindowDecided, WindowPruned
from core.store.records import Record, Row, event
from core.store.retention import forgettable, windows_kept
from core.store.writer import Forgotten, RunReader, RunStore

log = logging.getLogger("ratchet.store")

LOOK_S = 1.0
"""Interval at which a full disk is checked."""
CHUNK = 32
"""Places forgotten in one transaction."""
TROUBLE = ("alert", "hung", "restarted", "swap_hung", "proof_failed", "refused", "weighing_failed")
"""Kinds of events that dashboards/rules.yml alerts on."""


@dataclass
class _Waiting:
    records: Sequence[Row]
    done: asyncio.Future[int]


@dataclass(frozen=True)
class DiskFull:
    since: float
    why: str


def free_bytes(run_dir: Path) -> int:
    return shutil.disk_usage(run_dir).free


class Store(Part, StorePort):
    def __init__(
        self,
        run_dir: str,
        run: RunConfig | None = None,
        learning: LearningConfig | None = None,
        free: Callable[[Path], int] = free_bytes,
        clock: Clock | None = None,
        look_s: float = LOOK_S,
        metrics: Metrics | None = None,
    ) -> None:
        self._run_dir = Path(run_dir)
        self._metrics = metrics or Metrics()
        self._run = run or RunConfig()
        self._keep = windows_kept(self._run.retention, learning or LearningConfig())
        self._free = free
        self._clock = clock or SystemClock()
        self._look_s = look_s
        self._store: RunStore | None = None
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._full: DiskFull | None = None
        self._room_at: float | None = None
        self._one_at_a_time = threading.Lock()
        self._may_forget = asyncio.Event()
        self._writes = 0
        self._commits = 0
        self._forgotten = Forgotten()
        self._pulse = Pulse(self._clock)

    async def start(self) -> None:
        self._store = await asyncio.to_thread(RunStore, self._run_dir)
        for kind in TROUBLE:
            self._metrics.begin("events_total", kind=kind)
        self._meter_room()
        self._may_forget.set()

    async def append(self, records: Sequence[Row]) -> int:
        """Write all records or none. Returns their number once they are on disk. A record written before changes
        nothing.

        Raises: StorageFull, then nothing was written; StoreError."""
        if self._store is None:
            raise Unavailable("the store is not started yet; try again")
        waiting = _Waiting(records, asyncio.get_running_loop().create_future())
        self._queue.put_nowait(waiting)
        return await waiting.done

    async def remove(self, ids: Mapping[str, Sequence[str]]) -> int:
        """Remove rows by table and id, all or none; returns how many existed. Raises: StoreError."""
        if self._store is None:
            raise Unavailable("the store is not started yet; try again")
        return await asyncio.to_thread(self._store.remove, ids)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._commit_for_ever())
            tasks.create_task(self._watch_room())
            tasks.create_task(self._forget_for_ever())

    async def quiet_s(self) -> float:
        """Seconds since its work last made progress; 0 while it has no work."""
        return self._pulse.quiet_s

    async def status(self) -> StoreStatus:
        return {
            "writes": self._writes,
            "commits": self._commits,
            "free_bytes": self._free(self._run_dir),
            "room_for_s": None if self._room_at is None else self._clock.monotonic() - self._room_at,
            "forgotten_groups": self._forgotten.groups,
            "full": None
            if self._full is None
            else {
                "since": self._full.since,
                "why": self._full.why,
                "remedy": f"free some space on the disk of {self._run_dir}; learning then continues by itself",
            },
        }

    async def stop(self) -> None:
        if self._store is not None:
            self._store.close()

    # --- writing ---

    async def _commit_for_ever(self) -> None:
        """Commit together all writes that arrived during the last commit."""
        while True:
            group = [await self._queue.get()]
            while not self._queue.empty():
                group.append(self._queue.get_nowait())
            self._pulse.moved()
            await self._commit(group)
            self._pulse.idle()

    async def _commit(self, group: Sequence[_Waiting]) -> None:
        """Write the group in one transaction. If that fails for another reason than a full disk, write each on its own,
        so that a bad record fails only its own caller."""
        try:
            await asyncio.to_thread(self._write, [record for waiting in group for record in waiting.records])
        except StorageFull as error:
            for waiting in group:
                _fail(waiting.done, error)
        except Exception as error:  # passed on to the caller
            if len(group) == 1:
                return _fail(group[0].done, error)
            for waiting in group:
                self._pulse.moved()
                await self._commit([waiting])
        else:
            self._commits += 1
            for waiting in group:
                self._writes += len(waiting.records)
                self._count_events(waiting.records)
                _finish(waiting.done, len(waiting.records))
                if any(table == "facts" and id.startswith(WindowDecided.NAME) for table, id, *_ in waiting.records):
                    self._may_forget.set()

    def _count_events(self, records: Sequence[Row]) -> None:
        for table, _, _, payload in records:
            if table == "events":
                self._metrics.count("events_total", kind=json.loads(payload)["kind"])

    def _write(self, records: Sequence[Row]) -> None:
        """Raises: StorageFull, StoreError."""
        with self._one_at_a_time:
            self._write_or_refuse(records)

    def _write_or_refuse(self, records: Sequence[Row]) -> None:
        assert self._store is not None
        full, now = self._full, self._clock.now()
        events = [self._event("disk_full", since=full.since, seconds=now - full.since)] if full else []
        try:
            self._refuse_when_full()
            self._store.write([*events, *records])
        except StorageFull as error:
            self._note_full(str(error))
            raise
        if full is not None:
            log.error("there is room on the disk of %s again, after %.0f s", self._run_dir, now - full.since)
            self._full, self._room_at = None, self._clock.monotonic()

    def _refuse_when_full(self) -> None:
        free, floor = self._free(self._run_dir), self._run.min_free_bytes
        if free < floor:
            raise StorageFull(
                f"{free / 2**20:.0f} MiB are free on the disk of {self._run_dir}, run.min_free_bytes requires "
                f"{floor / 2**20:.0f}; nothing was written; free some space"
            )

    def _note_full(self, why: str) -> None:
        if self._full is None:
            log.error("%s. Learning stops until there is room; serving continues", why)
            self._full = DiskFull(self._clock.now(), why)

    async def _watch_room(self) -> None:
        """Notice on its own when a full disk has room again."""
        while True:
            await asyncio.sleep(self._look_s)
            self._meter_room()
            if self._full is not None:
                try:
                    await asyncio.to_thread(self._write, [])
                except StorageFull:
                    continue
                except OSError as error:  # StoreError is one
                    log.error("%s", error)
                    continue
                self._may_forget.set()

    def _meter_room(self) -> None:
        self._metrics.set("disk_full", float(self._full is not None))
        with suppress(OSError):
            self._metrics.set("disk_free_bytes", self._free(self._run_dir))

    # --- forgetting ---

    async def _forget_for_ever(self) -> None:
        while True:
            await self._may_forget.wait()
            self._may_forget.clear()
            if self._full is None:
                try:
                    if self._keep is not None:
                        await self._forget(self._keep)
                    await self._forget_responses()
                except (RatchetError, OSError) as error:
                    log.error("pruning failed and is tried again later: %s", error)

    async def _forget(self, keep: int) -> None:
        windows, quarantined = await asyncio.to_thread(self._plan, keep)
        gone = Forgotten()
        for number, places in windows.items():
            before = gone.groups
            await self._forget_places(places, None, gone)
            done = WindowPruned(groups=gone.groups - before).record(number)
            await asyncio.to_thread(self._write, [done])
        await self._forget_places(quarantined, "it was sampled by a version that was rejected, and is forgotten", gone)
        if windows or quarantined:
            detail = {"windows": list(windows), "quarantined": len(quarantined), **vars(gone)}
            await asyncio.to_thread(self._write, [self._event("pruned", **detail)])

    async def _forget_responses(self) -> None:
        if (keep := self._run.retention.responses) is not None and self._store is not None:
            await asyncio.to_thread(self._store.forget_responses, keep)

    async def _forget_places(self, places: Sequence[int], failure: str | None, gone: Forgotten) -> None:
        assert self._store is not None
        for start in range(0, len(places), CHUNK):
            part = await asyncio.to_thread(self._store.forget, places[start : start + CHUNK], failure)
            for total in (gone, self._forgotten):
                total.groups += part.groups
                total.examples += part.examples
                total.votes += part.votes

    def _event(self, kind: str, **detail: object) -> Record:
        return event(self._clock.now(), "store", kind, **detail)

    def _plan(self, keep: int) -> tuple[dict[int, list[int]], list[int]]:
        """Windows that no draw can need, with their places; and places that a rejected version sampled and no window
        drew."""
        reader = RunReader(self._run_dir)
        try:
            drawn = reader.windows()
            decided = {int(number): fact for number, fact in reader.read_all(WindowDecided).items()}
            pruned = {int(number) for number in reader.keys(WindowPruned)}
            old = forgettable(drawn, {number: fact.rejected for number, fact in decided.items()}, keep)
            bad = {fact.version for fact in decided.values() if fact.rejected}
            undrawn = reader.places_held() - {place for places in drawn.values() for place in places} if bad else set()
            quarantined = [place for place in sorted(undrawn) if _sampled_by(reader, place) in bad]
            return {number: drawn[number] for number in old if number not in pruned}, quarantined
        finally:
            reader.close()


def _sampled_by(reader: RunReader, place: int) -> int | None:
    """The oldest version that sampled at a place, as `Replay` counts it."""
    groups = [scored.group for scored in reader.children("groups", Scored, str(place))]
    return min((group.policy.version for group in groups if group.candidates), default=None)


def _finish(future: asyncio.Future[int], written: int) -> None:
    if not future.done():
        future.set_result(written)


def _fail(future: asyncio.Future[int], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
