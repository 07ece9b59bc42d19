import subprocess
import sys

PROGRAM = """
import os, pickle
from ray import cloudpickle
from actors.giving_way import giving_way

class Part:
    def __init__(self, number, more=0):
        self.number = number + more

before, made = os.nice(0), pickle.loads(cloudpickle.dumps(giving_way(Part)))(3, more=4)
print(os.nice(0) - before, made.number, type(made).__name__, isinstance(made, Part))
"""


def test_who_learns_is_nicer_than_who_answers_from_the_moment_it_is_made() -> None:
    """In a process of its own: nobody gets that back."""
    found = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    steps, number, name, _ = found.stdout.split()
    assert (int(steps) > 0, number, name) == (True, "7", "Part")
