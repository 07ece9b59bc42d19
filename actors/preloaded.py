# pyright: basic
"""What the fork server imports for Ray's workers (actors/runtime/forked_worker.py): what actors and replicas need.

Ray draws the ids of workers and tasks from a random stream that a fork would go on with: two workers with the same ids
end in a crash. The stream begins with the first id drawn, and a class that becomes an actor class at import draws one.
Here it gets its id from the operating system instead. Import this module before `ray.serve`.
"""

import os
from types import SimpleNamespace
from typing import Any

import ray.actor

_rays: Any = ray.actor
_ActorClassID = _rays.ActorClassID
_rays.ActorClassID = SimpleNamespace(from_random=lambda: _ActorClassID(os.urandom(_ActorClassID.size())))

import peft  # noqa: E402, F401  # the trainer's
import ray._private.workers.default_worker  # noqa: E402
import ray.serve._private.controller  # noqa: E402
import ray.serve._private.haproxy  # noqa: E402

import actors.system  # noqa: E402, F401

_rays.ActorClassID = _ActorClassID


def drawn_by_a_fork() -> bytes:
    """The first id that a fork of this process draws."""
    reads, writes = os.pipe()
    if os.fork() == 0:
        os.write(writes, ray.WorkerID.from_random().binary())
        os._exit(0)
    os.close(writes)
    with open(reads, "rb") as told:
        drawn = told.read()
    os.wait()
    return drawn


def check_before_forking() -> None:
    """Called by the fork server (`core.fork_server`)."""
    if drawn_by_a_fork() == drawn_by_a_fork():
        raise ImportError(
            "two forks of this process draw the same ids of Ray; workers must start without a fork server"
        )
