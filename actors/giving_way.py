"""Who learns gives way: on a machine that learning fills, who answers users and takes in what they say comes first."""

import os
from typing import Any, TypeVar

T = TypeVar("T")
STEPS = 4
"""Ray's workers are 15 nice of at most 19."""


def giving_way(part: type[T]) -> type[T]:
    """The same, in a process that is nicer than others of Ray's from the moment it is made, also when it is made
    again."""

    class Learner(part):  # type: ignore[misc, valid-type]
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            os.nice(STEPS)
            super().__init__(*arguments, **settings)

    Learner.__name__ = Learner.__qualname__ = part.__name__  # what Ray calls its process
    return Learner
