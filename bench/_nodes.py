"""Starts a Ray cluster of several nodes on one machine. Each has its own cache; only the head has the run directory.

To act like other machines, the processes of a node run in a mount namespace in which an empty file system covers the
run directory. This needs the right to mount (root in most containers).
"""

import ctypes
import os
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.thread import BrokenThreadPool
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CLONE_NEWNS = 0x20000
MS_REC, MS_PRIVATE = 0x4000, 0x40000
STORE_BYTES = 600 * 2**20
JOIN_S = 120.0


class Nodes:
    """`folder` has all files of the cluster. `run` is visible to the head only."""

    def __init__(self, folder: Path) -> None:
        from ray.cluster_utils import Cluster

        self.folder = folder
        self.run = folder / "run"
        self.run.mkdir()
        self._temp = tempfile.mkdtemp(prefix="nodes-")  # the path of a unix socket must be short
        self._joined: dict[str, Any] = {}
        self._threads: list[ThreadPoolExecutor] = []
        self._cluster = Cluster()
        try:
            self._joined["head"] = self._cluster.add_node(**self._settings("head"))
        except Exception:
            shutil.rmtree(self._temp, ignore_errors=True)
            raise
        # It would set signal handlers, which fails in threads. Nodes that lose their head end anyway.
        self._cluster._shutdown_at_exit = False

    def join(self, name: str) -> None:
        """Raises: PermissionError where mounting is not allowed."""
        thread = ThreadPoolExecutor(1, initializer=_hide, initargs=(self.run,))
        self._threads.append(thread)
        try:
            self._joined[name] = thread.submit(self._cluster.add_node, **self._settings(name)).result()
        except BrokenThreadPool:
            raise PermissionError("nodes without the run directory need the right to mount; run as root") from None

    def connect(self, namespace: str) -> None:
        import ray

        ray.init(self._cluster.address, namespace=namespace, log_to_driver=False)
        stop_at = time.monotonic() + JOIN_S
        while len([node for node in ray.nodes() if node["Alive"]]) < len(self._joined):
            if time.monotonic() > stop_at:
                raise TimeoutError(f"not all nodes of {list(self._joined)} joined within {JOIN_S:.0f} s")
            time.sleep(0.2)

    def cache(self, name: str) -> Path:
        return self.folder / "caches" / name

    def kill(self, name: str) -> None:
        self._cluster.remove_node(self._joined.pop(name), allow_graceful=False)

    def close(self) -> None:
        import ray

        ray.shutdown()
        for name in [name for name in self._joined if name != "head"]:
            self.kill(name)
        self._cluster.shutdown()
        for thread in self._threads:
            thread.shutdown()
        shutil.rmtree(self._temp, ignore_errors=True)

    def _settings(self, name: str) -> dict[str, Any]:
        return {
            "wait": False,
            "num_cpus": 1,
            "resources": {name: 100},
            "object_store_memory": STORE_BYTES,
            "include_dashboard": False,
            "temp_dir": self._temp,
            "env_vars": {"RATCHET_CACHE": str(self.cache(name)), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        }


def _hide(path: Path) -> None:
    """Hide `path` from this thread and from processes that it starts: they see an empty folder.

    Raises: PermissionError."""
    libc = ctypes.CDLL(None, use_errno=True)
    for result in (
        libc.unshare(CLONE_NEWNS),
        libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None),
        libc.mount(b"tmpfs", os.fsencode(path), b"tmpfs", 0, None),
    ):
        if result != 0:
            raise PermissionError(ctypes.get_errno(), f"mounting is not allowed: {os.strerror(ctypes.get_errno())}")
