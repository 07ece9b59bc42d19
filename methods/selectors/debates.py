"""Makes examples of a debate: of first answers that its end agrees with, and of last ones that corrected themselves."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from core.codec import stable_id
from core.messages import Example, Scored
from core.protocols import History
from methods.chains import Link, chains
from methods.rows import example, row

KEPT = 0.5
"""Probability that a dialogue that was right from the beginning is learned beside one that corrected itself."""


@dataclass(frozen=True)
class Debates:
    """Generators: right first answers behind the question. Critics: right last answers behind the dialogue, of every
    agent that was wrong first (C-), and after each of those with KEPT one that was right (C+), at random. Nothing of
    the dialogue is learned. What people wrote is learned as it is. Source: arXiv 2501.05707, from its code."""

    method: str
    generators: bool
    critics: bool

    def __call__(self, scored: Sequence[Scored], history: History) -> list[Example]:
        debates = [chain for chain in chains(scored) if len(chain) > 1]
        made = [self._of(chain[0]) for chain in debates if self.generators and chain[0][2] > 0]
        if self.critics:
            made += [self._of(chain[-1]) for chain in self._learned(debates)]
        written = [one for one in scored if one.group.by == "person"]
        return made + [self._of((one.group, c, 1.0)) for one in written for c in one.group.candidates]

    def _learned(self, debates: Sequence[Sequence[Link]]) -> list[Sequence[Link]]:
        agreed = [chain for chain in debates if chain[-1][2] > 0]
        corrected = [chain for chain in agreed if chain[0][2] <= 0]
        steady = [chain for chain in agreed if chain[0][2] > 0]
        lots = random.Random(stable_id("critics", *(chain[-1][1].id for chain in agreed)))
        lots.shuffle(steady)
        kept = sum(lots.random() < KEPT for _ in corrected)
        return [*corrected, *steady[:kept]]

    def _of(self, link: Link) -> Example:
        group, candidate, _ = link
        return example(self.method, group, [candidate], [row(candidate)])
