"""A part in a process of its own starts as it is, and what it built by then is left alone by the garbage collector."""

import gc
import subprocess
import sys

from ray import cloudpickle

from actors.runtime.niceness import hosted


class Part:
    """One that starts."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.started = False

    async def start(self) -> None:
        self.started = True


async def test_a_hosted_part_is_the_part_and_what_it_started_with_is_frozen() -> None:
    kind = cloudpickle.loads(cloudpickle.dumps(hosted(Part, gives_way=False)))
    part, threshold = kind("a"), gc.get_threshold()
    try:
        await part.start()
        assert part.started and part.name == "a" and kind.__name__ == "Part"
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
        gc.set_threshold(*threshold)


PROGRAM = """
import os, threading
from actors.runtime.niceness import NICEST, STEPS, hosted
from tests.pure.actors.runtime.test_niceness import Part

started, ends = threading.Event(), threading.Event()
thread = threading.Thread(target=lambda: (started.set(), ends.wait()))
thread.start()
started.wait()
nicer, part = min(os.nice(0) + STEPS, NICEST), hosted(Part, gives_way=True)("a")
nice = [os.getpriority(os.PRIO_PROCESS, id) for id in (thread.native_id, threading.get_native_id())]
ends.set()
print(nice == [nicer, nicer], part.name)
"""


def test_who_learns_is_nicer_in_all_its_threads_from_the_moment_it_is_made() -> None:
    """In a process of its own: nobody gets that back."""
    found = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["True", "a"]
