"""Finds processes that a test left behind."""

import contextlib
import time
from collections.abc import Collection
from pathlib import Path

import psutil

HELPERS = "multiprocessing."
"""In the command line of Python's fork server and resource tracker, which end with the process of the tests."""


def left_behind(root: Path, before: Collection[int], patience_s: float = 10.0) -> list[psutil.Process]:
    """Processes that are none of those `before` (pids), and are children of this one or orphans that work below `root`;
    empty as soon as there are none. The environment would be a surer sign, but Ray's processes write over theirs."""
    deadline = time.monotonic() + patience_s
    while (found := _found(root, before)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def _found(root: Path, before: Collection[int]) -> list[psutil.Process]:
    children = {process.pid for process in psutil.Process().children(recursive=True)}
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # it ended, or is another user's
            if process.pid in before or process.status() == psutil.STATUS_ZOMBIE:
                continue
            orphan = process.ppid() == 1 and Path(process.cwd()).is_relative_to(root)
            if orphan or (process.pid in children and HELPERS not in " ".join(process.cmdline())):
                found.append(process)
    return found
