"""Forks the engine process on a CPU from a fork server that has vLLM imported, or is importing it.

vLLM spawns that process after its own imports, and the new process repeats them: on two cores this takes a third of
the time to the first answer. `ratchet up` first starts one fork server for its machine (`core/fork_server.py`). A
replica without a shared server starts its own while it imports vLLM (`begin`). The engine process ends when its replica
ends for any reason. With a GPU vLLM spawns as usual.

Patched: `get_mp_context` in vllm/v1/engine/utils.py, from which vLLM gets the engine's process class, and Python's
`multiprocessing.forkserver.connect_to_new_process`, so that another process can own the server. Why: vLLM can spawn or
fork (`VLLM_WORKER_MULTIPROC_METHOD`) but not use a fork server, and Python's fork server belongs to one process.
Upstream: no issue is known. Holds for: vLLM 0.31 on Python 3.11 and 3.12.
"""

import multiprocessing
import multiprocessing.forkserver
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from types import SimpleNamespace
from typing import Any

from core.fork_server import SERVER, connect
from serve.engine.patches import cpu_build, vllm_patch

PATCH = vllm_patch("fork_server", without="an engine on a CPU starts later, and may outlive a killed replica")
PRELOADED = ("vllm.v1.engine.core", "vllm.v1.worker.cpu_worker", "serve.engine.worker")
OF_REPLICAS = ("vllm.v1.engine.async_llm", "vllm.entrypoints.launchers.app")
NICER = 5
"""Added to the replica's niceness for its engine. Learning has a higher niceness still."""


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


def begin() -> None:
    """Start a fork server that imports vLLM, unless this machine has a shared one. Call this before anything else, with
    the engine's environment variables set."""
    if not applies():
        return
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(PRELOADED))
    if SERVER not in os.environ:
        multiprocessing.forkserver.ensure_running()


def adopt() -> None:
    """Make vLLM start its engine from the fork server."""
    if applies():
        from vllm.v1.engine import utils

        context = multiprocessing.get_context("forkserver")
        ours = SimpleNamespace(Process=EngineProcess, Queue=context.Queue)
        setattr(utils, "get_mp_context", lambda: ours)  # noqa: B010  # a name that vLLM does not export
        if SERVER in os.environ:
            setattr(multiprocessing.forkserver, "connect_to_new_process", _connect)  # noqa: B010


def _connect(fds: Sequence[int]) -> tuple[int, int]:
    try:
        return connect(fds)
    except OSError:  # the shared server is dead
        return multiprocessing.forkserver._forkserver.connect_to_new_process(fds)


def applies() -> bool:
    """Whether engines are forked on this machine."""
    return cpu_build() and PATCH.on()
