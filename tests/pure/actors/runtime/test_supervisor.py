"""Watching the parts of a run: who dies, hangs or loses sight of others is started again; the rest ends the run."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest
from ray.exceptions import RayActorError

from actors.cli.up import _check_learning
from actors.runtime.statuses import RunStatus
from actors.runtime.supervisor import RESTARTS, Supervisor
from core.errors import ConfigError, Overdue, RatchetError
from tests.pure.waiting import until

HANG_S = 0.05


class Method:
    def __init__(self, call: Callable[[], Awaitable[Any]]) -> None:
        self._call = call

    def remote(self) -> asyncio.Future[Any]:
        return asyncio.ensure_future(self._call())


class Part:
    """An actor whose `run` is over as soon as a test says so, or its process is killed."""

    def __init__(self) -> None:
        self.starts = 0
        self.quiet = 0.0
        self.answers = True
        self.ended: asyncio.Future[None]
        self.start, self.run, self.quiet_s = Method(self._start), Method(self._run), Method(self._quiet)

    def end(self, error: Exception) -> None:
        if not self.ended.done():
            self.ended.set_exception(error)

    async def _start(self) -> None:
        self.starts += 1
        self.quiet, self.answers = 0.0, True

    async def _run(self) -> None:
        self.ended = asyncio.get_running_loop().create_future()
        await self.ended

    async def _quiet(self) -> float:
        if not self.answers:
            await asyncio.Event().wait()
        return self.quiet


class System:
    def __init__(self) -> None:
        self.parts: dict[str, Any] = {}
        self.killed: list[str] = []
        self.notes: list[tuple[str, dict[str, Any]]] = []
        self.waiting: set[str] = set()

    def connect(self) -> None: ...
    def open_gateway(self) -> None: ...
    def serve(self) -> None: ...
    def disconnect(self) -> None: ...

    def make_core(self) -> None:
        self.parts |= {name: Part() for name in ("store", "versions")}

    def make_learners(self) -> None:
        self.parts |= {name: Part() for name in ("buffer", "trainer")}

    def kill(self, name: str) -> None:
        self.killed.append(name)
        part = self.parts[name]
        part.ended.get_loop().call_soon_threadsafe(part.end, RayActorError())

    async def excused(self, name: str) -> bool:
        return name in self.waiting

    async def note(self, kind: str, **detail: Any) -> None:
        self.notes.append((kind, detail))


def watched(drive: Callable[[System, Supervisor], Awaitable[None]]) -> System:
    async def run() -> System:
        system = System()
        supervisor = Supervisor(system, start_timeout_s=5, stop_timeout_s=5, hang_s=HANG_S, look_s=0.01)
        await supervisor.start()
        await supervisor.learn()
        await asyncio.sleep(0.02)
        try:
            await drive(system, supervisor)
        finally:
            await supervisor.stop()
        return system

    return asyncio.run(run())


def test_a_part_that_dies_is_started_again_and_the_history_says_so() -> None:
    async def drive(system: System, supervisor: Supervisor) -> None:
        system.parts["buffer"].end(RayActorError())
        await until(lambda: bool(system.notes))

    system = watched(drive)
    assert system.parts["buffer"].starts == 2
    assert system.parts["store"].starts == 1
    kind, detail = system.notes[0]
    assert (kind, detail["part"]) == ("restarted", "buffer")
    assert system.killed == []


def test_a_part_that_does_not_answer_is_killed_named_and_started_again() -> None:
    async def drive(system: System, supervisor: Supervisor) -> None:
        system.parts["store"].answers = False
        await until(lambda: len(system.notes) == 2)

    system = watched(drive)
    assert system.killed == ["store"]
    assert [(kind, detail["part"]) for kind, detail in system.notes] == [("hung", "store"), ("restarted", "store")]
    assert system.parts["store"].starts == 2


def test_a_part_whose_work_stands_still_is_killed_though_it_answers() -> None:
    async def drive(system: System, supervisor: Supervisor) -> None:
        system.parts["trainer"].quiet = 10 * HANG_S
        await until(lambda: system.parts["trainer"].starts == 2)

    assert watched(drive).killed == ["trainer"]


def test_a_part_that_waits_for_another_that_is_away_is_left_alone() -> None:
    async def drive(system: System, supervisor: Supervisor) -> None:
        system.waiting = {"trainer"}
        system.parts["trainer"].quiet = 10 * HANG_S
        await asyncio.sleep(10 * HANG_S)
        assert system.killed == []
        system.waiting = set()
        await until(lambda: system.parts["trainer"].starts == 2)

    assert watched(drive).killed == ["trainer"]


def test_a_part_that_lost_sight_of_the_others_gets_a_fresh_process() -> None:
    async def drive(system: System, supervisor: Supervisor) -> None:
        system.parts["trainer"].end(ExceptionGroup("tasks", [Overdue("buffer.draw did not answer within 60 s")]))
        await until(lambda: system.parts["trainer"].starts == 2)

    assert watched(drive).killed == ["trainer"]


def test_a_failure_that_starting_again_cannot_mend_ends_the_run_with_its_reason() -> None:
    async def drive(system: System, supervisor: Supervisor) -> None:
        system.parts["trainer"].end(ConfigError("learning rate of the moon"))
        with pytest.raises(RatchetError, match="trainer: learning rate of the moon"):
            await asyncio.wait_for(supervisor.failed(), 5)

    assert watched(drive).parts["trainer"].starts == 1


def test_a_part_that_keeps_dying_ends_the_run() -> None:
    async def drive(system: System, supervisor: Supervisor) -> None:
        failed = asyncio.ensure_future(supervisor.failed())
        for deaths in range(1, RESTARTS + 2):
            await until(lambda n=deaths: system.parts["buffer"].starts == n and not system.parts["buffer"].ended.done())
            system.parts["buffer"].end(RayActorError())
            await asyncio.sleep(0.01)
        with pytest.raises(RatchetError, match="buffer"):
            await asyncio.wait_for(failed, 5)

    assert watched(drive).parts["buffer"].starts == RESTARTS + 1


def test_a_run_with_an_end_does_not_wait_for_somebody_to_resume_its_trainer() -> None:
    stopped = {
        "buffer": {"paused": "engine and trainer disagree"},
        "trainer": {"phase": "paused"},
        "versions": {"decided": 2},
    }
    with pytest.raises(RatchetError, match=r"after 2 of 5 versions: engine and trainer disagree; .*up --dir"):
        _check_learning(stopped, 5, Path("runs/a"))
    for phase, reason in (("waiting for a window", "paused by hand"), ("paused", None)):
        _check_learning({"buffer": {"paused": reason}, "trainer": {"phase": phase}}, 5, Path("runs/a"))
    _check_learning({}, 5, Path("runs/a"))


def test_a_run_with_an_end_stops_when_the_buffer_has_nothing_to_learn_and_nothing_is_undecided() -> None:
    def status(itself: bool = True, phase: str = "waiting for a window", state: str = "held") -> RunStatus:
        return cast(
            RunStatus,
            {
                "buffer": {"paused": "3 windows in a row had no example", "paused_itself": itself},
                "trainer": {"phase": phase},
                "versions": {"decided": 1, "states": {"1": state}},
            },
        )

    with pytest.raises(RatchetError, match="after 1 of 5 versions: 3 windows in a row had no example"):
        _check_learning(status(), 5, Path("runs/a"))
    for other in (
        status(itself=False), status(phase="training on window 2"), status(state="published"), status(state="proven"),
    ):  # fmt: skip
        _check_learning(other, 5, Path("runs/a"))
