"""Turns a class into a Ray actor: one that can be called through a port, with a CPU priority.

`hosted` adds the method that `actors.runtime.rpc` calls, and tunes the garbage collector. Actors that learn run at a
lower priority, so that on a busy machine the actors that answer users and record feedback get the CPU first.
"""

import os
from contextlib import suppress
from typing import Any

from core import gc_tuning

STEPS, NICEST = 15, 19
"""Steps added to a process's niceness, and the upper bound. Ray's workers have niceness 0 (`serve.replica.haproxy`),
engines a little more (`serve.engine.patches.fork_server`)."""


def hosted(kind: type, *, gives_way: bool) -> type:
    """A subclass of `kind` to run as a Ray actor. `gives_way`: it lowers its priority whenever Ray creates or restarts
    it."""

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
            """Carry out a call of `actors.runtime.rpc`, on the actor or on its attribute `part` that implements the
            port."""
            target = getattr(self, part) if part else self
            return await getattr(target, method)(*arguments, **settings)

    Hosted.__name__ = Hosted.__qualname__ = kind.__name__  # Ray names the process after it
    return Hosted


def give_way() -> None:
    """Lower the priority of every thread: on Linux niceness is per thread, and a Ray worker has several threads before
    its actor is created."""
    for thread in map(int, os.listdir("/proc/self/task")):
        with suppress(ProcessLookupError):  # the thread has ended
            nice = os.getpriority(os.PRIO_PROCESS, thread)
            os.setpriority(os.PRIO_PROCESS, thread, min(nice + STEPS, NICEST))
