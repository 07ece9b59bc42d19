"""Who learns gives way to who answers."""

import os
import subprocess
import sys
import textwrap

from actors.background import NICE, is_background, nice


class Part:
    """Counts."""

    def __init__(self, first: int, *, second: int = 0) -> None:
        self.sum = first + second


def test_learners_are_background_and_who_stands_on_a_users_way_is_not() -> None:
    assert all(map(is_background, ("trainer", "evaluator", "collector-0", "collector-12")))
    assert not any(map(is_background, ("store", "store-1", "buffer", "desk", "versions", "console")))


def test_a_nice_part_is_the_same_class_by_name_whose_process_gives_way_with_every_thread() -> None:
    program = """
        import os, threading
        from tests.pure.test_background import Part
        from actors.background import nice

        waiting = threading.Event()
        threading.Thread(target=waiting.wait, daemon=True).start()
        part = nice(Part)(1, second=2)
        threads = [int(name) for name in os.listdir("/proc/self/task")]
        print(part.sum, isinstance(part, Part), *(os.getpriority(os.PRIO_PROCESS, thread) for thread in threads))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True)
    mine = os.getpriority(os.PRIO_PROCESS, 0)
    assert done.stdout.split() == ["3", "True", str(max(mine, NICE)), str(max(mine, NICE))]
    assert (nice(Part).__name__, nice(Part).__doc__) == ("Part", "Counts.")
