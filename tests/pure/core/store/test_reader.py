"""What a reader finds: each query alone, over files of every schema, and each damaged row by name."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from core.codec import pack_ids
from core.errors import StoreError
from core.messages import BASE, Event, Outcome, PolicyRef, Published, Response, Vote
from core.store.facts import LineageFact, Paused, PromptVoted, WindowDrawn
from core.store.reader import RunReader, here
from core.store.records import Record, as_row, event, fact, message, outcome_records, resettled_record
from core.store.writer import FILE, Forgotten, RunStore
from methods.data.prompts import as_prompt
from tests.pure.actors.replay.outcomes import explored
from tests.pure.examples import prefer, reinforce

PARTS = {"group_id": "g", "policy": BASE, "method": "m", "render_id": "r", "context_ids": b""}


def vote(id: str, prompt: str = "p", **more: Any) -> Vote:
    return Vote(id=id, prompt_id=prompt, answer="7", **more)


def votes(*cast: Vote) -> list[Record]:
    return [message("votes", each.id, each.prompt_id, each) for each in cast]


def changed(folder: Path, *statements: str) -> None:
    db = sqlite3.connect(folder / FILE)
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


def test_a_table_is_read_whole_by_parent_by_page_and_by_id(tmp_path: Path) -> None:
    RunStore(tmp_path).write(votes(vote("b"), vote("a"), vote("c", "q"), vote("d")))
    reader = RunReader(tmp_path)
    assert [v.id for v in reader.all("votes", Vote)] == ["b", "a", "c", "d"]
    assert [v.id for v in reader.children("votes", Vote, "p")] == ["b", "a", "d"]
    assert [(n, v.id) for n, v in reader.page("votes", Vote, "p", after=1, limit=1)] == [(2, "a")]
    assert [(n, v.id) for n, v in reader.page("votes", Vote, "p", after=0, limit=9)] == [(1, "b"), (2, "a"), (4, "d")]
    assert reader.ids("votes") == ["b", "a", "c", "d"] and reader.ids("votes", "q") == ["c"]
    assert reader.which("votes", ["a", "z", "d"]) == {"a", "d"} and reader.count("votes") == 4
    assert reader.get("votes", Vote, "c") == vote("c", "q") and reader.get("votes", Vote, "z") is None
    row = votes(vote("a"))[0]
    assert reader.has(row) and not reader.has((*row[:3], b"other")) and not reader.has(("votes", "z", "", row.payload))
    for asks in (lambda: reader.count("nonsense"), lambda: reader.ids("facts")):
        with pytest.raises(StoreError, match="expected one of votes, groups"):
            asks()


def test_events_are_found_by_kind_by_number_and_the_newest_alone(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    assert RunReader(tmp_path).newest_event() == 0
    store.write([event(float(n), "x", kind, n=n) for n, kind in enumerate("aabca", 1)])
    reader = RunReader(tmp_path)
    numbered = reader.numbered_events()
    assert [(number, each.kind) for number, each in numbered] == list(enumerate("aabca", 1))
    assert numbered[2][1] == Event(at=3.0, actor="x", kind="b", detail={"n": 3})
    assert [each.detail["n"] for each in reader.events("a", "c")] == [1, 2, 4, 5]
    assert [each.detail["n"] for each in reader.events("a", newest=2)] == [2, 5]
    assert [number for number, _ in reader.numbered_events(after=3)] == [4, 5]
    assert [each.detail["n"] for each in reader.events(after=1, newest=1)] == [5] and reader.newest_event() == 5


def test_facts_of_one_kind_are_not_those_of_another_with_a_longer_name(tmp_path: Path) -> None:
    drawn = {n: WindowDrawn(places=(n, n + 1), newest=n) for n in (1, 2)}
    RunStore(tmp_path).write([*(d.record(n) for n, d in drawn.items()), PromptVoted(kept=3).record("p"), fact("w", 1)])
    reader = RunReader(tmp_path)
    assert reader.windows() == {1: [1, 2], 2: [2, 3]} and reader.read(WindowDrawn, 2) == drawn[2]
    assert reader.read(WindowDrawn, 3) is None and reader.read(Paused) is None
    assert reader.read_all(PromptVoted) == {"p": PromptVoted(kept=3)} and reader.keys(WindowDrawn) == ["1", "2"]


def outcome_of_two(place: int) -> Outcome:
    """One group, with an example of every kind."""
    whole = explored(place, "l")
    group = whole.scored[0].group.id
    one, two, three = (pack_ids([number]) for number in (1, 2, 3))
    pair = prefer(f"p{place}", one, two, three, group_id=group)
    rewarded = reinforce(f"r{place}", one, two, 1.0, group_id=group)
    return whole.model_copy(update={"examples": (*whole.examples, pair, rewarded)})


def test_an_outcome_is_put_together_from_its_tables_and_has_no_part_of_another(tmp_path: Path) -> None:
    one, two = outcome_of_two(1), outcome_of_two(2)
    in_vain = explored(1, "later")  # its groups are stored, its outcome is not
    RunStore(tmp_path).write([*outcome_records(one), *outcome_records(two), *outcome_records(in_vain)])
    reader = RunReader(tmp_path)
    named = {"group_ids": (one.scored[0].group.id,)}
    assert reader.outcome(1) == one.model_copy(update=named) and reader.outcome(3) is None
    assert [outcome.place for outcome in reader.outcomes()] == [1, 2] and reader.places_held() == {1, 2}
    (brief, other) = reader.briefs()
    assert (brief.scored, brief.examples, brief.votes, brief.place, other.place) == ((), (), (), 1, 2)
    assert [b.place for b in reader.briefs(after_place=1)] == [2] and list(reader.briefs(after_place=2)) == []
    assert [b.place for b in reader.briefs(after_place=77)] == [1, 2]


def test_an_old_outcome_that_names_no_groups_has_all_of_its_place(tmp_path: Path) -> None:
    one = explored(1, "l")
    rows = [row for row in outcome_records(one) if row.table != "outcomes"]
    brief = one.model_copy(update={"scored": (), "examples": ()})
    RunStore(tmp_path).write([*rows, message("outcomes", "1", one.prompt_id, brief)])
    whole = RunReader(tmp_path).outcome(1)
    assert whole is not None and whole.scored == one.scored and whole.examples == one.examples


def settled_again(outcome: Outcome, revision: int) -> Outcome:
    example = outcome.examples[0].model_copy(update={"id": f"e{revision}"})
    return outcome.model_copy(update={"examples": (example,), "revision": revision, "votes": (vote("late"),)})


def test_an_outcome_has_the_examples_of_the_last_time_it_was_settled_unless_it_was_forgotten(tmp_path: Path) -> None:
    store, one = RunStore(tmp_path), explored(1, "l")
    record = resettled_record(settled_again(one, 2))
    assert (record.table, record.id, record.parent) == ("resettled", "1:2", "1")
    store.write([*outcome_records(one), record, resettled_record(settled_again(one, 1))])
    found = RunReader(tmp_path).outcome(1)
    assert found is not None and ([e.id for e in found.examples], found.revision) == (["e2"], 2)
    assert found.scored == one.scored and found.votes == ()
    (stored, _) = RunReader(tmp_path).children("resettled", Outcome, "1")
    assert stored.scored == stored.votes == ()
    two = explored(2, "l")
    store.write([resettled_record(settled_again(two, 1)), *outcome_records(two.model_copy(update={"scored": ()}))])
    bare = RunReader(tmp_path).outcome(2)
    assert bare is not None and bare.revision == 0, "without its groups it is as it was"


def test_files_of_every_schema_are_read_without_the_tables_that_they_lack(tmp_path: Path) -> None:
    store, one, asked = RunStore(tmp_path), explored(1, "l"), as_prompt("why?", origin="asked")
    answer = Response(id="r", prompt=None, texts=("5",), start=BASE, end=BASE, at=1.0)
    store.write([*outcome_records(one), resettled_record(settled_again(one, 1))])
    store.write([message("asked", asked.id, "asked", asked), message("responses", "r", "p", answer)])
    store.close()
    younger = ("responses", "asked", "feedback")
    for schema, dropped, newer, revision in ((3, (), True, 1), (2, younger, False, 1), (1, ("resettled",), False, 0)):
        changed(tmp_path, f"PRAGMA user_version = {schema}", *(f"DROP TABLE {table}" for table in dropped))
        reader = RunReader(tmp_path)
        found = reader.outcome(1)
        assert found is not None and found.revision == revision
        assert bool(reader.unexplored_requests()) == bool(reader.page("responses", Response, "p", 0, 9)) == newer
        reader.close()
    changed(tmp_path, "PRAGMA user_version = 0")
    with pytest.raises(StoreError, match="has schema 0, which is too old to read"):
        RunReader(tmp_path)


@pytest.mark.parametrize(
    ("statement", "read", "named"),
    [
        ("UPDATE votes SET payload = 'text'", lambda r: list(r.all("votes", Vote)), "is damaged .it holds str"),
        ("UPDATE votes SET payload = x'00'", lambda r: r.get("votes", Vote, "a"), "votes 'a' is damaged"),
        ("UPDATE facts SET value = '{'", lambda r: r.read(LineageFact), "fact 'lineage' is damaged"),
        ("UPDATE events SET detail = '{'", lambda r: r.events(), "events 1 is damaged"),
        ("UPDATE groups SET parent = 'x'", lambda r: r.places_held(), "groups 'x' is damaged"),
        ("DROP TABLE decisions", lambda r: r.count("decisions"), "cannot be read .no such table"),
    ],
)  # fmt: skip
def test_a_damaged_row_is_named(tmp_path: Path, statement: str, read: Any, named: str) -> None:
    store = RunStore(tmp_path)
    store.write([*votes(vote("a")), LineageFact().record(), event(1.0, "x", "k"), *outcome_records(explored(1, "l"))])
    store.close()
    changed(tmp_path, statement)
    with pytest.raises(StoreError, match=named):
        read(RunReader(tmp_path))


def test_what_is_no_run_is_refused_and_a_reader_cannot_write(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"holds no run\.sqlite: it is not a run directory"):
        RunReader(tmp_path)
    RunStore(tmp_path).close()
    reader = RunReader(tmp_path)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader._db.execute("DELETE FROM votes")
    reader.close()
    with pytest.raises(StoreError, match="closed database"):
        reader.count("votes")


def test_a_version_lies_where_the_run_lies_now(tmp_path: Path) -> None:
    def at(path: str) -> Published:
        return Published(ref=PolicyRef(version=1), path=path, parent=BASE, window=1, fingerprint="f")

    RunStore(tmp_path).write([message("versions", "v1", "v0", at("/old/versions/v0001"))])
    (tmp_path / "versions" / "v0001").mkdir(parents=True)
    moved = str(tmp_path / "versions" / "v0001")
    assert here(at("/old/versions/v0001"), tmp_path).path == moved
    assert here(at("/old/versions/v0002"), tmp_path).path == "/old/versions/v0002"
    assert here(at("/elsewhere/v0001"), tmp_path).path == "/elsewhere/v0001"
    assert [version.path for version in RunReader(tmp_path).versions()] == [moved]


def test_records_are_plain_rows(tmp_path: Path) -> None:
    record = event(1.5, "buffer", "paused", why="by hand")
    assert record[:3] == ("events", "", "") and json.loads(record.payload)["detail"] == {"why": "by hand"}
    assert type(as_row(record)) is tuple and as_row(record) == tuple(record)
    assert fact("lineage", {"serve": 1}) == Record("facts", "lineage", "", b'{"serve": 1}')
    one = outcome_of_two(3).model_copy(update={"votes": (vote("v", "prompt"),)})
    group = one.scored[0].group.id
    names = [(row.table, row.id, row.parent) for row in outcome_records(one)]
    assert names[0] == ("votes", "v", "prompt") and names[1] == ("groups", group, "3")
    assert {name for name in names if name[0] == "examples"} == {("examples", e.id, group) for e in one.examples}
    assert names[-1] == ("outcomes", "3", one.prompt_id) and len(names) == 6
    assert Forgotten() == Forgotten(0, 0, 0)


def test_old_answers_of_users_and_what_was_explored_are_thrown_away(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    asked = [as_prompt(f"question {n}", origin="asked") for n in range(2)]
    answers = [Response(id=f"r{n}", prompt=None, texts=("5",), start=BASE, end=BASE, at=1.0) for n in range(5)]
    store.write([message("responses", r.id, "", r) for r in answers])
    store.write([message("asked", prompt.id, "asked", prompt) for prompt in asked])
    outcome = Outcome(lease_id="l", place=0, prompt_id=asked[0].id)
    store.write(outcome_records(outcome))
    assert store.forget_responses(keep=2) == 3 and store.forget_responses(keep=2) == 0
    reader = RunReader(tmp_path)
    assert reader.ids("responses") == ["r3", "r4"] and reader.ids("asked") == [asked[1].id]
    assert [prompt.id for prompt in reader.unexplored_requests()] == [asked[1].id]
    assert store.remove({"responses": ["r4", "r9"], "asked": []}) == 1
    store.close()
