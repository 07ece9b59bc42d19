"""A part in a process of its own starts as it is, and what it built by then is left alone by the garbage collector."""

import gc

from ray import cloudpickle

from actors.hosted import hosted


class Part:
    """One that starts."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.started = False

    async def start(self) -> None:
        self.started = True


async def test_a_hosted_part_is_the_part_and_what_it_started_with_is_frozen() -> None:
    kind = cloudpickle.loads(cloudpickle.dumps(hosted(Part)))
    part = kind("a")
    try:
        await part.start()
        assert part.started and part.name == "a" and kind.__name__ == "Part"
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
