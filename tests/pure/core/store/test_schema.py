"""Opening the file of a run: what is set, refused, brought up to date, and what SQLite's errors mean."""

import errno
import os
import sqlite3
from pathlib import Path

import pytest

from core.errors import StorageFull, StoreError
from core.messages import BASE, PolicyRef, Vote
from core.store.encoded import EncodedOutcome, encode_outcome, encode_outcomes
from core.store.facts import (
    Answers,
    BufferCounts,
    GateLedger,
    LineageFact,
    Paused,
    WindowDecided,
    WindowDrawn,
    WindowPruned,
)
from core.store.records import Record, message, outcome_records
from core.store.schema import SCHEMA, TABLES, is_full, is_harmless, open_file, prepare, schema_of, way_out
from core.store.writer import FILE, RunReader, RunStore
from tests.pure.actors.replay.outcomes import explored


def error(code: int) -> sqlite3.OperationalError:
    made = sqlite3.OperationalError("the disk says no")
    made.sqlite_errorcode = code
    return made


def pragma(db: sqlite3.Connection, name: str) -> object:
    return db.execute(f"PRAGMA {name}").fetchone()[0]


def test_the_writers_connection_is_set_for_durable_and_bounded_logs(tmp_path: Path) -> None:
    db = RunStore(tmp_path)._db
    assert db is not None
    names = ("journal_mode", "synchronous", "journal_size_limit", "wal_autocheckpoint", "cache_size", "busy_timeout")
    assert [pragma(db, name) for name in names] == ["wal", 2, 64 * 1024 * 1024, 4000, -32768, 30_000]
    assert (schema_of(db), SCHEMA) == (4, 4)
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        open_file(tmp_path / "nothing.sqlite", read_only=True)


def test_an_empty_file_beside_trained_versions_is_not_taken_for_a_new_run(tmp_path: Path) -> None:
    (tmp_path / "versions" / "v0000").mkdir(parents=True)
    RunStore(tmp_path).close()
    (tmp_path / "versions" / "v0001").mkdir()
    RunStore(tmp_path).close()
    for leave in (lambda: (tmp_path / FILE).write_bytes(b""), (tmp_path / FILE).unlink):
        leave()
        with pytest.raises(StoreError, match="is empty or gone, but there are 1 versions; restore it from a backup"):
            RunStore(tmp_path)


def test_a_foreign_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreError, match=r"run\.sqlite cannot be opened"):
        RunStore(tmp_path)


def refused_and_left_as_it_is(folder: Path, why: str) -> None:
    before = (folder / FILE).read_bytes()
    for opens in (RunStore, RunReader):
        with pytest.raises(StoreError, match=why):
            opens(folder)
    assert (folder / FILE).read_bytes() == before


def test_a_file_of_a_run_that_was_divided_among_several_is_refused(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    store.write([Record("facts", "shard", "", b'{"index": 0, "of": 2}')])
    store.close()
    refused_and_left_as_it_is(tmp_path, r"run\.shards above 1, expected one file a run; ")


def test_a_newer_schema_is_refused_with_the_remedy(tmp_path: Path) -> None:
    RunStore(tmp_path).close()
    db = sqlite3.connect(tmp_path / FILE)
    db.execute("PRAGMA user_version = 99")
    db.commit()
    db.close()
    refused_and_left_as_it_is(tmp_path, r"has schema 99, this program knows 4; use the Ratchet that wrote it")


@pytest.mark.parametrize("schema", [0, 4])
def test_a_file_with_a_table_of_somebody_else_is_refused_unchanged(tmp_path: Path, schema: int) -> None:
    db = sqlite3.connect(tmp_path / FILE)
    db.execute("CREATE TABLE recipes (id TEXT)")
    db.execute(f"PRAGMA user_version = {schema}")
    db.close()
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(StoreError, match=r"is not a run of Ratchet \(tables: \['recipes'\]\)"):
        RunStore(tmp_path)
    assert (tmp_path / FILE).read_bytes() == before


@pytest.mark.parametrize("schema", [-1, 1, 4])
def test_a_schema_without_tables_and_one_below_zero_are_refused(tmp_path: Path, schema: int) -> None:
    db = sqlite3.connect(tmp_path / FILE)
    db.execute("CREATE TABLE votes (id TEXT)")
    if schema > 0:
        db.execute("DROP TABLE votes")
    db.execute(f"PRAGMA user_version = {schema}")
    db.close()
    with pytest.raises(StoreError, match="is not a run of Ratchet"):
        RunStore(tmp_path)


@pytest.mark.parametrize("schema", [1, 2, 3])
def test_a_run_of_any_older_schema_gets_what_it_lacks_and_keeps_what_it_has(tmp_path: Path, schema: int) -> None:
    RunStore(tmp_path).write([message("votes", "a", "p", Vote(id="a", prompt_id="p"))])
    db = sqlite3.connect(tmp_path / FILE)
    kinds = "SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite%' ORDER BY name"
    whole = db.execute(kinds).fetchall()
    assert {name for kind, name in whole if kind == "table"} == {*TABLES, "facts", "events"}
    assert {name for kind, name in whole if kind == "index"} == {*(f"{t}_by_parent" for t in TABLES), "events_by_kind"}
    for table in (("responses", "feedback", "asked") if schema < 3 else ()) + (("resettled",) if schema < 2 else ()):
        db.execute(f"DROP TABLE {table}")
    if schema < 2:
        db.execute("DROP INDEX events_by_kind")
    db.execute(f"PRAGMA user_version = {schema}")
    db.commit()
    RunStore(tmp_path).close()
    assert db.execute(kinds).fetchall() == whole and pragma(db, "user_version") == 4
    assert RunReader(tmp_path).ids("votes") == ["a"]


def test_while_another_process_reads_the_log_the_file_is_not_opened_for_writing(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    store.write([message("votes", "a", "p", Vote(id="a", prompt_id="p"))])
    reading = sqlite3.connect(tmp_path / FILE)
    reading.execute("BEGIN")
    reading.execute("SELECT * FROM votes").fetchall()
    second = sqlite3.connect(tmp_path / FILE, timeout=0)
    with pytest.raises(StoreError, match="while another process reads its log; try again"):
        prepare(second, tmp_path / FILE)
    reading.rollback()
    prepare(second, tmp_path / FILE)


@pytest.mark.parametrize(
    ("code", "harmless", "way"),
    [
        (sqlite3.SQLITE_BUSY, True, "another process holds it; try again"),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, True, "another process holds it; try again"),
        (sqlite3.SQLITE_LOCKED, True, "another process holds it; try again"),
        (sqlite3.SQLITE_FULL, True, "restore it from a backup"),
        (sqlite3.SQLITE_CONSTRAINT_UNIQUE, True, "restore it from a backup"),
        (sqlite3.SQLITE_IOERR_FSYNC, False, "restore it from a backup"),
        (sqlite3.SQLITE_CORRUPT, False, "restore it from a backup"),
    ],
)
def test_what_an_error_of_sqlite_means(code: int, harmless: bool, way: str, tmp_path: Path) -> None:
    assert (is_harmless(error(code)), way_out(error(code))) == (harmless, way)
    assert is_full(error(code), tmp_path) == (code == sqlite3.SQLITE_FULL)
    assert list(tmp_path.iterdir()) == [], "what was tried leaves nothing"


def test_an_error_without_a_code_is_not_trusted() -> None:
    assert not is_harmless(sqlite3.ProgrammingError("a wrong call"))


@pytest.mark.parametrize(("number", "full"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EIO, False)])
def test_a_disk_is_full_if_it_refuses_a_sync_for_want_of_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, full: bool
) -> None:
    def refuse(descriptor: int) -> None:
        assert os.fstat(descriptor).st_size == 4096, "written before it is synced"
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    assert is_full(error(sqlite3.SQLITE_IOERR), tmp_path) == full
    assert list(tmp_path.iterdir()) == []


class Failing:
    """A connection whose every statement ends in this error."""

    total_changes = 0

    def __init__(self, failure: sqlite3.Error) -> None:
        self.failure, self.closed = failure, False

    def __enter__(self) -> "Failing":
        return self

    def __exit__(self, *_: object) -> None: ...

    def execute(self, *_: object) -> None:
        raise self.failure

    executemany = execute

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("code", "kind", "closes"),
    [
        (sqlite3.SQLITE_BUSY, StoreError, False),
        (sqlite3.SQLITE_FULL, StorageFull, False),
        (sqlite3.SQLITE_IOERR, StoreError, True),
    ],
)
def test_a_refused_write_says_why_and_a_connection_that_failed_is_opened_anew(
    tmp_path: Path, code: int, kind: type[StoreError], closes: bool
) -> None:
    vote = message("votes", "a", "p", Vote(id="a", prompt_id="p"))
    store = RunStore(tmp_path)
    good = store._db
    for write in (
        lambda: store.write([vote]),
        lambda: store.forget([1]),
        lambda: store.remove({"votes": ["a"]}),
        lambda: store.forget_responses(1),
    ):
        failing = Failing(error(code))
        store._db = failing  # type: ignore[assignment]
        with pytest.raises(StoreError) as caught:
            write()
        assert type(caught.value) is kind and failing.closed == closes
        assert (store._db is None) == closes
        store._db = None if closes else good
    assert store.write([vote]) == 1
    store.close()
    store.close()
    with pytest.raises(StoreError, match="is closed; nothing was written"):
        store.write([vote])


def test_rows_are_removed_by_table_and_id_and_facts_too(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    store.write([*(message("votes", id, "p", Vote(id=id, prompt_id="p")) for id in "abc"), LineageFact().record()])
    assert store.remove({"votes": ["a", "b", "z"], "facts": ["lineage"]}) == 3
    reader = RunReader(tmp_path)
    assert reader.ids("votes") == ["c"] and reader.read(LineageFact) is None
    with pytest.raises(StoreError, match="no table 'events'"):
        store.remove({"events": ["1"]})


def test_a_forgotten_place_is_marked_if_it_failed_and_only_its_sample_votes_go(tmp_path: Path) -> None:
    store, outcome = RunStore(tmp_path), explored(1, "l")
    cast = Vote(
        id="ann", prompt_id=outcome.prompt_id, by="person", candidate_id=outcome.scored[0].group.candidates[0].id
    )
    old = cast.model_copy(update={"id": "of an older run", "by": "sample"})
    elsewhere = old.model_copy(update={"id": "of another candidate", "candidate_id": "another"})
    rows = [message("votes", v.id, v.prompt_id, v) for v in (cast, old, elsewhere)]
    store.write([*outcome_records(outcome), *outcome_records(explored(2, "l")), *rows])
    gone = store.forget([1, 7], failure="it cannot be read")
    assert (gone.groups, gone.examples, gone.votes) == (1, 1, 1)
    reader = RunReader(tmp_path)
    marked, other = reader.briefs()
    assert (marked.failure, other.failure) == ("it cannot be read", None) and reader.places_held() == {2}
    assert reader.ids("votes") == ["ann", "of another candidate"] and len(reader.ids("examples")) == 1
    assert store.forget([2]).groups == 1
    assert [brief.failure for brief in RunReader(tmp_path).briefs()] == ["it cannot be read", None]


def test_a_damaged_group_is_forgotten_without_its_votes_and_the_others_with_theirs(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    for place in (1, 2):
        outcome = explored(place, "l")
        candidate = outcome.scored[0].group.candidates[0].id
        cast = Vote(id=f"v{place}", prompt_id=outcome.prompt_id, candidate_id=candidate)
        store.write([*outcome_records(outcome), message("votes", cast.id, cast.prompt_id, cast)])
    assert store._db is not None
    with store._db:
        store._db.execute("UPDATE groups SET payload = x'00' WHERE parent = '1'")
    gone = store.forget([1, 2])
    assert (gone.groups, gone.votes) == (2, 1) and RunReader(tmp_path).ids("votes") == ["v1"]


def test_what_an_older_program_did_not_write_has_the_value_that_meant_nothing() -> None:
    lineage = {
        "states": {}, "serve": 0, "champion": 0, "epoch": 0, "next_version": 1, "fallen": 0, "without_gain": 0,
        "rejections": 0, "activated": None, "champions": None, "withdrawn": None, "by_hand": (), "held": None,
        "waiting": None, "due": None,
    }  # fmt: skip
    assert LineageFact().model_dump(exclude={"schema_version"}).items() >= lineage.items()
    counts = ("window", "next_place", "accepted", "filtered", "failed", "expired", "tokens", "stale", "quarantined")
    stored = BufferCounts().model_dump()
    assert {name: stored[name] for name in counts} == dict.fromkeys(counts, 0)
    assert stored["open"] == stored["waiting"] == ()
    ledger = GateLedger()
    assert (ledger.weighed, ledger.superiority_spent, ledger.champion) == (0, 0.0, BASE)
    assert (ledger.champion_asked, ledger.champion_hits) == (0, 0)
    assert WindowPruned().groups == 0 and Paused(reason="r", at=1.0).lasting
    assert not WindowDecided(version=1, rejected=True).discarded and WindowDrawn(places=(), newest=1).oldest is None
    bare = EncodedOutcome(lease_id="l", place=0, prompt_id="p", version=0, rows=())
    assert (bare.revision, bare.candidates, bare.tokens, bare.votes, bare.failure) == (0, 0, 0, {}, None)
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        EncodedOutcome(lease_id="l", place=0, prompt_id="p", version=-1, rows=())


def test_facts_are_stored_under_their_name_and_key() -> None:
    assert WindowPruned(groups=2).record(7)[:3] == ("facts", "pruned:7", "")
    assert Paused.cleared() == Record("facts", "paused", "", b"null")
    assert Answers({"p": ("5", 3)}).record(4) == Record("facts", "answers:4", "", b'{"p":["5",3]}')
    newer = LineageFact.model_validate({"serve": 2, "something": "of a newer program"})
    assert newer == LineageFact(serve=2)


def test_a_ledger_keeps_the_most_hits_of_one_champion_and_none_of_another() -> None:
    ledger = GateLedger(weighed=3, superiority_spent=0.5).with_champion_hits([True, False, True])
    assert (ledger.champion_asked, ledger.champion_hits, ledger.weighed) == (3, 2, 3)
    assert ledger.with_champion_hits([False] * 3) == ledger and ledger.with_champion_hits([True]) == ledger
    assert ledger.with_champion_hits([True] * 4).champion_hits == 4 and ledger.under(BASE) is ledger
    other = ledger.under(PolicyRef(version=1))
    assert (other.champion, other.champion_asked, other.champion_hits) == (PolicyRef(version=1), 0, 0)
    assert (other.weighed, other.superiority_spent) == (3, 0.5)


def test_an_encoded_outcome_has_the_row_and_every_field_of_its_outcome() -> None:
    outcome = explored(3, "l").model_copy(update={"revision": 2, "tokens": 9})
    encoded = encode_outcome(outcome)
    assert (encoded.revision, encoded.tokens, encoded.failure, encoded.prompt_id) == (2, 9, None, outcome.prompt_id)
    assert (encoded.group_ids, encoded.candidates, encoded.shares) == (outcome.named_ids, 1, (1.0,))
    assert encoded.brief[:2] == ("outcomes", "3") and len(encoded.examples) == 1
    failed = explored(3, "l", kind="failed")
    assert encode_outcome(failed).failure == "the policy is away"
    assert encode_outcomes([outcome, failed]) == [encoded, encode_outcome(failed)]
