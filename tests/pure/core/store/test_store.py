import asyncio
import sqlite3
from pathlib import Path

import pytest

from actors.storage.store import Store
from core.errors import StoreError
from core.messages import Vote
from core.store.facts import LineageFact, Paused, PromptVoted
from core.store.records import event, message
from core.store.writer import FILE, RunReader, RunStore


def vote(id: str) -> Vote:
    return Vote(id=id, prompt_id="p", answer="7")


def test_a_record_written_twice_stands_once(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    assert store.write([message("votes", "a", "p", vote("a"))]) == 1
    assert store.write([message("votes", "a", "p", vote("a")), message("votes", "b", "p", vote("b"))]) == 1
    reader = RunReader(tmp_path)
    assert [v.id for v in reader.children("votes", Vote, "p")] == ["a", "b"]
    assert reader.get("votes", Vote, "b") == vote("b")


def test_a_write_that_fails_leaves_nothing_of_its_batch(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    with pytest.raises(StoreError, match="no table 'nonsense'"):
        store.write([message("votes", "a", "p", vote("a")), message("nonsense", "b", "p", vote("b"))])
    assert RunReader(tmp_path).count("votes") == 0


def test_facts_are_replaced_and_events_are_kept_in_order(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    store.write([LineageFact(serve=1).record(), event(1.0, "x", "first"), event(2.0, "x", "second", n=3)])
    store.write([LineageFact(serve=2).record()])
    reader = RunReader(tmp_path)
    lineage = reader.read(LineageFact)
    assert lineage is not None and lineage.serve == 2
    assert [(e.kind, e.detail) for e in reader.events()] == [("first", {}), ("second", {"n": 3})]
    assert [e.kind for e in reader.events(after=1)] == ["second"]


def test_a_fact_is_read_by_its_type_and_key_and_none_stands_once_it_is_cleared(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    store.write([Paused(reason="by hand", at=1.0).record(), *(PromptVoted(kept=n).record(f"p{n}") for n in (1, 2))])
    reader = RunReader(tmp_path)
    assert reader.read(Paused) == Paused(reason="by hand", at=1.0) and reader.read(LineageFact) is None
    assert reader.read_all(PromptVoted) == {"p1": PromptVoted(kept=1), "p2": PromptVoted(kept=2)}
    store.write([Paused.cleared(), PromptVoted.cleared("p1")])
    assert reader.read(Paused) is None and reader.read_all(PromptVoted) == {"p2": PromptVoted(kept=2)}
    assert sorted(reader.keys(PromptVoted)) == ["p1", "p2"], "the names, whatever they hold"


def test_the_disk_is_synced_before_a_write_returns(tmp_path: Path) -> None:
    RunStore(tmp_path)
    database = sqlite3.connect(tmp_path / FILE)
    assert database.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    store = RunStore(tmp_path)
    assert store._db.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL


def test_a_file_of_another_schema_is_refused_by_name(tmp_path: Path) -> None:
    RunStore(tmp_path).close()
    database = sqlite3.connect(tmp_path / FILE)
    database.execute("PRAGMA user_version = 99")
    database.commit()
    with pytest.raises(StoreError, match=r"run\.sqlite has schema 99"):
        RunReader(tmp_path)


async def test_what_many_append_at_once_shares_commits_and_all_is_answered(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    await store.start()
    running = asyncio.create_task(store.run())
    await asyncio.gather(*(store.append([message("votes", str(i), "p", vote(str(i)))]) for i in range(200)))
    status = await store.status()
    assert RunReader(tmp_path).count("votes") == 200
    assert status["commits"] < 50
    running.cancel()


async def test_a_refused_write_reaches_the_one_who_asked(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    await store.start()
    running = asyncio.create_task(store.run())
    with pytest.raises(StoreError, match="no table"):
        await store.append([("nonsense", "a", "b", b"")])
    assert await store.append([message("votes", "a", "p", vote("a"))]) == 1
    running.cancel()


async def test_a_store_that_is_stopped_under_load_ends_its_commit_and_refuses_the_rest(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    await store.start()
    running = asyncio.create_task(store.run())
    waiting = [asyncio.create_task(store.append([message("votes", str(i), "p", vote(str(i)))])) for i in range(50)]
    await asyncio.sleep(0)
    running.cancel()
    await store.stop()
    with pytest.raises(StoreError, match="is closed"):
        store._store.write([message("votes", "late", "p", vote("late"))])  # type: ignore[union-attr]
    for task in waiting:
        task.cancel()
