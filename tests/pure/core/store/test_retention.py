"""Deletion in long runs: nothing that is still needed is deleted."""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.cli.up import WhenChanged
from actors.in_process import LocalSystem, ScriptedSession
from actors.replay.buffer import Buffer
from actors.runtime.rpc import local
from actors.storage.store import Store
from actors.versions.versions import Versions
from core.artifacts import appearing, sweep
from core.clock import ManualClock
from core.codec import pack_ids
from core.config import LearningConfig, RetentionConfig, RunConfig
from core.errors import VersionError
from core.messages import (
    BASE,
    Candidate,
    ChatMessage,
    Decision,
    Group,
    Outcome,
    PolicyRef,
    Prompt,
    Published,
    ReplicaReport,
    Scored,
    Verdict,
    Vote,
)
from core.metrics import JsonlSink, MemorySink, Metrics
from core.store.facts import GateLedger, LineageFact, WindowDecided, WindowDrawn
from core.store.records import message, outcome_records
from core.store.schema import SCHEMA
from core.store.writer import FILE, RunReader, RunStore
from methods.scripted_policy import ScriptedPolicy
from tests.pure.examples import imitate
from tests.pure.test_in_process import settings

LEARNING = LearningConfig(groups_per_window=2, replay_windows=2, max_lag=1)


# --- rows ---


def explored(place: int, version: int = 0, text: str = "x" * 2000) -> Outcome:
    """One explored prompt with two candidates, their votes, and an example."""
    prompt = Prompt(id=f"prompt-{place % 3}", messages=(ChatMessage(role="user", content="?"),))
    policy = PolicyRef(version=version)
    candidates = tuple(
        Candidate(
            id=f"c{place}-{n}", start=policy, end=policy,
            context_ids=pack_ids([1]), completion_ids=pack_ids([place, n]),
            text=f"{place} {n} {text}", finish="stop", render_id="r",
        )
        for n in range(2)
    )  # fmt: skip
    group = Group(id=f"g{place}", prompt=prompt, candidates=candidates)
    verdict = Verdict(scores=(1.0, 0.0), answers=("1", "2"), winner="1", share=0.5, margin=0.0)
    example = imitate(f"e{place}", pack_ids([1]), pack_ids([place]), group_id=group.id, policy=policy)
    votes = tuple(Vote(id=f"v-{c.id}", prompt_id=prompt.id, candidate_id=c.id, answer="1") for c in candidates)
    return Outcome(
        lease_id="l", place=place, prompt_id=prompt.id, scored=(Scored(group=group, verdict=verdict),), votes=votes,
        examples=(example,), tokens=4,
    )  # fmt: skip


def persons_vote(place: int) -> Vote:
    prompt, candidate = f"prompt-{place % 3}", f"c{place}-0"
    return Vote(id=f"person-{place}", prompt_id=prompt, candidate_id=candidate, answer="1", by="person")


def written(folder: Path, places: range) -> RunStore:
    store = RunStore(folder)
    for place in places:
        person = persons_vote(place)
        store.write([*outcome_records(explored(place)), message("votes", person.id, person.prompt_id, person)])
    return store


def test_what_is_forgotten_leaves_its_place_and_the_votes_of_people(tmp_path: Path) -> None:
    store = written(tmp_path, range(6))
    gone = store.forget([0, 1])
    assert (gone.groups, gone.examples, gone.votes) == (2, 2, 4)
    reader = RunReader(tmp_path)
    outcomes = {outcome.place: outcome for outcome in reader.outcomes()}
    assert set(outcomes) == set(range(6)) and outcomes[0].tokens == 4
    assert [bool(outcomes[place].scored) for place in range(6)] == [False, False, True, True, True, True]
    votes = list(reader.all("votes", Vote))
    assert sorted(v.id for v in votes if v.by == "person") == [f"person-{place}" for place in range(6)]
    assert {v.candidate_id for v in votes if v.by == "sample"} == {f"c{p}-{n}" for p in range(2, 6) for n in range(2)}
    assert store.forget([0, 1]).groups == 0


def test_a_damaged_group_does_not_keep_the_others_from_being_forgotten(tmp_path: Path) -> None:
    store = written(tmp_path, range(3))
    store._db.execute("UPDATE groups SET payload = x'00' WHERE id = 'g0'")  # type: ignore[union-attr]
    store._db.commit()  # type: ignore[union-attr]
    assert store.forget([0, 1]).groups == 2


def test_a_file_whose_old_rows_are_forgotten_does_not_grow_for_ever(tmp_path: Path) -> None:
    store, sizes = RunStore(tmp_path), list[int]()
    for place in range(1200):
        store.write(outcome_records(explored(place, text=f"{place}" * 1500)))
        if place >= 100:
            store.forget([place - 100])
        if place % 300 == 299:
            store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # type: ignore[union-attr]
            sizes.append((tmp_path / FILE).stat().st_size)
    per_place = (sizes[-1] - sizes[0]) / 900
    assert per_place < 400, f"{per_place} bytes a prompt stay for good"


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def test_the_store_forgets_in_the_background_and_says_what(tmp_path: Path) -> None:
    store = Store(str(tmp_path), RunConfig(retention=RetentionConfig(windows=1)), LEARNING)
    await store.start()
    running = asyncio.create_task(store.run())
    for window in range(1, 8):
        places = [2 * window, 2 * window + 1]
        await store.append([record for place in places for record in outcome_records(explored(place))])
        await store.append([WindowDrawn(places=places, newest=0).record(window)])
    await store.append(outcome_records(explored(100, version=3)) + outcome_records(explored(101, version=0)))
    for window in range(1, 7):
        await store.append([WindowDecided(version=window, rejected=window == 3).record(window)])
    await until(lambda: {n for e in RunReader(tmp_path).events("pruned") for n in e.detail["windows"]} == {1, 2, 3})
    await until(lambda: not store._may_forget.is_set())
    reader = RunReader(tmp_path)
    held = reader.places_held()
    assert held == {*range(8, 16), 101}, "windows 4 to 7, and what no window has drawn and no rejected version made"
    marked = reader.get("outcomes", Outcome, "100")
    assert marked is not None and "rejected" in (marked.failure or "")
    told = [each.detail for each in reader.events("pruned")]
    assert sorted(n for each in told for n in each["windows"]) == [1, 2, 3]
    assert sum(each["groups"] for each in told) == 7 and sum(each["quarantined"] for each in told) == 1
    running.cancel()


@pytest.mark.parametrize("keep", ["1", "null"])
async def test_a_run_that_was_pruned_goes_on_after_a_restart_as_one_that_was_not(tmp_path: Path, keep: str) -> None:
    accuracy = {0: 0.3, **dict.fromkeys(range(1, 40), 0.6), 3: 0.2}
    small = (
        "learning.groups_per_window=16",
        "learning.replay_windows=2",
        "learning.plateau=null",
        "gate.max_probes=64",
    )
    config = settings(tmp_path, *small, f"run.retention.windows={keep}")
    for decided in (7, 10):
        run = LocalSystem(config, tmp_path, ScriptedPolicy(0, accuracy), ScriptedSession(tmp_path))
        await run.run(decided=decided)
    reader = RunReader(tmp_path)
    places = [place for drawn in reader.read_all(WindowDrawn).values() for place in drawn.places]
    assert len(places) == len(set(places)), "a place was used twice"
    assert len(list(reader.all("outcomes", Outcome))) >= len(places)
    forgotten = set(places) - reader.places_held()
    assert bool(forgotten) == (keep == "1")
    again = Buffer(str(tmp_path), local(run.store), config.learning, None, Metrics([MemorySink()]))
    await again.start()
    s = await again.learning.status()
    assert s["leased"] == s["accepted"] + s["filtered"] + s["failed"] + s["expired"] + s["outstanding"]
    newest = max(map(int, reader.keys(WindowDrawn)))
    window = again.state.replay.again(newest)
    assert window is not None and window.examples


# --- folders ---


class Parts:
    """A versions actor with a store, a buffer that only records calls, and folders as the trainer writes them."""

    def __init__(self, folder: Path, keep: int | None) -> None:
        self.folder = folder
        self.store = Store(str(folder))
        buffer: Any = self
        self.versions = Versions(str(folder), local(self.store), buffer, buffer, Metrics([MemorySink()]), keep=keep)

    async def decided(self, *_: Any) -> None: ...

    async def start(self) -> None:
        await self.store.start()
        self.running = asyncio.create_task(self.store.run())
        await self.versions.start()
        await self.versions.trainer.found(self.publish(0, 0))
        self.answering = asyncio.create_task(self.versions.run())

    def publish(self, version: int, parent: int) -> Published:
        path = self.folder / "versions" / f"v{version:04d}"
        if not path.exists():
            with appearing(path, {}) as aside:
                (aside / "weights").write_bytes(b"1")
        ref = PolicyRef(version=version)
        return Published(ref=ref, path=str(path), parent=PolicyRef(version=parent), window=version, fingerprint="f")

    async def decide(self, version: int, verdict: str) -> None:
        await self.versions.trainer.propose(self.publish(version, version - 1))
        slots = self.versions.register.lineage.slots()
        proven = (BASE, *(each.ref for each in slots.loaded))
        await self.versions.replicas.report(ReplicaReport(replica="r", epoch=slots.epoch, proven=proven))
        champion = self.versions.register.lineage.champion
        about = {"verdict": verdict, "candidate": PolicyRef(version=version), "champion": champion}
        body = Decision(**about, reason="t", probes=1, certified=False)
        await self.versions.gate.decide(body, GateLedger())
        await self.versions.gate.reported(version)

    def folders(self) -> list[int]:
        return sorted(int(path.name[1:]) for path in (self.folder / "versions").glob("v*"))

    async def stop(self) -> None:
        self.running.cancel()
        self.answering.cancel()
        await self.store.stop()


async def test_old_folders_go_and_what_is_served_compared_or_undecided_stays(tmp_path: Path) -> None:
    parts = Parts(tmp_path, keep=2)
    await parts.start()
    await parts.decide(1, "promote")
    for version in range(2, 9):
        await parts.decide(version, "hold")
    await parts.versions.trainer.propose(parts.publish(9, 8))
    await until(
        lambda: [v for e in RunReader(tmp_path).events("pruned") for v in e.detail["versions"]] == [2, 3, 4, 5, 6]
    )
    assert parts.folders() == [0, 1, 7, 8, 9]
    assert [published.ref.version for published in RunReader(tmp_path).versions()] == list(range(1, 10))
    with pytest.raises(VersionError, match=r"v3 is pruned, .* run\.retention\.versions"):
        await parts.versions.people.promote(3, "me", "why not")
    await parts.stop()


async def test_without_a_limit_no_folder_goes(tmp_path: Path) -> None:
    parts = Parts(tmp_path, keep=None)
    await parts.start()
    for version in range(1, 7):
        await parts.decide(version, "hold")
    assert parts.folders() == list(range(7))
    await parts.stop()


async def test_a_replica_is_not_kept_waiting_by_a_store_that_waits_for_room(tmp_path: Path) -> None:
    class Stuck(Store):
        async def append(self, records: Any) -> int:
            return await asyncio.Event().wait() or 0

    parts = Parts(tmp_path, keep=None)
    await parts.start()
    await parts.versions.trainer.propose(parts.publish(1, 0))
    parts.versions.register._store = local(Stuck(str(tmp_path)))
    slots = parts.versions.register.lineage.slots()
    report = ReplicaReport(replica="r", epoch=slots.epoch, proven=(BASE, PolicyRef(version=1)))
    async with asyncio.timeout(15):
        await parts.versions.replicas.report(report)
        await parts.versions.replicas.desired(-1, 0.0)
    for task in parts.versions.replicas._considering:
        task.cancel()
    await parts.stop()


def test_what_a_crash_left_half_written_is_swept_away(tmp_path: Path) -> None:
    (tmp_path / ".v0007.0123abcd").mkdir()
    (tmp_path / "v0001").mkdir()
    assert sweep(tmp_path) == [".v0007.0123abcd"]
    assert [child.name for child in tmp_path.iterdir()] == ["v0001"]


# --- metrics ---


def test_metrics_are_bounded_by_one_file_and_the_one_before(tmp_path: Path) -> None:
    sink = JsonlSink(tmp_path / "metrics.jsonl", limit_bytes=4096)
    for at in range(1000):
        sink.flush(float(at), {"x": 1.0})
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["metrics.jsonl", "metrics.jsonl.1"]
    assert all(0 < file.stat().st_size <= 4096 for file in files)
    lines = [line for file in reversed(files) for line in file.read_text().splitlines()]
    assert lines[-1] == '{"at": 999.0, "x": 1.0}' and len(set(lines)) == len(lines)


def test_no_line_is_written_while_nothing_changes_but_one_a_minute() -> None:
    clock, sink = ManualClock(), MemorySink()
    flush = WhenChanged(clock)
    for second in range(121):
        flush([sink], {"tokens": 5.0 if second < 10 else 6.0, "store.free_bytes": float(second)})
        clock.advance(1)
    assert [at for at, _ in sink.snapshots] == [0, 10, 70]


# --- schema ---

SCHEMA_1 = """
CREATE TABLE votes (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, parent TEXT NOT NULL, payload BLOB NOT NULL);
CREATE INDEX votes_by_parent ON votes (parent);
CREATE TABLE groups (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, parent TEXT NOT NULL, payload BLOB NOT NULL);
CREATE INDEX groups_by_parent ON groups (parent);
CREATE TABLE examples (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, parent TEXT NOT NULL, payload BLOB NOT NULL);
CREATE INDEX examples_by_parent ON examples (parent);
CREATE TABLE outcomes (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, parent TEXT NOT NULL, payload BLOB NOT NULL);
CREATE INDEX outcomes_by_parent ON outcomes (parent);
CREATE TABLE versions (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, parent TEXT NOT NULL, payload BLOB NOT NULL);
CREATE INDEX versions_by_parent ON versions (parent);
CREATE TABLE decisions (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, parent TEXT NOT NULL, payload BLOB NOT NULL);
CREATE INDEX decisions_by_parent ON decisions (parent);
CREATE TABLE facts (id TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE events (seq INTEGER PRIMARY KEY, at REAL NOT NULL, actor TEXT NOT NULL, kind TEXT NOT NULL,
    detail TEXT NOT NULL);
PRAGMA user_version = 1;
"""


def run_of_schema_1(folder: Path) -> None:
    db = sqlite3.connect(folder / FILE)
    db.executescript("PRAGMA journal_mode=WAL;" + SCHEMA_1)
    for place in range(4):
        for record in outcome_records(explored(place)):
            row = (record.id, record.parent, record.payload)
            db.execute(f"INSERT INTO {record.table} (id, parent, payload) VALUES (?, ?, ?)", row)
    db.execute("INSERT INTO facts VALUES ('lineage', '{\"serve\": 1}')")
    db.execute("INSERT INTO events (at, actor, kind, detail) VALUES (1.5, 'x', 'started', '{}')")
    db.commit()
    db.close()


def told(reader: RunReader) -> tuple[Any, ...]:
    outcomes = [reader.outcome(place) for place in range(4)]
    return outcomes, list(reader.all("votes", Vote))[:8], reader.read(LineageFact), reader.events("started")


def test_a_run_of_the_first_schema_is_read_as_it_is_and_brought_up_to_date_by_its_writer(tmp_path: Path) -> None:
    run_of_schema_1(tmp_path)
    reader = RunReader(tmp_path)
    before = told(reader)
    reader.close()
    outcomes, votes, lineage, events = before
    assert [len(o.examples) for o in outcomes] == [1, 1, 1, 1] and len(votes) == 8
    assert lineage == LineageFact(serve=1) and events[0].at == 1.5
    store = RunStore(tmp_path)
    assert store.write([*outcome_records(explored(4)), *outcome_records(explored(3))]) == 5
    store.close()
    assert told(RunReader(tmp_path)) == before
    db = sqlite3.connect(tmp_path / FILE)
    assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA,)
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    (tmp_path / "fresh").mkdir()
    RunStore(tmp_path / "fresh").close()
    kinds = "SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite%' ORDER BY name"
    assert db.execute(kinds).fetchall() == sqlite3.connect(tmp_path / "fresh" / FILE).execute(kinds).fetchall()


def test_a_migration_that_dies_half_way_leaves_the_old_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from core.store import schema

    def dies(db: sqlite3.Connection) -> None:
        db.execute("DROP TABLE votes")
        raise KeyboardInterrupt

    run_of_schema_1(tmp_path)
    monkeypatch.setitem(schema.MIGRATIONS, 1, dies)
    with pytest.raises(KeyboardInterrupt):
        RunStore(tmp_path)
    monkeypatch.undo()
    assert len(told(RunReader(tmp_path))[1]) == 8
