# pyright: basic
"""Forks the workers of a run's own Ray cluster from the machine's fork server, where one is (`core/fork_server.py`).

Ray starts each worker with two interpreters, one after the other, which both import Ray; then the actor imports its own
packages. A forked worker has all of them. Raylet runs this file as a script in place of Ray's own, with the same
arguments; without a fork server, or for anything but a plain Python worker, it hands over to Ray's.

The patch that makes raylet run this file is in local_cluster.py.
"""

import atexit
import json
import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from core.fork_server import SERVER, connect

CONTEXT, LANGUAGE = "--serialized-runtime-env-context=", "--language="
WORKER = "default_worker.py"
JOB, FIRST = "RAY_JOB_ID", "01000000"
"""The variable by which a worker knows its job, and the first job of a cluster. Ray's library reads it once, and so a
fork has that of its server, which is the first. Another job of the same cluster starts its workers as Ray does."""


class Worker(ForkServerProcess):
    """The process that Ray's script would have become."""

    def __init__(self, script: str, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        super().__init__()
        self._script, self._arguments, self._environment = script, arguments, dict(environment)
        self._printed = [os.readlink(f"/proc/self/fd/{fd}") for fd in (1, 2)]

    def run(self) -> None:
        """Runs in the child, until Ray ends the worker."""
        os.setpgid(0, 0)  # Raylet ends a worker with its process group
        os.environ.clear()
        os.environ.update(self._environment)
        for fd, path in enumerate(self._printed, 1):
            if os.path.isabs(path):  # until the worker opens its own logs; not a pipe or a terminal
                file = os.open(path, os.O_WRONLY | os.O_APPEND)
                os.dup2(file, fd)
                os.close(file)
        _make_its_own()
        from ray._raylet import Config  # pyright: ignore[reportAttributeAccessIssue]

        Config.initialize("")  # Ray read its settings from the environment when the fork server imported it
        sys.argv = [self._script, *self._arguments]
        try:
            runpy.run_path(self._script, run_name="__main__")
        finally:
            atexit._run_exitfuncs()  # a child of `multiprocessing` would leave them out


def _make_its_own() -> None:
    """What a fork has from others and must not share: random numbers, OpenMP's threads, a tracker."""
    import numpy

    tracker: Any = resource_tracker._resource_tracker
    tracker._fd = None
    numpy.random.seed()
    torch, threads = sys.modules.get("torch"), os.environ.get("OMP_NUM_THREADS", "")
    if torch is not None and threads.isdecimal():
        torch.set_num_threads(int(threads))


def main(arguments: Sequence[str]) -> None:
    context = next((json.loads(a.removeprefix(CONTEXT)) for a in arguments if a.startswith(CONTEXT)), {})
    script, *rest = [a for a in arguments if not a.startswith((CONTEXT, LANGUAGE))]
    plain = Path(script).name == WORKER and context.get("py_executable", sys.executable) == sys.executable
    special = context.get("command_prefix") or context.get("override_worker_entrypoint")
    if SERVER in os.environ and os.environ.get(JOB) == FIRST and plain and not special:
        sys.path[0] = str(Path(script).parent)
        forkserver.connect_to_new_process = connect
        resource_tracker.getfd = lambda: os.open(os.devnull, os.O_WRONLY)  # else one more process for each worker
        with suppress(OSError, EOFError):  # the server is dead, or dies now
            Worker(script, rest, {**os.environ, **context.get("env_vars", {})}).start()
            os._exit(0)
    ray = find_spec("ray")
    assert ray is not None and ray.origin is not None, "Ray starts this script"
    rays = Path(ray.origin).with_name("_private") / "workers/setup_worker.py"
    os.execv(sys.executable, [sys.executable, str(rays), *arguments])


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[2])  # the folder of this file would hide others' modules
    del __file__  # else the child would import this script again as its main module
    from actors.runtime import forked_worker  # the child finds the class by this name

    forked_worker.main(sys.argv[1:])
