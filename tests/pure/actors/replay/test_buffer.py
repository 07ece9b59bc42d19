"""The buffer over a store whose writes may end without anybody knowing whether they were kept."""

import asyncio
import json
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from actors.replay.buffer import Buffer
from actors.replay.recovery import recover
from actors.replay.resettling import SETTLE_S, SETTLE_VOTES
from actors.runtime.ports import StorePort
from actors.runtime.statuses import StoreStatus
from actors.versions.lineage import PARENT_REJECTED
from core.clock import ManualClock
from core.config import LearningConfig, MethodConfig, VotesConfig
from core.errors import ArtifactError, Overdue, Unavailable
from core.messages import (
    BASE,
    Decision,
    Lease,
    PolicyRef,
    Published,
    Resettle,
    Vote,
)
from core.metrics import MemorySink, Metrics
from core.store.encoded import encode_outcomes
from core.store.facts import BufferCounts, WindowDecided, WindowDrawn
from core.store.records import Row, message
from core.store.writer import RunReader, RunStore
from methods import recipes
from methods.data.prompts import as_prompt
from methods.explore import about, explore, settle_again
from methods.scripted_policy import ScriptedPolicy, right_answer
from tests.pure.actors.replay.outcomes import explored

LEARNING = LearningConfig(groups_per_window=3, replay_windows=2, max_lag=1, lease_s=100)


class FlakyStore(StorePort):
    """A store in this process. The next writes end as told: `kept`, `lost`, kept or `late` behind an error."""

    def __init__(self, run_dir: Path) -> None:
        self.disk = RunStore(run_dir)
        self.fates: list[str] = []
        self.late: list[Row] = []
        self.meanwhile: Callable[[], Awaitable[None]] | None = None
        """What happens while a caller waits for an answer that does not come."""

    async def append(self, records: Sequence[Row]) -> int:
        fate = self.fates.pop(0) if self.fates else "kept"
        if fate == "late":
            self.late += records
        elif fate != "lost":
            self.land()
            self.disk.write(records)
        if fate != "kept":
            if self.meanwhile is not None:
                await self.meanwhile()
            raise Overdue("store.append did not answer")
        return len(records)

    async def remove(self, ids: Mapping[str, Sequence[str]]) -> int:
        return self.disk.remove(ids)

    async def status(self) -> StoreStatus:
        raise Overdue("store.status did not answer")

    def land(self) -> None:
        """What hung in the queue is written, in order."""
        self.disk.write(self.late)
        self.late = []


def make(run_dir: Path, store: FlakyStore, clock: ManualClock, learning: LearningConfig = LEARNING, **extra) -> Buffer:
    return Buffer(str(run_dir), store, learning, None, Metrics([MemorySink()]), clock=clock, **extra)


def published(version: int, parent: int, window: int) -> Published:
    refs = PolicyRef(version=version), PolicyRef(version=parent)
    return Published(ref=refs[0], path="nowhere", parent=refs[1], window=window, fingerprint="f")


def decision(version: int, verdict: str, reason: str = "because") -> Decision:
    body = {"verdict": verdict, "candidate": PolicyRef(version=version), "champion": BASE, "reason": reason}
    return Decision.model_validate({**body, "probes": 1, "certified": False})


FATES = st.sampled_from([[], ["lost"], ["late"], ["overdue"], ["kept", "late"], ["late", "late"]])


class Restarts(RuleBasedStateMachine):
    """Collectors, a trainer and a gate at any pace, a store that may keep a write and not say so, and a buffer that
    restarts at any point."""

    learning = LEARNING

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp())
        self.store = self.a_store()
        self.clock = ManualClock(1.0)
        self.held: list[tuple[str, int]] = []
        self.windows: dict[int, tuple[str, ...]] = {}
        self.made: list[Published] = []
        self.decided: dict[int, Decision] = {}
        self.retold: list[tuple[int, int, bool, bool]] = []
        self.store.meanwhile = self.time_passes
        self.start()

    def a_store(self) -> FlakyStore:
        return FlakyStore(self.folder)

    async def time_passes(self) -> None:
        fates, self.store.fates = self.store.fates, []
        self.clock.advance(101)
        await self.buffer.tick()
        self.store.fates = fates

    def start(self) -> None:
        self.buffer = make(self.folder, self.store, self.clock, self.learning)
        self.do(self.buffer.start())

    def do(self, call: Any) -> Any:
        return self.loop.run_until_complete(call)

    def tried(self, call: Any) -> Any:
        """What a peer of an overdue store sees; None: it does not know."""
        try:
            return self.do(call)
        except (Overdue, Unavailable):
            return None

    @property
    def newest(self) -> int:
        good = [p.ref.version for p in self.made if self.verdict(p.ref.version) != "reject"]
        return max(good, default=0)

    def verdict(self, version: int) -> str | None:
        return self.decided[version].verdict if version in self.decided else None

    # --- what may happen ---

    @precondition(lambda self: self.buffer.state.throttle.capacity > 0)
    @rule(wanted=st.integers(1, 6), token=st.sampled_from(["", "a", "b"]))
    def lease(self, wanted: int, token: str) -> None:
        lease = self.do(self.buffer.collectors.lease(wanted, 0.0, token))
        if lease is None:
            return
        self.held += sorted({(lease.id, place) for place in lease.places} - set(self.held))
        if token:
            assert self.do(self.buffer.collectors.lease(wanted, 0.0, token)) == lease

    @precondition(lambda self: self.held)
    @rule(share=st.integers(1, 3), kind=st.sampled_from(["accepted", "accepted", "filtered", "failed"]), fates=FATES)
    def deliver(self, share: int, kind: str, fates: list[str]) -> None:
        picked = self.held[::share]
        batch = encode_outcomes([explored(place, lease, self.newest, kind) for lease, place in picked])
        self.store.fates = list(fates)
        results = self.tried(self.buffer.collectors.deliver(batch))
        self.store.fates = []
        if results is not None:
            self.held = [pair for pair in self.held if pair not in picked]

    @rule(fates=FATES)
    def leases_expire(self, fates: list[str]) -> None:
        self.clock.advance(101)
        self.store.fates = list(fates)
        self.do(self.buffer.tick())
        self.store.fates = []
        assert not self.buffer.state.leases.outstanding

    @precondition(lambda self: self.held)
    @rule()
    def a_collector_dies(self) -> None:
        self.held = []

    @precondition(lambda self: self.buffer.state.replay.ready() or self.buffer.state.unsaved)
    @rule(fates=FATES)
    def draw(self, fates: list[str]) -> None:
        last = max((p.window for p in self.made), default=0)
        self.store.fates = list(fates)
        window = self.tried(self.buffer.windows.draw(last, self.newest, 0.0))
        self.store.fates = []
        if window is None:
            return
        assert window.number == last + 1
        assert self.windows.setdefault(window.number, window.group_ids) == window.group_ids
        assert len(set(window.group_ids)) == len(window.group_ids)
        bad = {v for v in self.decided if self.verdict(v) == "reject"}
        assert not bad & {example.policy.version for example in window.examples}

    @precondition(lambda self: len(self.windows) > len(self.made))
    @rule(told=st.booleans())
    def publish(self, told: bool) -> None:
        window = max(self.windows)
        if any(p.window == window for p in self.made):
            return
        version = len(self.made) + 1
        self.made.append(published(version, self.newest, window))
        self.store.land()
        self.store.disk.write([message("versions", f"policy@v{version}", "policy@v0", self.made[-1])])
        if told:
            self.do(self.buffer.windows.published(version))

    @precondition(lambda self: len(self.made) > len(self.decided))
    @rule(verdict=st.sampled_from(["promote", "hold", "reject"]), told=st.booleans(), fates=FATES)
    def decide(self, verdict: str, told: bool, fates: list[str]) -> None:
        undecided = [p for p in self.made if p.ref.version not in self.decided]
        fall = undecided[1:] if verdict == "reject" else []
        for made in [*undecided[:1], *fall]:
            body = decision(made.ref.version, verdict, PARENT_REJECTED if made in fall else "because")
            self.decided[made.ref.version] = body
            self.store.disk.write([message("decisions", str(body.candidate), "policy@v0", body)])
            self.retold.append((made.window, made.ref.version, verdict == "reject", made in fall))
            self.store.fates = list(fates)
            if told:
                self.do(self.buffer.windows.decided(*self.retold[-1]))
            self.store.fates = []

    @rule(fates=FATES, restarts=st.booleans())
    def pause(self, fates: list[str], restarts: bool) -> None:
        self.store.fates = list(fates)
        known = (
            self.tried(self.buffer.learning.pause("a person said so")) is None
            and self.do(self.buffer.learning.status())["owed"] == 0
        )
        self.store.fates = []
        if known and restarts:
            self.restart("before", paused=True)
        assert self.do(self.buffer.collectors.lease(3, 0.0)) is None
        self.do(self.buffer.learning.resume())

    @rule(landed=st.sampled_from(["before", "after", "never"]))
    def restart(self, landed: str, paused: bool = False) -> None:
        if landed == "before":
            self.store.land()
        elif landed == "never":
            self.store.late = []
        self.start()
        if landed == "after":
            self.store.land()
        status = self.do(self.buffer.learning.status())
        assert status["outstanding"] == 0 and status["windows_decided"] == len(self.decided)
        assert (status["paused"] is not None) == status["paused_before_start"] == paused
        assert len(self.windows) <= status["windows_drawn"] <= len(self.windows) + 1

    # --- what always holds ---

    @invariant()
    def the_laws_hold(self) -> None:
        throttle, replay = self.buffer.state.throttle, self.buffer.state.replay
        assert throttle.lawful
        counts = replay.counts()
        assert throttle.counted == counts.windows_drawn * LEARNING.groups_per_window + counts.prompts_waiting
        assert throttle.outstanding == len(self.buffer.state.leases.outstanding)

    @invariant()
    def no_prompt_is_new_twice(self) -> None:
        places = [group.split("-")[0] for groups in self.windows.values() for group in groups]
        assert len(places) == len(set(places))

    @invariant()
    def no_place_is_lost_and_what_is_held_is_what_the_store_holds(self) -> None:
        buffer = self.buffer
        with closing(RunReader(self.folder)) as reader:
            stored = {outcome.place for outcome in reader.briefs()}
            for explored in buffer.state.replay.held():
                kept = reader.outcome(explored.place)
                assert kept is not None and {s.group.id for s in kept.scored} == set(explored.group_ids)
        leases = buffer.state.leases
        assert len(leases.returned) == len(set(leases.returned)) and not {*leases.returned} & {*leases.outstanding}
        under_way = {*leases.outstanding, *leases.returned}
        taken = set(range(leases.next_place)) - under_way
        assert taken <= stored
        throttle = buffer.state.throttle
        assert throttle.accepted + throttle.filtered + throttle.failed == len(taken)

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        self.store.land()
        if len(self.held) % 2:
            self.start()
        else:
            for told in self.retold:  # as Versions does when it starts
                self.do(self.buffer.windows.decided(*told))
        target = len(self.decided) + 3
        for _ in range(60):
            if len(self.decided) >= target:
                break
            self.do(self.buffer.learning.resume())  # failures that landed late make it pause, which is no stall
            self.leases_expire([])
            self.held = []
            self.lease(6, "")
            batch = encode_outcomes([explored(place, lease, self.newest) for lease, place in self.held])
            self.do(self.buffer.collectors.deliver(batch))
            self.held = []
            self.draw([])
            if len(self.windows) > len(self.made):
                self.publish(True)
            self.decide("promote", True, [])
        assert len(self.decided) >= target, "the run stalled"
        self.the_laws_hold()
        self.store.disk.close()
        self.loop.close()
        shutil.rmtree(self.folder)


def test_in_any_history_of_restarts_and_unknown_writes_no_prompt_is_lost_or_doubled_and_nothing_stalls() -> None:
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    run_state_machine_as_test(
        Restarts,
        settings=settings(max_examples=60, stateful_step_count=50, deadline=None, suppress_health_check=checks),
    )


# --- one thing at a time ---------------------------------------------------------------------------------------------


def leased(lease: Lease | None) -> Lease:
    assert lease is not None
    return lease


async def work_of(buffer: Buffer) -> Resettle:
    work = await buffer.collectors.resettle(0.0)
    assert work is not None
    return work


async def started(folder: Path, store: FlakyStore, clock: ManualClock, **extra: Any) -> Buffer:
    buffer = make(folder, store, clock, **extra)
    await buffer.start()
    return buffer


async def filled(buffer: Buffer, windows: int, version: int = 0) -> None:
    """Explore, draw and settle so many windows."""
    for _ in range(windows):
        lease = leased(await buffer.collectors.lease(3, 0.0))
        await buffer.collectors.deliver(encode_outcomes([explored(place, lease.id, version) for place in lease.places]))
        number = (await buffer.learning.status())["windows_drawn"] + 1
        assert await buffer.windows.draw(number - 1, version, 0.0) is not None
        await buffer.windows.decided(number, 1000 + number, rejected=False, discarded=False)


async def test_an_outcome_that_was_thought_lost_stands_and_its_place_is_explored_in_vain(tmp_path: Path) -> None:
    store, clock = FlakyStore(tmp_path), ManualClock(1.0)
    first = await started(tmp_path, store, clock)
    lease = leased(await first.collectors.lease(1, 0.0))
    store.fates = ["late"]
    with pytest.raises(Overdue):
        await first.collectors.deliver(encode_outcomes([explored(0, lease.id)]))
    second = await started(tmp_path, store, clock)
    again = leased(await second.collectors.lease(1, 0.0))
    store.land()
    assert again.places == lease.places == (0,)
    assert await second.collectors.deliver(encode_outcomes([explored(0, again.id)])) == ["duplicate"]
    for buffer in (second, await started(tmp_path, store, clock)):
        (held,) = buffer.state.replay.held()
        assert held.group_ids == (f"g0-{lease.id}",) and [e.id for e in held.examples] == [f"e0-{lease.id}"]
        assert (await buffer.learning.status())["waiting"] == 1


async def test_an_outcome_delivered_again_after_an_unsure_write_is_taken_once(tmp_path: Path) -> None:
    store, clock = FlakyStore(tmp_path), ManualClock(1.0)
    buffer = await started(tmp_path, store, clock)
    lease = leased(await buffer.collectors.lease(2, 0.0))
    batch = encode_outcomes([explored(place, lease.id) for place in lease.places])
    store.fates = ["overdue"]
    with pytest.raises(Overdue):
        await buffer.collectors.deliver(batch)
    assert await buffer.collectors.deliver(batch) == ["accepted", "accepted"]
    assert await buffer.collectors.deliver(batch) == ["expired", "expired"]
    twice = encode_outcomes([explored(2, (held := leased(await buffer.collectors.lease(1, 0.0))).id)] * 2)
    assert held.places == (2,) and await buffer.collectors.deliver(twice) == ["accepted", "expired"]


async def test_a_lease_asked_for_again_is_the_same_until_it_expires(tmp_path: Path) -> None:
    clock = ManualClock(1.0)
    buffer = await started(tmp_path, FlakyStore(tmp_path), clock)
    first, again, other = [await buffer.collectors.lease(2, 0.0, token) for token in ("t", "t", "u")]
    assert first == again != other and (await buffer.learning.status())["outstanding"] == 4
    await buffer.collectors.lease(2, 0.0)
    assert await buffer.collectors.lease(1, 0.0, "v") is None and await buffer.collectors.lease(2, 0.0, "t") == first
    clock.advance(101)
    await buffer.tick()
    assert leased(await buffer.collectors.lease(2, 0.0, "t")).id != leased(first).id


async def test_a_pause_outlives_restarts_and_a_run_of_failures_does_not(tmp_path: Path) -> None:
    store, clock = FlakyStore(tmp_path), ManualClock(7.0)
    first = await started(tmp_path, store, clock)
    await first.learning.pause("a person said so")
    clock.advance(50)
    second = await started(tmp_path, store, clock)
    status = await second.learning.status()
    assert (status["paused"], status["paused_at"], status["paused_before_start"]) == ("a person said so", 7.0, True)
    told = [e.detail["reason"] for e in RunReader(tmp_path).events("paused")]
    assert told == ["a person said so", "a person said so (since before this start; `ratchet resume` continues)"]
    assert await second.collectors.lease(1, 0.0) is None
    await second.learning.resume()
    third = await started(tmp_path, store, clock)
    lease = leased(await third.collectors.lease(3, 0.0))
    await third.collectors.deliver(
        encode_outcomes([explored(place, lease.id, kind="failed") for place in lease.places])
    )
    assert "3 prompts in a row failed" in (await third.learning.status())["paused"]
    assert (await (await started(tmp_path, store, clock)).learning.status())["paused"] is None


async def test_a_pause_that_is_not_on_disk_yet_says_so_holds_and_is_written_later(tmp_path: Path) -> None:
    store, clock = FlakyStore(tmp_path), ManualClock(1.0)
    buffer = await started(tmp_path, store, clock)
    store.fates = ["lost", "lost"]
    with pytest.raises(Overdue):
        await buffer.learning.pause("now")
    assert (await buffer.learning.status())["paused"] == "now" and (await buffer.learning.status())["owed"] == 1
    await buffer.tick()
    assert (await (await started(tmp_path, store, clock)).learning.status())["paused"] == "now"


async def test_a_restart_reads_the_last_windows_and_not_the_whole_run(tmp_path: Path) -> None:
    store, clock = FlakyStore(tmp_path), ManualClock(1.0)
    buffer = await started(tmp_path, store, clock)
    await filled(buffer, 20)
    lease = leased(await buffer.collectors.lease(4, 0.0))
    late = [
        explored(place, lease.id, kind=kind) for place, kind in zip(lease.places, ("accepted", "failed"), strict=False)
    ]
    await buffer.collectors.deliver(encode_outcomes(late))
    store.disk.forget(range(20))  # what no window can need: its payloads may be gone
    found = recover(tmp_path, LEARNING)
    assert sorted(outcome.place for outcome in found.outcomes) == list(range(48, 61)) and sorted(found.windows) == [
        *range(17, 21)
    ]
    assert (found.next_place, found.open, len(found.decided)) == (62, [], 20)
    before, after = await buffer.learning.status(), await (await started(tmp_path, store, clock)).learning.status()
    assert after["waiting"] == before["waiting"] == 1
    for name in ("accepted", "filtered", "failed", "tokens", "windows_drawn", "windows_decided"):
        assert after[name] == before[name], name
    assert after["capacity"] == before["capacity"] + before["outstanding"]


async def test_a_run_of_an_older_program_is_counted_from_its_beginning(tmp_path: Path) -> None:
    store, clock = FlakyStore(tmp_path), ManualClock(1.0)
    buffer = await started(tmp_path, store, clock)
    await filled(buffer, 4)
    lease = leased(await buffer.collectors.lease(3, 0.0))
    await buffer.collectors.deliver(encode_outcomes([explored(lease.places[1], lease.id)]))
    assert store.disk._db is not None
    store.disk._db.execute("DELETE FROM facts WHERE id = ?", (BufferCounts.NAME,))
    store.disk._db.commit()
    again = await started(tmp_path, store, clock)
    status = await again.learning.status()
    assert (status["accepted"], status["waiting"], status["windows_drawn"]) == (13, 1, 4)
    assert leased(await again.collectors.lease(2, 0.0)).places == (12, 14)
    assert (await again.windows.draw(3, 0, 0.0)) == (await buffer.windows.draw(3, 0, 0.0)) is not None


FACTS_ON_DISK = {
    "window:1": {"places": [0, 1, 2], "newest": 0, "oldest": 0},
    "buffer": {
        "window": 1, "next_place": 5, "open": [4], "waiting": [3], "accepted": 4, "filtered": 0, "failed": 0,
        "expired": 0, "tokens": 4, "stale": 0, "quarantined": 0,
    },
    "settled:1": {"version": 7, "rejected": True, "discarded": False},
    "paused": {"reason": "by hand", "at": 1.0, "lasting": True},
    "voted:PROMPT": {"kept": 1},
    "first:PROMPT/ann": {"prompt": "PROMPT", "voter": "ann", "window": 1},
}  # fmt: skip
"""As older programs wrote them, and read them."""


async def test_facts_stand_on_disk_by_the_names_and_fields_of_older_programs_and_are_read_from_these(
    tmp_path: Path,
) -> None:
    store, clock, prompt = FlakyStore(tmp_path), ManualClock(1.0), as_prompt("prompt 0").id
    wanted = {name.replace("PROMPT", prompt): value for name, value in FACTS_ON_DISK.items()}
    wanted[f"first:{prompt}/ann"] = {"prompt": prompt, "voter": "ann", "window": 1}
    buffer = await started(tmp_path, store, clock)
    lease = leased(await buffer.collectors.lease(5, 0.0))
    await buffer.collectors.deliver(encode_outcomes([explored(place, lease.id) for place in lease.places[:4]]))
    await buffer.windows.draw(0, 0, 0.0)
    await buffer.windows.decided(1, 7, rejected=True, discarded=False)
    await buffer.people.vote([cast("v", "5")])
    await buffer.learning.pause("by hand")
    assert store.disk._db is not None
    rows = store.disk._db.execute("SELECT id, value FROM facts").fetchall()
    assert {id: json.loads(value) for id, value in rows} == wanted
    for name, value in wanted.items():  # as json.dumps writes it
        store.disk._db.execute("UPDATE facts SET value = ? WHERE id = ?", (json.dumps(value), name))
    store.disk._db.commit()
    found = recover(tmp_path, LEARNING)
    assert found.decided == {1: WindowDecided(version=7, rejected=True)} and found.paused is not None
    assert (found.next_place, found.open, found.bad_versions) == (5, [4], {7})
    again = await started(tmp_path, store, clock)
    before, after = await buffer.learning.status(), await again.learning.status()
    for name in ("paused", "waiting", "windows_drawn", "windows_decided", "accepted", "tokens", "person_votes"):
        assert after[name] == before[name], name


async def test_a_window_that_the_store_did_not_acknowledge_is_given_to_nobody(tmp_path: Path) -> None:
    store, clock = FlakyStore(tmp_path), ManualClock(1.0)
    buffer = await started(tmp_path, store, clock)
    lease = leased(await buffer.collectors.lease(6, 0.0))
    await buffer.collectors.deliver(encode_outcomes([explored(place, lease.id) for place in lease.places]))
    store.fates = ["late", "lost"]
    assert await buffer.windows.draw(0, 0, 0.0) is None and await buffer.windows.draw(0, 0, 0.0) is None
    window = await buffer.windows.draw(0, 0, 0.0)
    assert window is not None and window.number == 1
    drawn = RunReader(tmp_path).read(WindowDrawn, 1)
    assert drawn is not None and drawn.places == (0, 1, 2)


async def test_a_settlement_that_never_reached_the_buffer_is_found_in_the_decisions(tmp_path: Path) -> None:
    store, clock = FlakyStore(tmp_path), ManualClock(1.0)
    buffer = await started(tmp_path, store, clock)
    for number in (1, 2):
        lease = leased(await buffer.collectors.lease(3, 0.0))
        await buffer.collectors.deliver(encode_outcomes([explored(place, lease.id) for place in lease.places]))
        await buffer.windows.draw(number - 1, 0, 0.0)
        store.disk.write([message("versions", f"policy@v{number}", "", published(number, 0, number))])
    fell = decision(2, "reject", PARENT_REJECTED)
    store.disk.write([message("decisions", "policy@v1", "", decision(1, "reject"))])
    store.disk.write([message("decisions", "policy@v2", "", fell)])
    assert await buffer.collectors.lease(3, 0.0) is None
    again = await started(tmp_path, store, clock)
    assert (await again.learning.status())["windows_decided"] == 2 and again.state.throttle.windows_discarded == 1
    assert len(leased(await again.collectors.lease(9, 0.0)).places) == 6
    await again.tick()
    assert RunReader(tmp_path).read(WindowDecided, 2) == WindowDecided(version=2, rejected=True, discarded=True)


async def test_a_version_rolled_back_after_its_promotion_stays_quarantined_over_a_restart(tmp_path: Path) -> None:
    store, clock = FlakyStore(tmp_path), ManualClock(1.0)
    buffer = await started(tmp_path, store, clock)
    await filled(buffer, 1)
    await buffer.windows.published(1)
    await buffer.windows.decided(1, 1, rejected=False, discarded=False)
    lease = leased(await buffer.collectors.lease(3, 0.0))
    await buffer.collectors.deliver(encode_outcomes([explored(place, lease.id, version=1) for place in lease.places]))
    await buffer.windows.decided(1, 1, rejected=True, discarded=False)
    again = await started(tmp_path, store, clock)
    for each in (buffer, again):
        status = await each.learning.status()
        assert (status["waiting"], status["windows_decided"]) == (0, 1)
    assert (await buffer.learning.status())["quarantined"] == 3


# --- people's votes --------------------------------------------------------------------------------------------------

METHOD = recipes.build(MethodConfig())


def cast(id: str, answer: str | None, voter: str = "ann", prompt: str = "prompt 0", **more: Any) -> Vote:
    body = {"id": id, "prompt_id": as_prompt(prompt).id, "answer": answer, "voter": voter, "by": "person"}
    return Vote.model_validate(body | more)


async def vote(buffer: Buffer, *votes: Vote) -> list[str]:
    return await buffer.people.vote(votes)


async def settle_again_all(buffer: Buffer) -> list[str]:
    """As a collector does, until there is nothing more to settle."""
    results: list[str] = []
    while (work := await buffer.collectors.resettle(0.0)) is not None:
        again = await settle_again(METHOD, work, ScriptedPolicy())
        results += await buffer.collectors.resettled([again])
    return results


async def explored_by_lmsi(buffer: Buffer, n: int) -> Lease:
    lease = leased(await buffer.collectors.lease(n, 0.0))
    policy = ScriptedPolicy(3, {0: 0.8})
    asked = [as_prompt(f"prompt {place}") for place in lease.places]
    ends = [{"lease_id": lease.id, "place": place, "clock": ManualClock()} for place in lease.places]
    outcomes = [await explore(METHOD, p, policy, **end) for p, end in zip(asked, ends, strict=True)]
    await buffer.collectors.deliver(encode_outcomes(outcomes))
    return lease


def examples_at(buffer: Buffer, place: int) -> list[str]:
    (held,) = [explored for explored in buffer.state.replay.held() if explored.place == place]
    return [example.id for example in held.examples]


async def test_late_votes_settle_a_prompt_again_and_its_examples_are_replaced_over_restarts(tmp_path: Path) -> None:
    store, clock = FlakyStore(tmp_path), ManualClock(1.0)
    first = await started(tmp_path, store, clock)
    await explored_by_lmsi(first, 3)
    before = examples_at(first, 0)
    assert before and await settle_again_all(first) == []
    against = [cast(name, right_answer(as_prompt("prompt 0")), name, weight=-1) for name in "abcdef"]
    assert await vote(first, *against) == ["counted"] * 6
    assert await vote(first, *against[:2]) == ["duplicate"] * 2
    second = await started(tmp_path, store, clock)  # the work is found again
    assert (await second.learning.status())["to_resettle"] == 1 and examples_at(second, 0) == before
    assert await settle_again_all(second) == ["replaced"]
    third = await started(tmp_path, store, clock)
    for buffer in (second, third):
        assert examples_at(buffer, 0) == [] and examples_at(buffer, 1)
        assert (await buffer.learning.status())["to_resettle"] == 0 and (await buffer.learning.status())[
            "person_votes"
        ] == 6
    assert await vote(third, *(cast(f"{name}2", "x", name, weight=0) for name in "abcdef")) == ["counted"] * 6
    assert await settle_again_all(third) == ["replaced"]
    assert examples_at(third, 0) == before, "the newest vote of each voter counts"
    assert len(RunReader(tmp_path).children("votes", Vote, as_prompt("prompt 0").id)) == 8 + 12


async def test_votes_wait_for_a_prompt_that_was_not_explored(tmp_path: Path) -> None:
    store, clock = FlakyStore(tmp_path), ManualClock(1.0)
    buffer = await started(tmp_path, store, clock)
    early = leased(await buffer.collectors.lease(1, 0.0))
    assert not early.voted
    assert await vote(buffer, cast("v", "5", prompt="prompt 0"), cast("w", "5", prompt="prompt 1")) == ["waiting"] * 2
    assert (await buffer.learning.status())["prompts_voted_waiting"] == 2
    again = await started(tmp_path, store, clock)
    lease = leased(await again.collectors.lease(2, 0.0))
    assert lease.voted
    revision, votes = await again.collectors.votes_on(as_prompt("prompt 0").id)
    assert revision == 1 and [v.id for v in votes] == ["v"]
    informed = explored(0, lease.id).model_copy(update={"revision": revision})
    await again.collectors.deliver(encode_outcomes([informed, explored(1, lease.id)]))
    assert (await again.learning.status())["to_resettle"] == 1, "one was explored without its vote"
    work = await work_of(again)
    assert (work.place, work.revision, [v.id for v in work.votes]) == (1, 1, ["w"])


async def test_work_that_nobody_finishes_comes_back_and_what_it_brings_late_is_refused(tmp_path: Path) -> None:
    store, clock = FlakyStore(tmp_path), ManualClock(1.0)
    buffer = await started(tmp_path, store, clock)
    await explored_by_lmsi(buffer, 1)
    await vote(buffer, cast("v", "5"))
    first = await work_of(buffer)
    assert await buffer.collectors.resettle(0.0) is None
    clock.advance(101)
    await buffer.tick()
    outcome = await settle_again(METHOD, first, ScriptedPolicy())
    assert await buffer.collectors.resettled([outcome]) == ["expired"]
    assert await settle_again_all(buffer) == ["replaced"]
    assert await buffer.collectors.resettle(0.0) is None


async def test_a_vote_while_its_prompt_is_settled_again_makes_it_settled_once_more(tmp_path: Path) -> None:
    buffer = await started(tmp_path, FlakyStore(tmp_path), ManualClock(1.0))
    await explored_by_lmsi(buffer, 1)
    await vote(buffer, cast("v", "5"))
    work = await work_of(buffer)
    await vote(buffer, cast("w", "5", "bob"))
    assert await buffer.collectors.resettle(0.0) is None
    await buffer.collectors.resettled([await settle_again(METHOD, work, ScriptedPolicy())])
    assert (await work_of(buffer)).revision == 2


async def test_a_prompt_with_many_votes_is_settled_again_when_they_have_grown_or_after_a_while(tmp_path: Path) -> None:
    clock = ManualClock(1.0)
    buffer = await started(tmp_path, FlakyStore(tmp_path), clock)
    await explored_by_lmsi(buffer, 1)
    await vote(buffer, *(cast(f"v{i}", "5", f"voter {i}") for i in range(16)))
    await settle_again_all(buffer)
    await vote(buffer, cast("one more", "5", "ann"))
    assert await buffer.collectors.resettle(0.0) is None, "one in 16"
    await vote(buffer, cast("two more", "5", "bob"))
    assert (await work_of(buffer)).revision == 18
    buffer = await started(tmp_path, FlakyStore(tmp_path), clock)
    await settle_again_all(buffer)
    await vote(buffer, cast("and one", "5", "eve"))
    assert await buffer.collectors.resettle(0.0) is None
    clock.advance(SETTLE_S)
    assert (await work_of(buffer)).revision == 19


async def test_a_vote_costs_the_collectors_no_more_the_more_there_are_before_it(tmp_path: Path) -> None:
    """Votes that are read to settle a prompt again, for each second in which one new vote came."""
    clock, read = ManualClock(1.0), dict[int, float]()
    buffer = await started(tmp_path, FlakyStore(tmp_path), clock)
    await explored_by_lmsi(buffer, 1)
    for many in (SETTLE_VOTES, 16 * SETTLE_VOTES):
        await vote(buffer, *(cast(f"{many}-{i}", "5", f"voter {i}") for i in range(many)))
        await settle_again_all(buffer)
        began, read[many] = clock.monotonic(), 0.0
        for second in range(600):
            clock.advance(1.0)
            await vote(buffer, cast(f"{many}+{second}", "5", "ann")) if second % 20 == 0 else None
            while (work := await buffer.collectors.resettle(0.0)) is not None:
                read[many] += len(work.votes)
                await buffer.collectors.resettled([await settle_again(METHOD, work, ScriptedPolicy())])
        read[many] /= clock.monotonic() - began
    few, lots = read.values()
    assert 0 < lots < 2 * few


async def test_what_cannot_be_settled_again_or_is_too_old_asks_for_nothing_more(tmp_path: Path) -> None:
    buffer = await started(tmp_path, FlakyStore(tmp_path), ManualClock(1.0))
    await explored_by_lmsi(buffer, 1)
    await vote(buffer, cast("v", "5"))
    work = await work_of(buffer)
    assert await buffer.collectors.resettled([about(work, "the judge is away")]) == ["failed"]
    assert await buffer.collectors.resettle(0.0) is None
    lease = leased(await buffer.collectors.lease(2, 0.0))
    await buffer.collectors.deliver(encode_outcomes([explored(place, lease.id) for place in lease.places]))
    await buffer.windows.draw(0, 0, 0.0)
    await buffer.windows.decided(1, 1, rejected=False, discarded=False)
    await filled(buffer, 4)
    assert await vote(buffer, cast("w", "5", "bob")) == ["waiting"], "no window takes that prompt any more"


async def test_a_vote_whose_write_is_unsure_is_sent_again_and_counts_once(tmp_path: Path) -> None:
    store, clock = FlakyStore(tmp_path), ManualClock(1.0)
    for fate, result in (("lost", "waiting"), ("overdue", "duplicate"), ("late", "waiting")):
        buffer = await started(tmp_path, store, clock, votes=VotesConfig(ballots_per_window=1))
        mine = cast(f"v-{fate}", "5", f"ann-{fate}", prompt=f"prompt {fate}")
        store.fates = [fate]
        with pytest.raises(Overdue):
            await vote(buffer, mine)
        assert await vote(buffer, mine) == [result]
        assert (await buffer.collectors.votes_on(mine.prompt_id))[0] == 1


async def test_what_a_vote_writes_does_not_grow_with_those_before_it_and_a_voter_is_written_down_once(
    tmp_path: Path,
) -> None:
    store, clock = FlakyStore(tmp_path), ManualClock(1.0)
    buffer = await started(tmp_path, store, clock)
    voters = [f"voter {i}" for i in range(40)]
    await vote(buffer, *(cast(f"v{i}", "5", name) for i, name in enumerate(voters)))
    written: list[int] = []
    for number, name in enumerate(["voter 7", "bob", "bob"]):
        before = store.disk._db.total_changes  # type: ignore[union-attr]
        await vote(buffer, cast(f"w{number}", "6", name))
        written.append(store.disk._db.total_changes - before)  # type: ignore[union-attr]
    assert written == [2, 3, 2], "the vote, how many count, and who is new"
    again = await started(tmp_path, store, clock)
    for each in (buffer, again):
        (voted,) = each.state.late_votes._voted.values()
        assert (voted.kept, dict(voted.since)) == (43, dict.fromkeys([*voters, "bob"], 0))


async def test_a_voter_counts_on_so_many_prompts_between_two_draws_over_restarts(tmp_path: Path) -> None:
    store, clock, votes = FlakyStore(tmp_path), ManualClock(1.0), VotesConfig(ballots_per_window=2)
    buffer = await started(tmp_path, store, clock, votes=votes)
    flood = [cast(f"v{i}", "5", "mallory", prompt=f"prompt {i}") for i in range(4)]
    assert await vote(buffer, *flood[:3]) == ["waiting", "waiting", "left_out"]
    buffer = await started(tmp_path, store, clock, votes=votes)
    assert await vote(buffer, flood[3], cast("again", "6", "mallory")) == ["left_out", "waiting"]
    assert await vote(buffer, cast("other", "5", "ann", prompt="prompt 3")) == ["waiting"]
    assert (await buffer.collectors.votes_on(as_prompt("prompt 2").id))[0] == 0
    assert RunReader(tmp_path).count("votes") == 6, "all are kept"
    await filled(buffer, 1)
    assert await vote(buffer, cast("later", "5", "mallory", prompt="prompt 900")) == ["waiting"]


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (cast("v", "5", by="sample"), "is by a sample"),
        (cast("v", None), "says nothing"),
        (cast("", "5"), "give it an id"),
    ],
)
async def test_what_is_no_vote_of_a_person_is_refused_with_its_whole_batch(
    tmp_path: Path, wrong: Vote, why: str
) -> None:
    buffer = await started(tmp_path, FlakyStore(tmp_path), ManualClock(1.0))
    with pytest.raises(ArtifactError, match=why):
        await vote(buffer, cast("good", "5"), wrong)
    assert RunReader(tmp_path).count("votes") == 0


async def test_votes_are_counted_by_kind_and_told_in_one_line(tmp_path: Path) -> None:
    store, clock, sink = FlakyStore(tmp_path), ManualClock(1.0), MemorySink()
    metrics = Metrics([sink])
    buffer = Buffer(str(tmp_path), store, LEARNING, None, metrics, VotesConfig(ballots_per_window=3), clock)
    await buffer.start()
    await explored_by_lmsi(buffer, 1)
    await vote(buffer, *(cast(f"v{i}", "5", prompt=f"prompt {i}") for i in range(5)), cast("w", "5", by="verifier"))
    await settle_again_all(buffer)
    clock.advance(20)
    await buffer.tick()
    await buffer.tick()
    (told,) = RunReader(tmp_path).events("voted")
    assert told.detail == {"votes": 6, "left_out": 2, "resettled": 1, "prompts": 3, "to_resettle": 0}
    values = metrics.values()
    assert values["votes_total{by=person}"] == 5 and values["votes_total{by=verifier}"] == 1
    assert values["resettled_total"] == 1 and values["votes_total{by=sample}"] == 8
