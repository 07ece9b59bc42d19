"""Prompts that people asked, waiting to be explored: first those with votes, then a sample of the traffic and what a
method wrote.

Each takes the next place of the prompt source, and the source's own prompt there is skipped. An asked prompt stays in
the store until its outcome is stored. So its place need not be stored: after a restart it gets another place.
"""

from collections.abc import Iterable, Sequence

from core.messages import Prompt

TRIES = 3
"""A prompt that has failed this often is dropped."""


class PromptQueue:
    def __init__(self, room: int) -> None:
        """`room`: the maximum of waiting prompts; more are refused."""
        self._room = room
        self._voted: dict[str, Prompt] = {}
        self._live: dict[str, Prompt] = {}
        self._at: dict[int, Prompt] = {}
        """Place -> the prompt that is being explored there."""
        self._tries: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._voted) + len(self._live)

    def missing(self, prompts: Iterable[Prompt]) -> list[Prompt]:
        """The prompts to store: those that neither wait nor are being explored, up to the room left."""
        known = {*self._voted, *self._live, *(prompt.id for prompt in self._at.values())}
        new = {prompt.id: prompt for prompt in prompts if prompt.id not in known}
        return list(new.values())[: max(0, self._room - len(self))]

    def add(self, prompts: Iterable[Prompt]) -> None:
        for prompt in prompts:
            (self._live if prompt.origin in ("live", "generated") else self._voted)[prompt.id] = prompt

    def bind(self, places: Sequence[int]) -> tuple[tuple[int, Prompt], ...]:
        """Assign waiting prompts to places of a lease; returns the places that do not use the source's prompt."""
        for place in places:
            if place not in self._at and len(self):
                queue = self._voted or self._live
                self._at[place] = queue.pop(next(iter(queue)))
        return tuple((place, self._at[place]) for place in places if place in self._at)

    def end(self, place: int, again: bool) -> None:
        """An outcome of this place is stored. `again`: it failed, and the prompt is queued again, up to `TRIES`
        tries."""
        prompt = self._at.pop(place, None)
        if prompt is None:
            return
        tries = self._tries.pop(prompt.id, 0) + 1
        if again and tries < TRIES:
            self._tries[prompt.id] = tries
            self.add([prompt])
