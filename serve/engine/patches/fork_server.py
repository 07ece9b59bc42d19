"""The process of an engine on a CPU: forked from a server that has imported vLLM, or does so at this moment.

vLLM spawns that process at the end of its own imports, which it then repeats: on two cores a third of the time to the
first answer. `ratchet up` starts one server for all replicas of its machine before anything else (`share`); a replica
that finds none starts its own while it imports vLLM itself (`begin`). An engine's process ends with its replica,
however that ends. With a GPU vLLM's own way is kept.

Patched: `get_mp_context` in vllm/v1/engine/utils.py, which vLLM asks for the process of its engine, and Python's
`multiprocessing.forkserver.connect_to_new_process`, so that the server may be another process's. Why: vLLM can spawn or
fork (`VLLM_WORKER_MULTIPROC_METHOD`), but not from a server; and Python's server belongs to one process. Upstream: no
issue is known. Holds for: vLLM 0.31 on Python 3.11 and 3.12.
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

PATCH = vllm_patch("fork_server", without="an engine on a CPU is up later, and may outlive a replica that is killed")
PRELOADED = ["vllm.v1.engine.core", "vllm.v1.worker.cpu_worker", "serve.engine.worker"]
NICER = 5
"""Than its replica is an engine, and less so than who learns."""
SERVER = "RATCHET_ENGINE_SERVER"
"""Environment: the socket of this machine's server."""


class EngineProcess(ForkServerProcess):
    def run(self) -> None:
        """In the child, whose parent by number is the server."""
        _end_with_the_replica()
        # an engine takes what it gets: at its replica's own priority, whoever takes in a vote waited out its steps
        os.setpriority(os.PRIO_PROCESS, 0, min(19, os.getpriority(os.PRIO_PROCESS, _replica().pid or 0) + NICER))
        from serve.engine.patches import amx

        amx.enable()
        super().run()


def _replica() -> Any:
    replica = multiprocessing.parent_process()
    assert replica is not None, "an engine's process is started by a replica"
    return replica


def _end_with_the_replica() -> None:
    """By a process that does nothing but wait for either's end: an engine that hangs or was stopped could not end
    itself."""
    replica, engine = _replica(), os.pidfd_open(os.getpid())
    if os.fork() == 0:
        wait([replica.sentinel, engine])
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(engine, signal.SIGKILL)
        os._exit(0)
    os.close(engine)


@contextmanager
def share(environment: Mapping[str, str]) -> Iterator[Callable[[Path], None]]:
    """This machine's server, for the engines of all replicas that this process starts from now on. It imports vLLM at
    once, and forks nothing before it has been told, by what this yields, to which file all of them print."""
    if not _applies():
        yield lambda log: None
        return
    with tempfile.TemporaryDirectory(prefix="ratchet-") as folder, socket.socket(socket.AF_UNIX) as listener:
        address = f"{folder}/engines.sock"  # unix sockets want a short path
        listener.bind(address)
        listener.listen()
        ends, lives = os.pipe()  # the server ends when nobody can write there any more
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
                # Ctrl-C is not for it; in a session of its own it would have half of the machine for itself, however
                # nice (Linux, `sched_autogroup_enabled`)
                process_group=0,
            )
        listener.close()  # nobody else's: else who asks a dead server would wait for ever
        os.close(ends)
        os.environ[SERVER] = address

        def print_to(log: Path) -> None:
            with log.open("ab") as file:
                file.write(printed.read_bytes())
            assert server.stdin is not None
            with suppress(BrokenPipeError):  # it is dead: each replica has its own then
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
    """What that server does."""
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
    """Somebody else's, as `multiprocessing` would use its own."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self._forkserver_address = address
        self._forkserver_alive_fd = os.pipe()[1]

    def ensure_running(self) -> None:
        """That is its owner's care."""


def begin() -> None:
    """Start to import, where no server of this machine does. Call it first of all, with the engine's environment
    already set."""
    if not _applies():
        return
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
    if SERVER not in os.environ:
        multiprocessing.forkserver.ensure_running()


def adopt() -> None:
    """Have vLLM start its engine from that server."""
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
    except OSError:  # it is dead
        return multiprocessing.forkserver._forkserver.connect_to_new_process(fds)


def _applies() -> bool:
    return cpu_build() and PATCH.on()
