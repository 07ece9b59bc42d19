"""Makes examples of winners, and of the question that they answer."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from core.codec import example_id, pack_ids, stable_id, unpack_ids
from core.messages import Candidate, Example, Scored
from core.protocols import History
from methods.rows import asking, example
from methods.selectors.winners import Winners


@dataclass(frozen=True)
class Asked:
    """The examples of `winners`, and of each prompt that may be learned one that learns its context."""

    winners: Winners
    ratio: float
    """Weight of a token of a question; one of an answer weighs 1. 0: no questions."""
    live: bool = False
    """False: only prompts of the data set are learned, because the model may repeat them to others."""
    shuffled: bool = False
    """The null control: the tokens of each question in an order drawn by its group's id."""

    def __call__(self, scored: Sequence[Scored], history: History) -> list[Example]:
        return [*self.winners(scored, history), *(self._asking(one) for one in scored if self._may_ask(one))]

    def _may_ask(self, scored: Scored) -> bool:
        group = scored.group
        public = self.live or group.prompt.origin == "dataset"
        return self.ratio > 0 and public and group.by == "sample" and bool(group.candidates[0].context_ids)

    def _asking(self, scored: Scored) -> Example:
        group, candidate = scored.group, scored.group.candidates[0]
        row = asking(_mixed(candidate, group.id) if self.shuffled else candidate)
        made = example(self.winners.method, group, [candidate], [row], weight=self.ratio)
        return made.model_copy(update={"id": example_id(self.winners.method, group.id, "question")})


def _mixed(candidate: Candidate, name: str) -> Candidate:
    ids = unpack_ids(candidate.context_ids)
    random.Random(stable_id("mixed", name)).shuffle(ids)
    return candidate.model_copy(update={"context_ids": pack_ids(ids)})
