"""Makes examples of chats of two attempts at one question."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from core.messages import Candidate, Example, Group, Scored
from core.protocols import History
from methods.rows import example, row


@dataclass(frozen=True)
class Chain:
    """A first attempt and the second one that followed, each with its reward."""

    first: tuple[Group, Candidate, float]
    second: tuple[Group, Candidate, float]


def chains(scored: Sequence[Scored]) -> Iterator[Chain]:
    """In the order of the first attempts; what was dropped has none."""
    seconds = {one.group.parent: one for one in scored if one.group.parent is not None}
    for one in scored:
        if one.group.parent is not None or one.group.by != "sample":
            continue
        for candidate, reward in zip(one.group.candidates, one.verdict.scores, strict=True):
            if (after := seconds.get(candidate.id)) is not None:
                then = after.group.candidates[0], after.verdict.scores[0]
                yield Chain((one.group, candidate, reward), (after.group, *then))


@dataclass(frozen=True)
class ByTurn:
    """Examples of both attempts, each with an advantage over the same turn of its siblings; advantages of 0 stay, since
    the divergence from the reference is learned there too.

        A1 = r1 - mean(r1)          A2 = s - mean(s),  s = r2 + alpha (r2 - r1)             stage 2
        A1 = 0                      A2 = r2 - mean(r2)                                       stage 1

    In stage 1 only the first attempt is held near the reference, `first_kl` times as strongly. Not divided by the
    standard deviation, which would undo alpha. Source: SCoRe, arXiv 2409.12917. The tuned `stage` decides.

    Raises: ObjectiveError for a candidate without a log-probability for each of its tokens."""

    method: str
    alpha: float
    first_kl: float

    def __call__(self, scored: Sequence[Scored], history: History) -> list[Example]:
        found = list(chains(scored))
        if len(found) < 2:
            return []
        early = history.tuned.get("stage", 2) < 2
        alpha = 0.0 if early else self.alpha
        shaped = [chain.second[2] + alpha * (chain.second[2] - chain.first[2]) for chain in found]
        mean_1, mean_2 = fmean(chain.first[2] for chain in found), fmean(shaped)
        made: list[Example] = []
        for chain, value in zip(found, shaped, strict=True):
            group, candidate, reward = chain.first
            kl = (self.first_kl, 0.0) if early else (1.0, 1.0)
            made.append(self._example(group, candidate, 0.0 if early else reward - mean_1, kl[0]))
            made.append(self._example(*chain.second[:2], value - mean_2, kl[1]))
        return made

    def _example(self, group: Group, candidate: Candidate, advantage: float, kl: float) -> Example:
        return example(self.method, group, [candidate], [row(candidate, advantage=advantage, kl=kl, behaviour=True)])


@dataclass(frozen=True)
class Corrections:
    """Second attempts that won, to imitate behind the chat so far: `share` of the weight for those that kept a winning
    first attempt (confidence), the rest for those that mended another (critique). Nothing of the chat is learned.
    Source: CCT, arXiv 2412.19513."""

    method: str
    share: float

    def __call__(self, scored: Sequence[Scored], history: History) -> list[Example]:
        right = [chain for chain in chains(scored) if chain.second[2] > 0]
        weights = [self.share if chain.first[2] > 0 else 1 - self.share for chain in right]
        return [
            example(self.method, chain.second[0], [chain.second[1]], [row(chain.second[1])], weight=2 * weight)
            for chain, weight in zip(right, weights, strict=True)
            if weight > 0
        ]
