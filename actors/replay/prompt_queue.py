"""Prompts that people asked and that are to be explored: those that were voted on first, then a sample of the traffic.

They take the next places of the source, whose own prompts there are passed over. What was asked is in the store until
an outcome says that it was explored, so a place's prompt need not be: after a restart another place takes it.
"""

from collections.abc import Iterable, Sequence

from core.messages import Prompt

TRIES = 3
"""A prompt that fails so often is not explored."""


class PromptQueue:
    def __init__(self, room: int) -> None:
        """`room`: so many wait at most; more are refused."""
        self._room = room
        self._voted: dict[str, Prompt] = {}
        self._live: dict[str, Prompt] = {}
        self._at: dict[int, Prompt] = {}
        """By place: what is explored there now."""
        self._tries: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._voted) + len(self._live)

    def missing(self, prompts: Iterable[Prompt]) -> list[Prompt]:
        """Those of them that are to be written down: not waiting, not under way, and with room left."""
        known = {*self._voted, *self._live, *(prompt.id for prompt in self._at.values())}
        new = {prompt.id: prompt for prompt in prompts if prompt.id not in known}
        return list(new.values())[: max(0, self._room - len(self))]

    def add(self, prompts: Iterable[Prompt]) -> None:
        for prompt in prompts:
            (self._live if prompt.origin == "live" else self._voted)[prompt.id] = prompt

    def bind(self, places: Sequence[int]) -> tuple[tuple[int, Prompt], ...]:
        """What is explored at these places of a lease instead of the source's prompts."""
        for place in places:
            if place not in self._at and len(self):
                queue = self._voted or self._live
                self._at[place] = queue.pop(next(iter(queue)))
        return tuple((place, self._at[place]) for place in places if place in self._at)

    def end(self, place: int, again: bool) -> None:
        """An outcome of this place is stored. `again`: it failed, and may be tried at another place, a few times."""
        prompt = self._at.pop(place, None)
        if prompt is None:
            return
        tries = self._tries.pop(prompt.id, 0) + 1
        if again and tries < TRIES:
            self._tries[prompt.id] = tries
            self.add([prompt])
