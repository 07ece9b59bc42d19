"""Who learns gives way to who answers: the processes of trainer, evaluator and collectors are nice, the others are not.

Ray makes all its workers equally nice (15), those on a user's way too; `WORKERS` has it leave them as they are.
"""

import os
from pathlib import Path
from typing import Any

NICE = 15
WORKERS = {"worker_niceness": 0}
"""Of Ray's settings. A node of a cluster has `RAY_worker_niceness=0` in its environment (configs/cluster)."""
PARTS = ("trainer", "evaluator", "collector")


def is_background(part: str) -> bool:
    return part.startswith(PARTS)


def nice(kind: type) -> type:
    """An actor class whose process gives way before anything else is done in it."""

    def begin(self: Any, *arguments: Any, **settings: Any) -> None:
        give_way()
        kind.__init__(self, *arguments, **settings)

    return type(kind.__name__, (kind,), {"__init__": begin, "__doc__": kind.__doc__})


def give_way() -> None:
    """Every thread that this process has; those that they start inherit it."""
    for thread in Path("/proc/self/task").iterdir():
        number = int(thread.name)
        try:
            os.setpriority(os.PRIO_PROCESS, number, max(NICE, os.getpriority(os.PRIO_PROCESS, number)))
        except ProcessLookupError:  # it ended just now
            continue
