"""A part in a process of its own. Who learns gives way there: on a machine that learning fills, who answers users and
takes in what they say comes first."""

import os
from contextlib import suppress
from typing import Any

from core import gc_tuning

STEPS, NICEST = 15, 19
"""Ray's workers are not nice (`serve.replica.haproxy`), engines a little (`serve.engine.patches.fork_server`)."""


def hosted(kind: type, *, gives_way: bool) -> type:
    """`kind`, nicer than others of Ray's if it `gives_way`, from the moment it is made, also when it is made again."""

    base: Any = kind

    class Hosted(base):
        def __init__(self, *arguments: object, **settings: object) -> None:
            gc_tuning.pause()
            if gives_way:
                give_way()
            base.__init__(self, *arguments, **settings)

        async def start(self) -> None:
            await base.start(self)
            gc_tuning.freeze()

        async def invoke(self, part: str, method: str, *arguments: object, **settings: object) -> object:
            """A call through `actors.runtime.rpc`, to the actor or to the part of it that carries the port out."""
            target = getattr(self, part) if part else self
            return await getattr(target, method)(*arguments, **settings)

    Hosted.__name__ = Hosted.__qualname__ = kind.__name__  # by which Ray calls the process
    return Hosted


def give_way() -> None:
    """Linux counts by threads, and a worker of Ray's has some before its actor is made."""
    for thread in map(int, os.listdir("/proc/self/task")):
        with suppress(ProcessLookupError):  # it ended just now
            nice = os.getpriority(os.PRIO_PROCESS, thread)
            os.setpriority(os.PRIO_PROCESS, thread, min(nice + STEPS, NICEST))
