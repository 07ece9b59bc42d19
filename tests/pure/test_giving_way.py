import subprocess
import sys

PROGRAM = """
import os, pickle, threading
from ray import cloudpickle
from actors.giving_way import NICEST, STEPS, giving_way

class Part:
    def __init__(self, number, more=0):
        self.number = number + more

started, ends = threading.Event(), threading.Event()
thread = threading.Thread(target=lambda: (started.set(), ends.wait()))
thread.start()
started.wait()
nicer, made = min(os.nice(0) + STEPS, NICEST), pickle.loads(cloudpickle.dumps(giving_way(Part)))(3, more=4)
nice = [os.getpriority(os.PRIO_PROCESS, id) for id in (thread.native_id, threading.get_native_id())]
ends.set()
print(nice == [nicer, nicer], made.number, type(made).__name__)
"""


def test_who_learns_is_nicer_in_all_its_threads_from_the_moment_it_is_made() -> None:
    """In a process of its own: nobody gets that back."""
    found = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["True", "7", "Part"]
