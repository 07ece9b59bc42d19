"""What the crash drill counts as lost, doubled, cut, refused, unpromoted and stale."""

from pathlib import Path

from bench._clients import Answered, Attempt, ClientLog
from bench.crash import STALE_S, account, longest_gap, promoted, served_since, stale
from core.messages import Vote
from core.store.facts import PromptVoted, WindowDrawn
from core.store.records import event, message
from core.store.writer import RunReader, RunStore

KILLS = [{"victim": "store", "recovery_s": 1.0, "without_service_s": 0.5}]


def test_what_was_acknowledged_and_is_not_on_disk_is_lost(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    store.write([message("votes", f"v{i}", "p", Vote(id=f"v{i}", prompt_id="p", answer="7")) for i in range(3)])
    clients = ClientLog(tmp_path, votes={"v0", "v2"})
    assert account(tmp_path, clients, KILLS)["lost"] == 0
    clients = ClientLog(tmp_path, votes={"v0", "v9"}, feedback={"f"}, outcomes={"17", "18"})
    found = account(tmp_path, clients, KILLS)
    assert found["lost"] == 4 and found["lost_by"] == {"votes": 1, "feedback": 1, "outcomes": 2}


def test_an_answer_before_its_promotion_or_long_after_its_time_is_noticed(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    store.write(
        [
            event(100.0, "versions", "decided", version=1, verdict="promote"),
            event(150.0, "versions", "decided", version=2, verdict="reject"),
            event(200.0, "versions", "decided", version=3, verdict="promote"),
            event(300.0, "versions", "rolled_back", version=3, serve=1),
        ]
    )
    since = served_since(RunReader(tmp_path))
    assert since == [(0.0, 0), (100.0, 1), (200.0, 3), (300.0, 1)]
    for at, version, allowed in ((50, 0, True), (99, 1, False), (101, 1, True), (199, 3, False), (250, 2, False)):
        assert promoted(Answered(at - 1.0, float(at), version, at + 1.0), since) is allowed, (at, version)
    late = STALE_S + 1
    for asked_at, version, old in (
        (100 + late, 0, True),
        (101, 0, False),
        (200 + late, 1, True),
        (300 + late, 1, False),
        (300 + late, 3, True),
        (1000, 0, True),
    ):
        assert stale(Answered(float(asked_at), asked_at + 1.0, version, asked_at + 2.0), since) is old, (
            asked_at,
            version,
        )


def test_a_vote_that_counts_twice_is_doubled_however_it_came_about(tmp_path: Path) -> None:
    store = RunStore(tmp_path)

    def vote(id: str, voter: str, response: str | None = None) -> Vote:
        return Vote(id=id, prompt_id="p", answer="7", by="person", voter=voter, response_id=response)

    def found() -> int:
        return account(tmp_path, ClientLog(tmp_path), KILLS)["votes_doubled"]

    first, second = vote("v1", "ann", "r1"), vote("v2", "bob", "r1")
    store.write([message("votes", each.id, "p", each) for each in (first, second)])
    store.write([PromptVoted(kept=2).record("p")])
    assert found() == 0
    store.write([PromptVoted(kept=3).record("p")])  # the buffer counted one of them again
    assert found() == 1
    store.write([message("votes", "v3", "p", vote("v3", "ann", "r1"))])  # a like stored under a second id
    assert found() == 1
    store.write([message("votes", "v1-again", "p", vote("v1", "cid")), PromptVoted(kept=4).record("p")])
    assert found() == 2


def test_a_prompt_in_two_windows_is_duplicated(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    store.write([WindowDrawn(places=(1, 2), newest=0).record(1)])
    assert account(tmp_path, ClientLog(tmp_path), KILLS)["duplicated"] == 0
    store.write([WindowDrawn(places=(2, 3, 1), newest=0).record(2)])
    assert account(tmp_path, ClientLog(tmp_path), KILLS)["duplicated"] == 2


def test_each_victim_has_its_own_cut_refused_and_retried_requests(tmp_path: Path) -> None:
    clients = ClientLog(tmp_path, sent_again={"v1", "v2"}, met_twice={"v1"})
    RunStore(tmp_path)
    broken, whole = Attempt("refused", "status 503", 0.5), Attempt("answered", answer=Answered(1.0, 1.5, 0, 2.0))
    clients.add("store", [broken, whole])
    clients.add("engine", [Attempt("cut", "cut after its first token")])
    clients.add("store", [broken, broken, broken])
    kills = [*KILLS, {"victim": "engine", "recovery_s": 3.0, "without_service_s": 2.5}]
    found = account(tmp_path, clients, kills)
    assert [found[how] for how in ("requests", "answered", "cut", "refused", "retried")] == [3, 1, 1, 1, 2]
    assert found["failed_attempts"] == {"status 503": 4, "cut after its first token": 1}
    store, engine = found["by_victim"]["store"], found["by_victim"]["engine"]
    assert [store[how] for how in ("answered", "cut", "refused", "retried")] == [1, 0, 1, 2]
    assert [engine[how] for how in ("answered", "cut", "refused", "retried")] == [0, 1, 0, 0]
    assert engine["without_service_s_max"] == 2.5 and found["without_service_s_sum"] == 3.0
    assert (found["votes_sent_again"], found["votes_sent_again_that_were_stored"]) == (2, 1)


def test_time_without_service_is_the_longest_gap_between_answers() -> None:
    assert longest_gap([10.0, 11.0, 14.5, 15.0]) == 3.5
