"""Finds processes that a test left behind."""

import contextlib
import time
from pathlib import Path

import psutil

HELPERS = "multiprocessing."
"""In the command line of Python's fork server and resource tracker, which end with the process of the tests."""


def left_behind(root: Path, since: float, patience_s: float = 10.0) -> list[psutil.Process]:
    """Processes that started since then and are children of this one, or orphans that work below `root`; empty as soon
    as there are none. A child's environment would be a surer sign, but Ray's processes write their titles over it."""
    deadline = time.monotonic() + patience_s
    while (found := _found(root, since)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def _found(root: Path, since: float) -> list[psutil.Process]:
    me = psutil.Process()
    children = {process.pid for process in me.children(recursive=True)}
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # it ended, or is another user's
            if process.pid == me.pid or process.create_time() < since or process.status() == psutil.STATUS_ZOMBIE:
                continue
            orphan = process.ppid() == 1 and Path(process.cwd()).is_relative_to(root)
            if orphan or (process.pid in children and HELPERS not in " ".join(process.cmdline())):
                found.append(process)
    return found
