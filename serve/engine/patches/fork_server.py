"""Forks the engine process on a CPU from a fork server that has vLLM imported, or is importing it.

vLLM spawns that process after its own imports, and the new process repeats them: on two cores this takes a third of
the time to the first answer. `ratchet up` first starts one fork server for all replicas of its machine (`share`). A
replica without a shared server starts its own while it imports vLLM (`begin`). The engine process ends when its replica
ends for any reason. With a GPU vLLM spawns as usual.

Patched: `get_mp_context` in vllm/v1/engine/utils.py, from which vLLM gets the engine's process class, and Python's
`multiprocessing.forkserver.connect_to_new_process`, so that another process can own the server. Why: vLLM can spawn or
fork (`VLLM_WORKER_MULTIPROC_METHOD`) but not use a fork server, and Python's fork server belongs to one process.
Upstream: no issue is known. Holds for: vLLM 0.31 on Python 3.11 and 3.12.
"""

import importlib
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from core import gc_tuning
from serve.engine.patches import cpu_build, vllm_patch
from serve.http import keys_file

PATCH = vllm_patch("fork_server", without="an engine on a CPU starts later, and may outlive a killed replica")
PRELOADED = ["vllm.v1.engine.core", "vllm.v1.worker.cpu_worker", "serve.engine.worker"]
NICER = 5
"""Added to the replica's niceness for its engine. Learning has a higher niceness still."""
SERVER = "RATCHET_ENGINE_SERVER"
"""Environment variable: the socket of this machine's fork server."""


class EngineProcess(ForkServerProcess):
    def run(self) -> None:
        """Runs in the child. Its parent process (ppid) is the fork server, not the replica."""
        _end_with_the_replica()
        # at the replica's own priority, requests such as votes would wait for the engine's steps
        os.setpriority(os.PRIO_PROCESS, 0, min(19, os.getpriority(os.PRIO_PROCESS, _replica().pid or 0) + NICER))
        from serve.engine.patches import amx

        amx.enable()
        super().run()


def _replica() -> Any:
    replica = multiprocessing.parent_process()
    assert replica is not None, "only a replica starts an engine process"
    return replica


def _end_with_the_replica() -> None:
    """Fork a process that waits until the replica or the engine ends, and then kills the engine: an engine that hangs
    or is suspended cannot end itself."""
    replica, engine = _replica(), os.pidfd_open(os.getpid())
    if os.fork() == 0:
        wait([replica.sentinel, engine])
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(engine, signal.SIGKILL)
        os._exit(0)
    os.close(engine)


@contextmanager
def share(environment: Mapping[str, str]) -> Iterator[Callable[[Path], None]]:
    """Start this machine's fork server, for the engines of all replicas that this process starts from now on. It
    imports vLLM at once. It forks nothing until the yielded function has set the file that all engines print to."""
    if not _applies():
        yield lambda log: None
        return
    with tempfile.TemporaryDirectory(prefix="ratchet-") as folder, socket.socket(socket.AF_UNIX) as listener:
        address = f"{folder}/engines.sock"  # the path of a unix socket must be short
        listener.bind(address)
        listener.listen()
        ends, lives = os.pipe()  # the server ends when the last write end of the pipe is closed
        main = f"from serve.engine.patches.fork_server import serve_forks; serve_forks({listener.fileno()}, {ends})"
        printed = Path(folder, "printed")
        with printed.open("ab") as out:
            server = subprocess.Popen(
                [sys.executable, "-c", main],
                env={k: v for k, v in os.environ.items() if k != keys_file.ENVIRONMENT} | dict(environment),
                pass_fds=[listener.fileno(), ends],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                # It must not get Ctrl-C. Not a new session: Linux gives each session an equal CPU share, whatever its
                # niceness (`sched_autogroup_enabled`)
                process_group=0,
            )
        listener.close()  # only the server may hold it: clients of a dead server would wait forever
        os.close(ends)
        os.environ[SERVER] = address

        def print_to(log: Path) -> None:
            with log.open("ab") as file:
                file.write(printed.read_bytes())
            assert server.stdin is not None
            with suppress(BrokenPipeError):  # the server is dead; each replica starts its own
                server.stdin.write(os.fsencode(log.resolve()))
                server.stdin.close()

        try:
            yield print_to
        finally:
            del os.environ[SERVER]
            os.close(lives)
            server.kill()
            server.wait()


def serve_forks(listener: int, ends: int) -> None:
    """The main function of the shared fork server."""
    gc_tuning.pause()
    for module in PRELOADED:
        importlib.import_module(module)
    gc_tuning.freeze()
    log = os.open(os.fsdecode(sys.stdin.buffer.read()), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    multiprocessing.forkserver.main(listener, ends, [])


class SharedServer(multiprocessing.forkserver.ForkServer):
    """A `multiprocessing` fork server that another process owns."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self._forkserver_address = address
        self._forkserver_alive_fd = os.pipe()[1]

    def ensure_running(self) -> None:
        """Does nothing: its owner keeps it running."""


def begin() -> None:
    """Start a fork server that imports vLLM, unless this machine has a shared one. Call this before anything else, with
    the engine's environment variables set."""
    if not _applies():
        return
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
    if SERVER not in os.environ:
        multiprocessing.forkserver.ensure_running()


def adopt() -> None:
    """Make vLLM start its engine from the fork server."""
    if _applies():
        from vllm.v1.engine import utils

        context = multiprocessing.get_context("forkserver")
        ours = SimpleNamespace(Process=EngineProcess, Queue=context.Queue)
        setattr(utils, "get_mp_context", lambda: ours)  # noqa: B010  # a name that vLLM does not export
        if SERVER in os.environ:
            setattr(multiprocessing.forkserver, "connect_to_new_process", _connect)  # noqa: B010


def _connect(fds: Sequence[int]) -> tuple[int, int]:
    try:
        return SharedServer(os.environ[SERVER]).connect_to_new_process(fds)
    except OSError:  # the shared server is dead
        return multiprocessing.forkserver._forkserver.connect_to_new_process(fds)


def _applies() -> bool:
    return cpu_build() and PATCH.on()
