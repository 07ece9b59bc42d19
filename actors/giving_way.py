"""Who learns gives way: on a machine that learning fills, who answers users and takes in what they say comes first."""

import os
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")
STEPS, NICEST = 15, 19
"""Ray's workers are not nice (`serve.gateway`), engines a little (`serve.engine_process`)."""


def giving_way(part: type[T]) -> type[T]:
    """The same, in a process that is nicer than others of Ray's from the moment it is made, also when it is made
    again."""

    class Learner(part):  # type: ignore[misc, valid-type]
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            give_way()
            super().__init__(*arguments, **settings)

    Learner.__name__ = Learner.__qualname__ = part.__name__  # what Ray calls its process
    return Learner


def give_way() -> None:
    """Linux counts by threads, and a worker of Ray's has some before its actor is made."""
    for thread in map(int, os.listdir("/proc/self/task")):
        with suppress(ProcessLookupError):  # it ended just now
            nice = os.getpriority(os.PRIO_PROCESS, thread)
            os.setpriority(os.PRIO_PROCESS, thread, min(nice + STEPS, NICEST))
