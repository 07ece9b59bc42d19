"""Which workers are forked, and that all others start by Ray's own script with the same arguments."""

import json
import os
import sys
from multiprocessing import forkserver
from pathlib import Path

import pytest

from actors.runtime import forked_worker
from core.fork_server import SERVER

SCRIPT = "/ray/_private/workers/default_worker.py"
REST = ["--node-id=1", "--webui="]


class Started(Exception):
    """Stands where the process would become another."""


def started(monkeypatch: pytest.MonkeyPatch, *, context: object = None, script: str = SCRIPT, **environ: str) -> str:
    """What became of the worker: `forked`, or the path of the script that it went on with."""
    for name in (SERVER, forked_worker.JOB):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(forkserver, "connect_to_new_process", forkserver.connect_to_new_process)
    told = [] if context is None else [forked_worker.CONTEXT + json.dumps(context)]
    arguments = [*told, "--language=PYTHON", script, *REST]
    said: list[str] = []

    def become(path: str, argv: list[str]) -> None:
        assert path == argv[0] == sys.executable and argv[2:] == arguments, "Ray's script gets the same arguments"
        said.append(argv[1])
        raise Started

    def leave(code: int) -> None:
        assert code == 0
        said.append("forked")
        raise Started

    monkeypatch.setattr(os, "execv", become)
    monkeypatch.setattr(os, "_exit", leave)
    with pytest.raises(Started):
        forked_worker.main(arguments)
    return said[0]


@pytest.fixture
def forks(monkeypatch: pytest.MonkeyPatch) -> list[forked_worker.Worker]:
    made: list[forked_worker.Worker] = []
    monkeypatch.setattr(forked_worker.Worker, "start", lambda self: made.append(self))
    monkeypatch.setattr("multiprocessing.resource_tracker.getfd", None)
    return made


def test_a_plain_worker_of_the_first_job_is_forked_with_its_own_environment(
    monkeypatch: pytest.MonkeyPatch, forks: list[forked_worker.Worker]
) -> None:
    here = {SERVER: "/tmp/x", forked_worker.JOB: forked_worker.FIRST, "OMP_NUM_THREADS": "2"}
    assert started(monkeypatch, context={"env_vars": {"OMP_NUM_THREADS": "1"}}, **here) == "forked"
    (worker,) = forks
    assert vars(worker)["_script"] == SCRIPT and vars(worker)["_arguments"] == REST
    environment = vars(worker)["_environment"]
    assert environment["OMP_NUM_THREADS"] == "1" and environment[SERVER] == "/tmp/x"
    assert started(monkeypatch, **here) == "forked", "without a runtime environment too"


@pytest.mark.parametrize(
    "changed",
    [
        {SERVER: None},
        {forked_worker.JOB: None},
        {forked_worker.JOB: "02000000"},
        {"context": {"py_executable": "/other/python"}},
        {"context": {"command_prefix": ["nice"]}},
        {"context": {"override_worker_entrypoint": "/x.py"}},
        {"script": "/ray/util/client/server.py"},
    ],
)
def test_any_other_starts_as_ray_starts_it(
    monkeypatch: pytest.MonkeyPatch, forks: list[forked_worker.Worker], changed: dict[str, object]
) -> None:
    told: dict[str, object] = {SERVER: "/tmp/x", forked_worker.JOB: forked_worker.FIRST, **changed}
    path = started(monkeypatch, **{name: value for name, value in told.items() if value is not None})  # type: ignore[arg-type]
    assert Path(path).name == "setup_worker.py" and Path(path).is_file() and not forks


def test_a_worker_whose_server_is_dead_starts_as_ray_starts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multiprocessing.resource_tracker.getfd", None)
    here = {SERVER: "/nobody/listens", forked_worker.JOB: forked_worker.FIRST}
    assert Path(started(monkeypatch, **here)).name == "setup_worker.py"
