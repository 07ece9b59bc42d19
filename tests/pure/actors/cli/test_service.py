"""The service of a head: what dies comes back, `ray stop` ends all of it, and no logout does."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ray._common.utils import get_ray_address_file
from typer.testing import CliRunner

from actors.cli import service
from actors.cli.main import app
from actors.cli.service import Service
from core.errors import RatchetError, RunInUse


class Head:
    """Ray and Ratchet as two scripts that write down their starts and ends; Ray's address file is theirs."""

    def __init__(self, folder: Path, head: str = "exec sleep 60", ratchet: str = "exec sleep 60") -> None:
        self.told, self.address = folder / "told", folder / "address"
        trap = "trap 'echo end-{0} >> {1}; kill $!; exit 143' TERM; echo {0} $$ >> {1}; {2} & wait $!; exit $?"
        ray = f"touch {self.address}; " + trap.format("ray", self.told, head.removeprefix("exec "))
        up = trap.format("ratchet", self.told, ratchet.removeprefix("exec "))
        self.service = Service(["sh", "-c", ray], ["sh", "-c", up], self.address, self.clear, look_s=0.05, pause_s=0.1)

    def clear(self) -> None:
        with self.told.open("a") as told:
            told.write("clear\n")
        self.address.unlink(missing_ok=True)

    def lines(self, word: str) -> list[str]:
        text = self.told.read_text() if self.told.exists() else ""
        return [line for line in text.splitlines() if line.split()[0] == word]

    def kill(self, word: str) -> None:
        os.kill(int(self.lines(word)[-1].split()[1]), 9)


@contextmanager
def running(head: Head) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=head.service.run)
    thread.start()
    try:
        yield thread
    finally:
        head.service.stopping.set()
        thread.join(20)
        assert not thread.is_alive()


def until(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_ratchet_starts_once_ray_is_up_and_is_started_again_when_it_dies(tmp_path: Path) -> None:
    head = Head(tmp_path)
    with running(head):
        until(lambda: len(head.lines("ratchet")) == 1)
        assert len(head.lines("ray")) == 1
        head.kill("ratchet")
        until(lambda: len(head.lines("ratchet")) == 2)
    assert len(head.lines("ray")) == 1 and not head.lines("clear")
    assert [line.split()[0] for line in head.told.read_text().splitlines()][-2:] == ["end-ratchet", "end-ray"]


def test_a_head_that_dies_is_started_again_with_a_new_ratchet(tmp_path: Path) -> None:
    head = Head(tmp_path)
    with running(head):
        until(lambda: len(head.lines("ratchet")) == 1)
        head.kill("ray")
        until(lambda: len(head.lines("ray")) == 2 and len(head.lines("ratchet")) == 2)
        assert len(head.lines("end-ratchet")) == 1, "the Ratchet of the dead head lives on"
    words = [line.split()[0] for line in head.told.read_text().splitlines()]
    assert words.index("end-ratchet") < words.index("clear"), "it was cleared away around the old Ratchet"
    assert sorted(words[words.index("clear") + 1 :][:2]) == ["ratchet", "ray"]


def test_ray_stop_ends_the_service_and_ratchet(tmp_path: Path) -> None:
    head = Head(tmp_path)
    with running(head) as thread:
        until(lambda: len(head.lines("ratchet")) == 1)
        head.address.unlink()
        thread.join(20)
        assert not thread.is_alive()
    assert len(head.lines("end-ratchet")) == 1 and len(head.lines("ray")) == 1


def test_a_head_that_ends_while_ray_stop_is_at_work_was_stopped_and_not_killed(tmp_path: Path) -> None:
    head = Head(tmp_path)
    head.service.pause_s = 0.5
    with running(head) as thread:
        until(lambda: len(head.lines("ratchet")) == 1)
        head.kill("ray")
        until(lambda: len(head.lines("end-ratchet")) == 1)
        head.address.unlink()
        thread.join(20)
        assert not thread.is_alive()
    assert len(head.lines("ray")) == 1


def test_a_run_that_came_to_its_end_is_not_started_again(tmp_path: Path) -> None:
    head = Head(tmp_path, ratchet="true")
    with running(head):
        until(lambda: len(head.lines("ratchet")) == 1)
        time.sleep(0.5)
        assert len(head.lines("ratchet")) == 1 and not head.lines("end-ray")


def test_what_ends_at_once_is_not_started_again_before_a_pause(tmp_path: Path) -> None:
    head = Head(tmp_path, ratchet="false")
    head.service.pause_s = 0.5
    with running(head):
        until(lambda: len(head.lines("ratchet")) == 1)
        began = time.monotonic()
        until(lambda: len(head.lines("ratchet")) == 3)
        assert time.monotonic() - began > 0.9 and not head.lines("end-ray")


def test_a_head_that_does_not_come_up_is_tried_again_without_ratchet(tmp_path: Path) -> None:
    head = Head(tmp_path, head="exit 1")
    head.service.head = ["sh", "-c", f"echo ray >> {head.told}; exit 1"]
    with running(head):
        until(lambda: len(head.lines("ray")) == 3)
    assert len(head.lines("clear")) >= 2 and not head.lines("ratchet")


def test_it_runs_in_a_session_of_its_own_until_it_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    run_dir, ray = tmp_path / "run", tmp_path / "ray"
    ray.mkdir()
    address = ray / "ray_current_cluster"
    assert get_ray_address_file(None) == str(address), "this would end the Ray of this machine"
    head = ["--", "sh", "-c", f"touch {address}; exec sleep 60"]
    assert service.running(run_dir) is None
    try:
        log = service.start(run_dir, ["--set", "no.such=1", *head])
        process = service.running(run_dir)
        assert process is not None and os.getsid(process.pid) == process.pid != os.getsid(0)
        with pytest.raises(RunInUse, match=f"as process {process.pid}"):
            service.start(run_dir, head)
        until(lambda: "it ended with 1" in log.read_text(), 90)
        assert "unknown setting no" in log.read_text()
    finally:
        service.stop(run_dir)
    assert service.running(run_dir) is None and "Ray's head ended with" in log.read_text()
    service.stop(run_dir)


def test_a_process_that_took_the_number_of_a_dead_service_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / service.PID).write_text(str(os.getpid()))
    service.stop(tmp_path)
    assert service.running(tmp_path) is None


def test_what_does_not_come_up_is_told_with_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with pytest.raises(RatchetError, match="no-such-ray"):
        service.start(tmp_path / "run", ["--", "no-such-ray"])
    monkeypatch.setenv("RAY_REDIS_ADDRESS", "127.0.0.1:9")
    monkeypatch.setenv("RAY_redis_db_connect_retries", "1")  # not Ray's 60 s
    with pytest.raises(RatchetError, match=r"Redis at 127\.0\.0\.1:9 did not delete"):
        service.start(tmp_path / "run", ["--", "no-such-ray"])


def test_how_ray_is_started_has_to_be_said(tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["service", "start", "--dir", str(tmp_path)])
    assert told.exit_code == 2 and "{head}..." in told.output
