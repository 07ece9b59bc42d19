"""Makes pairs: a text that people wrote above samples of the policy."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from core.codec import stable_id
from core.messages import Candidate, Example, Group, Scored
from core.protocols import DropReason, History
from methods.rows import example, row


@dataclass(frozen=True)
class WrittenAbove:
    """For each text of people up to `each` finished samples with other texts, drawn by the ids."""

    method: str
    each: int = 1
    shuffled: bool = False
    """The null control: which side is chosen is drawn by lot."""

    def __call__(self, scored: Sequence[Scored], history: History) -> list[Example]:
        sampled = [c for one in scored if one.group.by == "sample" for c in one.group.candidates if c.finish == "stop"]
        samples = list({candidate.text.strip(): candidate for candidate in sampled}.values())
        written = [(one.group, text) for one in scored if one.group.by == "person" for text in one.group.candidates]
        return [pair for group, text in written for pair in self._pairs(group, text, samples)]

    def _pairs(self, group: Group, text: Candidate, samples: Sequence[Candidate]) -> list[Example]:
        others = [sample for sample in samples if sample.text.strip() != text.text.strip()]
        lots = random.Random(stable_id("written above", self.method, group.id, text.id))
        pairs = [[text, other] for other in lots.sample(others, min(self.each, len(others)))]
        if self.shuffled:
            pairs = [lots.sample(pair, 2) for pair in pairs]
        return [example(self.method, group, pair, [row(one) for one in pair]) for pair in pairs]


def corrected(scored: Scored, history: History) -> DropReason | None:
    """The filter for this selector: drops groups of prompts for which people wrote no text."""
    return None if any(one.group.by == "person" for one in history.groups) else "no_correction"
