"""A run of several shards: each prompt in one of them, each with a buffer, a store and a file of its own."""

import asyncio
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as how
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from actors.in_process import LocalSystem, ScriptedRoom
from actors.inspect.export_data import export
from actors.inspect.report import version_rows
from actors.inspect.trace import trace, voters
from actors.people.admin import Console
from actors.replay.buffer import Buffer
from actors.replay.sharding import (
    Buffers,
    ShardStore,
    Stores,
    buffer_of,
    buffer_status,
    part_of,
    store_of,
    store_status,
)
from actors.runtime.rpc import LocalPeer
from actors.storage.backup import _pinned, _snapshots, backup, restore
from actors.storage.run_dir import CONFIG_FILE
from actors.storage.store import Store
from core import config as configuration
from core.clock import ManualClock
from core.codec import decode, decode_batch, encode_batch
from core.config import Config, LearningConfig, RetentionConfig, RunConfig, VotesConfig
from core.errors import ArtifactError, ConfigError, Overdue, StoreError, Unavailable
from core.messages import Lease, Response, Vote, Window
from core.metrics import MemorySink, Metrics
from core.store.encoded import parcels
from core.store.records import Record, event, fact, message, outcome_records
from core.store.schema import check_shards
from core.store.shards import WHOLE, Shard, shard_of, shards_of
from core.store.writer import FILE, RunReader, RunStore
from methods.data.prompts import Prompts, as_prompt
from methods.scripted_policy import ScriptedPolicy
from tests.pure.actors.replay.test_buffer import (
    FATES,
    LEARNING,
    FlakyStore,
    Restarts,
    cast,
    decision,
    explored,
    published,
)
from tests.pure.actors.storage.test_disk_full import until
from tests.pure.methods.test_votes import QUESTIONS, LateVoters
from training.replay.interval_set import Places

N = 3
CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


# --- which is whose ---


def test_a_prompt_is_of_the_same_shard_for_ever_and_the_shards_are_about_equal() -> None:
    assert [shard_of(id, 8) for id in ("", "a", "b", "half \ud800")] == [4, 7, 5, 7]
    assert {shard_of(as_prompt(str(i)).id, 1) for i in range(20)} == {0}
    counts = [0] * 5
    for index in range(5000):
        counts[shard_of(as_prompt(str(index)).id, 5)] += 1
    assert all(900 < count < 1100 for count in counts)


@given(st.integers(9, 60), st.integers(1, 4), st.integers(0, 2))
def test_the_places_of_a_shard_deal_its_prompts_each_once_an_epoch(length: int, shards: int, epoch: int) -> None:
    asked = [as_prompt(f"q{index}") for index in range(length)]
    mine = [[prompt.id for prompt in asked if shard_of(prompt.id, shards) == k] for k in range(shards)]
    if not all(mine):
        with pytest.raises(ConfigError, match=rf"run\.shards={shards}, but shard . has none of the {length} prompts"):
            Prompts(asked, 0, shards=shards)
        return
    prompts = Prompts(asked, 0, shards=shards)
    for shard, ids in zip(shards_of(shards), mine, strict=True):
        first = shard.index + epoch * len(ids) * shards
        assert sorted(prompts[place].id for place in shard.places(first, len(ids))) == sorted(ids)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=60))
def test_places_of_a_shard_are_kept_in_the_room_of_their_gaps(steps: list[tuple[bool, int]]) -> None:
    places, model = Places.below(1 + 10 * N, but=(1 + 3 * N,), stride=N), {1 + n * N for n in range(10)} - {1 + 3 * N}
    for adds, n in steps:
        (places.add if adds else places.discard)(1 + n * N)
        (model.add if adds else model.discard)(1 + n * N)
        assert len(places) == len(model) and all((1 + n * N in places) == (1 + n * N in model) for n in range(32))
    assert places.runs <= 1 + sum(1 + n * N not in model for n in range(31))


def test_a_window_that_cannot_be_divided_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"groups_per_window=256 cannot be divided among run\.shards=3; .* 255, 258"):
        configuration.load(None, ["run.shards=3"])
    assert configuration.load(None, ["run.shards=8"]).run.shards == 8


def test_a_buffer_has_its_part_of_what_the_run_may() -> None:
    learning, votes = LearningConfig(groups_per_window=9), VotesConfig(ballots_per_window=64, asked_room=0)
    assert part_of(learning, votes, WHOLE) == (learning, votes)
    mine, said = part_of(learning, votes, Shard(2, 3))
    assert (mine.groups_per_window, said.ballots_per_window, said.asked_room) == (3, 22, 0)
    assert mine.max_lag == learning.max_lag


# --- files ---


def made(folder: Path, shards: int = N) -> list[RunStore]:
    return [RunStore(folder, shard) for shard in shards_of(shards)]


def vote(id: str, prompt: str) -> Record:
    return message("votes", id, prompt, Vote(id=id, prompt_id=prompt, answer="7"))


def test_a_reader_sees_all_shards_and_facts_and_events_of_the_runs_own_book(tmp_path: Path) -> None:
    for index, store in enumerate(made(tmp_path)):
        store.write([vote(f"v{index}", "p"), vote(f"w{index}", f"p{index}"), fact("a", index)])
        store.write([fact("window:1", {"places": [index]}), event(1.0, "x", f"e{index}")])
    whole, alone = RunReader(tmp_path), RunReader(tmp_path, 1)
    assert sorted(whole.ids("votes")) == ["v0", "v1", "v2", "w0", "w1", "w2"] and whole.ids("votes", "p2") == ["w2"]
    assert sorted(v.id for v in whole.children("votes", Vote, "p")) == ["v0", "v1", "v2"] and whole.count("votes") == 6
    assert whole.which("votes", ["v2", "w0", "x"]) == {"v2", "w0"} and whole.get("votes", Vote, "w1") is not None
    assert (whole.fact("a"), [e.kind for e in whole.events()]) == (0, ["e0"])
    assert whole.windows() == {1: [0, 1, 2]}
    assert alone.ids("votes") == ["v1", "w1"] and (alone.fact("a"), alone.windows()) == (1, {1: [1]})


def test_a_query_over_all_shards_uses_their_indexes_and_sorts_nothing(tmp_path: Path) -> None:
    made(tmp_path)
    reader = RunReader(tmp_path)
    asked: list[str] = []
    reader._db.set_trace_callback(asked.append)
    reader.ids("votes", "p"), reader.children("groups", Vote, "1"), reader.get("outcomes", Vote, "1")
    reader.which("votes", ["a"]), list(reader.all("examples", Vote)), reader.asked_in_vain()
    reader._db.set_trace_callback(None)
    assert len(asked) == 6
    for query in asked:
        plan = [str(row[3]) for row in reader._db.execute(f"EXPLAIN QUERY PLAN {query}")]
        assert not [step for step in plan if "TEMP B-TREE" in step or "CO-ROUTINE" in step], query
        scans = [step for step in plan if step.startswith("SCAN") and "json_each" not in step]
        assert len(scans) == (0 if "WHERE parent =" in query or "WHERE id" in query else N), (query, plan)


def test_a_run_of_one_shard_is_one_file_that_says_nothing_of_shards(tmp_path: Path) -> None:
    RunStore(tmp_path).close()
    reader = RunReader(tmp_path)
    assert [file.name for file in tmp_path.glob("*.sqlite")] == [FILE] and reader.facts("") == {}
    assert not list(reader._db.execute("SELECT name FROM temp.sqlite_master"))


@pytest.mark.parametrize(("had", "wants"), [(1, 2), (3, 1), (3, 2), (2, 3)])
def test_another_number_of_shards_is_refused_by_name(had: int, wants: int, tmp_path: Path) -> None:
    for store in made(tmp_path, had):
        store.close()
    told = rf"run\.sqlite belongs to a run with run\.shards={had}, found run\.shards={wants}; .* set run\.shards={had}"
    with pytest.raises(StoreError, match=told):
        RunStore(tmp_path, Shard(0, wants))
    with pytest.raises(StoreError, match=told):
        check_shards(tmp_path, wants)
    check_shards(tmp_path, had)
    assert len(list(tmp_path.glob("*.sqlite"))) == had


@pytest.mark.parametrize("harm", ["gone", "empty"])
def test_a_shard_that_is_lost_is_refused_by_name_and_not_begun_anew(harm: str, tmp_path: Path) -> None:
    for store in made(tmp_path):
        store.close()
    (tmp_path / "run-1.sqlite").unlink()
    if harm == "empty":
        (tmp_path / "run-1.sqlite").touch()
    for opened in (lambda: RunStore(tmp_path, Shard(0, N)), lambda: RunStore(tmp_path, Shard(1, N))):
        with pytest.raises(StoreError, match=r"run-1\.sqlite is empty or gone, but it is a shard of the run"):
            opened()
    with pytest.raises(StoreError, match=r"run-1\.sqlite"):
        RunReader(tmp_path)
    with pytest.raises(StoreError, match=r"run-1\.sqlite"):
        check_shards(tmp_path, N)
    RunStore(tmp_path, Shard(2, N)).close()


def test_a_file_under_the_name_of_another_shard_is_refused(tmp_path: Path) -> None:
    for store in made(tmp_path):
        store.close()
    (tmp_path / "run-2.sqlite").rename(tmp_path / "run-1.sqlite")
    with pytest.raises(StoreError, match=r"run-1\.sqlite is shard 2 of its run, expected 1"):
        RunStore(tmp_path, Shard(1, N))


def test_a_start_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    RunStore(tmp_path, Shard(1, N)).close()  # the others' files are made before run.sqlite
    sqlite3.connect(tmp_path / FILE).close()
    RunStore(tmp_path, Shard(0, N)).close()
    assert sorted(file.name for file in tmp_path.glob("*.sqlite")) == ["run-1.sqlite", "run-2.sqlite", FILE]


def test_a_backup_is_of_one_moment_and_restored_whole(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / CONFIG_FILE).write_text("")
    stores = made(run)
    for index, store in enumerate(stores):
        store.write([vote(f"v{index}", "p")])
    taken = backup(run, tmp_path / "b").folder
    assert sorted(file.name for file in taken.iterdir() if "sqlite" in file.name) == [
        "run-1.sqlite",
        "run-2.sqlite",
        FILE,
    ]
    restore(taken, tmp_path / "r")
    assert sorted(RunReader(tmp_path / "r").ids("votes")) == ["v0", "v1", "v2"]
    made(tmp_path / "r")
    (taken / "run-2.sqlite").unlink()
    with pytest.raises(ArtifactError, match=r"run-2\.sqlite has digest missing"):
        restore(taken, tmp_path / "again")
    (run / "run-2.sqlite").unlink()
    with pytest.raises(StoreError, match=r"run-2\.sqlite is gone"):
        backup(run, tmp_path / "b2")


def test_what_is_written_while_the_shards_are_copied_is_in_none_of_them(tmp_path: Path) -> None:
    one, two, _ = made(tmp_path)
    with _pinned(tmp_path / FILE) as first, _pinned(tmp_path / "run-1.sqlite") as second:
        one.write([vote("late", "p")])
        two.write([vote("later", "p")])
        for index, source in enumerate((first, second)):
            with closing(sqlite3.connect(tmp_path / f"copy-{index}")) as copy:
                source.backup(copy)
                assert copy.execute("SELECT count(*) FROM votes").fetchone() == (0,)
    assert RunReader(tmp_path).count("votes") == 2


# --- one shard's buffer, in any history ---


class ShardDisk:
    """Where a shard's records go, the versions and decisions of its run in run.sqlite."""

    def __init__(self, run_dir: Path, shard: Shard) -> None:
        self.stores = made(run_dir, shard.of)
        self.shard = shard

    def write(self, records: list[Record]) -> None:
        for record in records:
            of_the_run = record[0] in ("versions", "decisions")
            self.stores[0 if of_the_run else self.shard.index].write([record])

    def close(self) -> None:
        for store in self.stores:
            store.close()


class RestartsOfAShard(Restarts):
    shard = Shard(1, N)
    learning = LEARNING.model_copy(update={"groups_per_window": N * LEARNING.groups_per_window})

    def a_store(self) -> FlakyStore:
        store: Any = FlakyStore(Path(tempfile.mkdtemp()))
        store.disk.close()
        store.disk = ShardDisk(self.folder, self.shard)
        return store


def test_in_any_history_a_shard_loses_and_doubles_no_prompt_and_never_stalls() -> None:
    run_state_machine_as_test(
        RestartsOfAShard,
        settings=how(max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=CHECKS),
    )


# --- all of them, asked as one ---


class ManyShards(RuleBasedStateMachine):
    """A run's buffers behind one peer: any of them restarts, any store keeps a write and does not say so."""

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp())
        self.clock = ManualClock(1.0)
        self.stores: list[Any] = [FlakyStore(Path(tempfile.mkdtemp())) for _ in range(N)]
        for store, disk in zip(self.stores, made(self.folder), strict=True):
            store.disk.close()
            store.disk = disk
        self.held: list[tuple[str, int]] = []
        self.windows: dict[int, tuple[str, ...]] = {}
        self.made = 0
        self.settled = 0
        self.buffers: list[Any] = [None] * N
        for index in range(N):
            self.start(index)

    def start(self, index: int) -> None:
        store = store_of(Shard(index, N), self.stores)
        learning = LEARNING.model_copy(update={"groups_per_window": N * LEARNING.groups_per_window})
        metrics = Metrics([MemorySink()])
        self.buffers[index] = Buffer(
            str(self.folder), store, learning, None, metrics, clock=self.clock, shard=Shard(index, N)
        )
        self.do(self.buffers[index].start())
        self.whole = buffer_of([LocalPeer(buffer) for buffer in self.buffers])

    def do(self, call: Any) -> Any:
        return self.loop.run_until_complete(call)

    def tried(self, method: str, *arguments: Any, fates: tuple[int, list[str]] = (0, [])) -> Any:
        self.stores[fates[0]].fates = list(fates[1])
        try:
            return self.do(self.whole.call(method, *arguments))
        except (Overdue, Unavailable):
            return None
        finally:
            self.stores[fates[0]].fates = []

    @rule(wanted=st.integers(1, 6), token=st.sampled_from(["", "a"]))
    def lease(self, wanted: int, token: str) -> None:
        room = any(b._leases.granted(token) or (b._throttle.capacity and not b._paused) for b in self.buffers)
        body = self.do(self.whole.call("lease", wanted, 0.0, token))
        assert (body is not None) == room, "a shard that has none left is not waited for while another has"
        if body is not None:
            lease = decode(Lease, body)
            assert len({place % N for place in lease.places}) == 1
            self.held += sorted({(lease.id, place) for place in lease.places} - set(self.held))

    @precondition(lambda self: self.held)
    @rule(
        share=st.integers(1, 3),
        kind=st.sampled_from(["accepted", "filtered", "failed"]),
        fates=FATES,
        at=st.integers(0, 2),
    )
    def deliver(self, share: int, kind: str, fates: list[str], at: int) -> None:
        picked = self.held[::share]
        batch = parcels([explored(place, lease, 0, kind) for lease, place in picked])
        results = self.tried("deliver", batch, fates=(at, fates))
        if results is not None:
            assert len(results) == len(picked)
            self.held = [pair for pair in self.held if pair not in picked]

    @rule()
    def a_collector_dies(self) -> None:
        self.held = []
        self.clock.advance(101)
        for buffer in self.buffers:
            self.do(buffer.tick())
            assert not buffer._leases.outstanding

    @rule(fates=FATES, at=st.integers(0, 2))
    def draw(self, fates: list[str], at: int) -> None:
        body = self.tried("draw", self.made, self.made, 0.0, fates=(at, fates))
        if body is None:
            return
        window = decode(Window, body)
        assert window.number == self.made + 1
        assert self.windows.setdefault(window.number, window.group_ids) == window.group_ids
        of = [int(group[1:].split("-")[0]) % N for group in window.group_ids]
        assert of == sorted(of) and all(of.count(k) == LEARNING.groups_per_window for k in range(N))

    @precondition(lambda self: len(self.windows) > self.made)
    @rule(rejected=st.booleans())
    def publish_and_settle(self, rejected: bool) -> None:
        self.made += 1
        self.do(self.whole.call("published", self.made))
        body = decision(self.made, "reject" if rejected else "promote")
        self.stores[0].land()
        self.stores[0].disk.write(
            [
                message("versions", f"policy@v{self.made}", "", published(self.made, 0, self.made)),
                message("decisions", str(body.candidate), "", body),
            ]
        )
        self.do(self.whole.call("settle", self.made, self.made, rejected, False))

    @rule(index=st.integers(0, N - 1), landed=st.booleans())
    def a_buffer_restarts(self, index: int, landed: bool) -> None:
        if landed:
            self.stores[index].land()
        else:
            self.stores[index].late = []
        self.start(index)

    @rule(restarted=st.integers(0, N - 1))
    def pause(self, restarted: int) -> None:
        self.do(self.whole.call("pause", "a person said so"))
        self.start(restarted)
        assert self.do(self.whole.call("lease", 3, 0.0, "")) is None
        assert self.do(self.whole.call("status"))["paused"] == "a person said so"
        self.do(self.whole.call("resume"))
        assert self.do(self.whole.call("status"))["paused"] is None

    @invariant()
    def the_laws_hold(self) -> None:
        status = self.do(self.whole.call("status"))
        assert status["windows_settled"] == self.made
        ended = sum(status[name] for name in ("accepted", "filtered", "failed", "expired", "outstanding"))
        assert status["leased"] == ended
        for buffer in self.buffers:
            assert buffer._throttle.lawful
            assert abs(buffer._replay.counts().windows_drawn - self.made) <= LEARNING.max_lag + 1
        places = [group.split("-")[0] for groups in self.windows.values() for group in groups]
        assert len(places) == len(set(places))

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        target = self.made + 3
        for _ in range(60):
            if self.made >= target:
                break
            self.do(self.whole.call("resume"))  # failures that were thought lost count, and may pause it
            self.a_collector_dies()
            for _ in range(N):
                self.lease(6, "")
            self.deliver(1, "accepted", [], 0)
            self.draw([], 0)
            if len(self.windows) > self.made:
                self.publish_and_settle(False)
        assert self.made >= target, "the run stalled"
        for store in self.stores:
            store.disk.close()
        self.loop.close()
        shutil.rmtree(self.folder)


def test_in_any_history_all_shards_make_the_same_windows_and_none_is_lost() -> None:
    run_state_machine_as_test(
        ManyShards, settings=how(max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=CHECKS)
    )


async def test_a_shard_that_cannot_write_refuses_its_part_and_the_batch_is_sent_again(tmp_path: Path) -> None:
    stores: list[Any] = [FlakyStore(tmp_path / str(k)) for k in range(N) if not (tmp_path / str(k)).mkdir()]
    for store, disk in zip(stores, made(tmp_path), strict=True):
        store.disk.close()
        store.disk = disk
    metrics, clock = Metrics([MemorySink()]), ManualClock(1.0)
    buffers = [
        Buffer(str(tmp_path), store_of(shard, stores), LEARNING, None, metrics, clock=clock, shard=shard)
        for shard in shards_of(N)
    ]
    for buffer in buffers:
        await buffer.start()
    whole = Buffers([LocalPeer(buffer) for buffer in buffers])
    said = [cast(f"v{i}", "5", prompt=f"prompt {i}") for i in range(12)]
    of = [shard_of(vote.prompt_id, N) for vote in said]
    assert set(of) == set(range(N))
    stores[2].fates = ["lost"]
    with pytest.raises(Overdue):
        await whole.call("vote", encode_batch(said))
    again = await whole.call("vote", encode_batch(said))
    assert again == ["waiting" if shard == 2 else "duplicate" for shard in of]
    for vote_, shard in zip(said, of, strict=True):
        revision, votes = await whole.call("votes_on", vote_.prompt_id)
        assert revision == 1 and [v.id for v in decode_batch(Vote, votes)] == [vote_.id]
        assert RunReader(tmp_path, shard).get("votes", Vote, vote_.id) is not None
    assert (await whole.call("status"))["person_votes"] == 12
    with pytest.raises(ArtifactError, match="is by a sample"):
        await whole.call("vote", encode_batch([cast("new", "5", prompt="prompt 1"), cast("x", "5", by="sample")]))
    assert RunReader(tmp_path).count("votes") == 12
    asked = [as_prompt(f"asked {i}") for i in range(9)]
    assert await whole.call("ask", encode_batch(asked)) == 9 and await whole.call("ask", encode_batch(asked)) == 0
    with pytest.raises(LookupError, match="no method 'nonsense' of a buffer in shards"):
        await whole.call("nonsense")


async def test_what_a_shards_buffer_tells_stands_in_the_runs_book(tmp_path: Path) -> None:
    stores: list[Any] = [FlakyStore(tmp_path / str(k)) for k in range(2) if not (tmp_path / str(k)).mkdir()]
    await ShardStore(stores[1], stores[0]).call("append", [event(1.0, "buffer-1", "drawn"), fact("a", 1)])
    told = [(reader.fact("a"), [e.actor for e in reader.events()]) for k in "01" if (reader := RunReader(tmp_path / k))]
    assert told == [(None, ["buffer-1"]), (1, [])]
    said = Record("feedback", "f", "", b"hm")
    assert await ShardStore(stores[1], stores[0]).call("append", [said, fact("b", 1)]) == 2
    assert [RunReader(tmp_path / k).ids("feedback") for k in "01"] == [["f"], []]


def test_the_statuses_of_all_are_one() -> None:
    one = {"paused": None, "paused_at": None, "paused_before_start": False, "waiting": 1, "windows_drawn": 4}
    one |= {"windows_settled": 3, "lag": 0, "vote_share": 0.5, "tokens": 10}
    two = one | {"paused": "why", "paused_at": 7.0, "windows_drawn": 5, "lag": 2, "vote_share": None, "tokens": 5}
    assert buffer_status([one, two, one | {"vote_share": 1.0}]) == {
        **{"paused": "why", "paused_at": 7.0, "paused_before_start": False},
        **{"waiting": 3, "windows_drawn": 4, "windows_settled": 3, "lag": 2, "vote_share": 0.75, "tokens": 25},
    }
    fine = {"writes": 1, "commits": 2, "forgotten_groups": 3, "free_bytes": 9, "room_for_s": None, "full": None}
    full = fine | {"free_bytes": 1, "room_for_s": 3.0, "full": {"why": "no room"}}
    assert store_status([fine, full]) == {
        **{"writes": 2, "commits": 4, "forgotten_groups": 6, "free_bytes": 1, "room_for_s": 3.0},
        "full": {"why": "no room"},
    }


# --- the whole system ---


def settings(folder: Path, *overrides: str, questions: list[str] = QUESTIONS) -> Config:
    pq.write_table(pa.table({"prompt": questions}), folder / "pool.parquet")
    base = [f"prompts.path={folder}/pool.parquet", "gate.enabled=false", "gate.anchors=null", "report.questions=null"]
    return configuration.load(None, [*base, f"run.shards={N}", "learning.plateau=null", *overrides])


def a_system(folder: Path, config: Config, seconds: float = 0.0) -> LocalSystem:
    policy = ScriptedPolicy(0, dict.fromkeys(range(99), 0.9))
    return LocalSystem(config, folder, policy, ScriptedRoom(folder, seconds))


async def test_votes_on_prompts_of_every_shard_change_what_is_trained(tmp_path: Path) -> None:
    config = settings(tmp_path, "learning.groups_per_window=9", "learning.max_lag=0", "run.versions=3")
    system = a_system(tmp_path, config, seconds=0.5)
    crowd: Any = system.whole
    voters_ = LateVoters(crowd, tmp_path)
    system.beside.append(voters_)
    await system.run(decided=3)
    status = await system.whole.call("status")
    assert set(voters_.results) <= {"counted", "waiting"} and status["person_votes"] >= 160
    reader = RunReader(tmp_path)
    windows = reader.windows()
    assert all(sorted(place % N for place in places) == [0, 0, 0, 1, 1, 1, 2, 2, 2] for places in windows.values())
    first = [reader.outcome(place) for place in windows[1]]
    assert all(outcome is not None and outcome.revision == 10 and not outcome.examples for outcome in first)
    for shard in range(N):
        own = RunReader(tmp_path, shard)
        assert {shard_of(outcome.prompt_id, N) for outcome in own.briefs()} == {shard}
        assert {shard_of(vote.prompt_id, N) for vote in own.all("votes", Vote)} == {shard}
    assert [row.version for row in version_rows(reader)] == [0, 1, 2, 3] and version_rows(reader)[1].tokens > 0


async def test_a_run_of_shards_goes_on_from_what_was_copied_of_it_while_it_ran(tmp_path: Path) -> None:
    run, copy = tmp_path / "run", tmp_path / "copy"
    run.mkdir(), copy.mkdir()
    config = settings(run, "learning.groups_per_window=9", questions=[f"question {i}" for i in range(200)])
    first = a_system(run, config)
    running = asyncio.create_task(first.run(decided=6))
    while (await first.versions.status())["decided"] < 2:
        await asyncio.sleep(0.01)
    await asyncio.to_thread(_snapshots, run, copy)
    await running
    second = a_system(copy, config)
    await second.run(decided=6)
    reader = RunReader(copy)
    places = [place for drawn in reader.windows().values() for place in drawn]
    assert len(places) == len(set(places)) and {len(drawn) for drawn in reader.windows().values()} == {9}
    windows = [version.window for version in reader.versions()]
    assert len(windows) >= 6 and sorted(windows) == list(range(1, len(windows) + 1))


async def test_a_trainer_that_died_over_a_window_gets_it_again_from_every_shard_over_a_restart(tmp_path: Path) -> None:
    config = settings(tmp_path, "learning.groups_per_window=9", "run.versions=2")
    first = a_system(tmp_path, config)
    await first.run(decided=2)
    second = a_system(tmp_path, config)
    for part in (*second.stores, *second.buffers):
        await part.start()
    again = [await each.whole.call("draw", 1, 0, 0.0) for each in (first, second, second)]
    assert again[0] == again[1] == again[2]
    window = decode(Window, again[0])
    assert window.number == 2 and len(window.group_ids) == 9
    for store in second.stores:
        await store.stop()
    with pytest.raises(StoreError, match=r"run\.shards=3, found run\.shards=1"):
        await a_system(tmp_path, config.model_copy(update={"run": config.run.model_copy(update={"shards": 1})})).run()


async def test_learning_stands_still_while_one_shard_finds_no_room_and_says_so(tmp_path: Path) -> None:
    config = settings(tmp_path, "learning.groups_per_window=9", questions=[f"question {i}" for i in range(200)])
    system, free = a_system(tmp_path, config), [10**12]
    system.stores[1]._free = lambda _: free[0]
    going = asyncio.create_task(system.run(decided=4))
    while (await system.versions.status())["decided"] < 1:
        await asyncio.sleep(0.01)
    free[0] = 0
    await until(lambda: system.stores[1]._full)
    status = Stores([LocalPeer(store) for store in system.stores])
    assert (await status.call("status"))["full"] is not None and (await status.call("status"))["free_bytes"] == 0
    await asyncio.sleep(0.3)
    commits = system.stores[1]._commits
    await asyncio.sleep(0.3)
    assert system.stores[1]._commits == commits and not going.done()
    free[0] = 10**12
    await going
    assert len(RunReader(tmp_path, 1).events("disk_full")) == 1
    assert {len(drawn) for drawn in RunReader(tmp_path).windows().values()} == {9}


async def test_each_shards_store_throws_away_what_no_window_of_its_own_can_need(tmp_path: Path) -> None:
    made(tmp_path)
    shard, learning = Shard(1, N), LearningConfig(groups_per_window=6, replay_windows=1, max_lag=0)
    store = Store(str(tmp_path), RunConfig(retention=RetentionConfig(windows=1)), learning, shard=shard)
    await store.start()
    running = asyncio.create_task(store.run())
    for window in range(1, 6):
        places = list(shard.places(1 + 2 * N * (window - 1), 2))
        await store.append([record for place in places for record in outcome_records(explored(place, "l"))])
        await store.append([fact(f"window:{window}", {"places": places, "newest": 0})])
    for window in range(1, 5):
        await store.append([fact(f"settled:{window}", {"version": window, "rejected": False, "discarded": False})])
    await until(lambda: len(RunReader(tmp_path, 1).facts("pruned:")) == 3)
    assert RunReader(tmp_path).places_held() == {*shard.places(1 + 6 * N, 4)}
    assert RunReader(tmp_path).count("outcomes") == 10
    assert [each.actor for each in RunReader(tmp_path, 1).events("pruned")][:1] == ["store-1"]
    running.cancel()
    await store.stop()


async def test_feedback_reaches_its_shard_and_what_came_of_it_is_traced_exported_and_forgotten(tmp_path: Path) -> None:
    config = settings(
        tmp_path, "learning.groups_per_window=9", "learning.replay_windows=4", "method.answer.kind=pattern"
    )
    system = a_system(tmp_path, config, seconds=0.2)
    console = Console({"buffer": system.whole, "desk": LocalPeer(system.desk)}, 1, str(tmp_path))
    running = asyncio.create_task(system.run(decided=10**6))
    asked = [f"What is {i} and 2?" for i in range(6)]
    of = {shard_of(as_prompt(question).id, N) for question in asked}
    assert of == set(range(N))
    try:
        while not (tmp_path / FILE).is_file() or not (await system.whole.call("status"))["leased"]:
            await asyncio.sleep(0.02)
        about = {"start": {"version": 0}, "end": {"version": 0}, "texts": ["The answer is 5."], "key": "shop"}
        chats = [[{"role": "user", "content": question}] for question in asked]
        await system.desk.answered([{"id": f"r{i}", "messages": chat, **about} for i, chat in enumerate(chats)])
        said = [{"response_id": f"r{i}", "binary": True, "user": "ann", "id": str(i)} for i in range(6)]
        (results,) = await system.desk.feedback([(said, "shop", False)])
        assert not isinstance(results, Exception) and [each["result"] for each in results] == ["waiting"] * 6
        async with asyncio.timeout(60):
            while not all(
                any(e["versions"] for e in trace(RunReader(tmp_path), f"r{i}")["explored"]) for i in range(6)
            ):
                await asyncio.sleep(0.1)
        found = trace(RunReader(tmp_path), "r1")
        version = found["explored"][0]["versions"][0]["version"]
        assert found["votes"][0]["voter"] == "shop/ann"
        assert voters(RunReader(tmp_path), int(version[1:]))["shop/ann"] >= 1
        assert export(RunReader(tmp_path), "sft", tmp_path / "sft.jsonl") > 0
        assert export(RunReader(tmp_path), "kto", tmp_path / "kto.jsonl") == 6
        gone = await console.command("forget", "shop")
        assert gone["votes"] == 6 and int(version[1:]) in gone["versions"] == sorted(set(gone["versions"]))
        reader = RunReader(tmp_path)
        assert not [v for v in reader.all("votes", Vote) if v.by == "person"] and reader.count("feedback") == 0
        assert reader.get("responses", Response, "r1") is None
        assert all(not RunReader(tmp_path, k).facts("first:") for k in range(N))
        assert (await console.command("forget", "shop"))["votes"] == 0
        status = await Stores([LocalPeer(store) for store in system.stores]).call("status")
        assert status["writes"] > 0 and status["full"] is None
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
