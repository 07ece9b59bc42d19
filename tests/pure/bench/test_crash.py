"""What the crash drill counts as lost, unpromoted and stale."""

from pathlib import Path

from bench._live import Answered, ClientLog
from bench.crash import STALE_S, account, promoted, served_since, stale
from core.messages import Vote
from core.store.records import event, message
from core.store.writer import RunReader, RunStore

KILLS = [{"victim": "store", "recovery_s": 1.0, "service_s": 0.5}]


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
        assert promoted(Answered(at - 1.0, float(at), version), since) is allowed, (at, version)
    late = STALE_S + 1
    for asked_at, version, old in (
        (100 + late, 0, True),
        (101, 0, False),
        (200 + late, 1, True),
        (300 + late, 1, False),
        (300 + late, 3, True),
        (1000, 0, True),
    ):
        assert stale(Answered(float(asked_at), asked_at + 1.0, version), since) is old, (asked_at, version)


def test_what_clients_were_told_survives_a_restart_of_the_drill(tmp_path: Path) -> None:
    clients = ClientLog(tmp_path, votes={"v"}, feedback={"f"}, outcomes={"1"}, answers=[Answered(1.0, 2.0, 3)])
    clients.failed["cut off"] += 2
    clients.save()
    again = ClientLog(tmp_path)
    again.load()
    assert again == clients and again.requests == 3
