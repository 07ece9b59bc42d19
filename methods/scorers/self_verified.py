"""Judges solutions by the majority, and verifications by whether they are right about the solution before them."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from core.codec import stable_id
from core.messages import Candidate, Group, Scored
from core.protocols import Extract, Policy, Scorer, Votes
from methods.samplers.segmented import VERIFY

_SAYS = re.compile(r"\b(in)?correct\b|\b(wrong|mistake|error)\b|\b(right)\b", re.IGNORECASE)


@dataclass(frozen=True)
class SelfVerified:
    """The first solutions vote, and their winner is taken for the truth. A solution scores +1 if it has that answer, a
    verification +1 if its verdict is true of the solution before it; else -1. Source: S2R, arXiv 2502.12853, where
    answer keys say what is true: here a verification learns to tell what the majority thinks."""

    vote: Scorer
    extract: Extract
    by_lot: bool = False
    """The null control: verifications score by lot."""

    async def __call__(
        self, groups: Sequence[Group], votes: Votes, policy: Policy, known: Sequence[Scored] = ()
    ) -> list[Scored]:
        judged, *written = await self.vote([_stopped(groups[0])], votes, policy)
        made: list[Scored] = []
        truth: dict[str, bool] = {}
        """Segment -> whether the solution in it, or before it, is right."""
        goes_on = {group.parent for group in groups}
        for group in groups:  # a segment comes after its parent
            scores, answers = list[float](), list[str | None]()
            for candidate in group.candidates:
                right, answer = self._judged(
                    candidate, group, judged.verdict.winner, truth, candidate.id not in goes_on
                )
                scores.append(1.0 if right else -1.0)
                answers.append(answer)
            update = {"scores": tuple(scores), "answers": tuple(answers), "shares": ()}
            made.append(Scored(group=group, verdict=judged.verdict.model_copy(update=update)))
        return [*made, *written]

    def _judged(
        self, candidate: Candidate, group: Group, winner: str | None, truth: dict[str, bool], last: bool
    ) -> tuple[bool, str | None]:
        if is_verification(candidate):
            before = truth.get(group.parent or "", False)
            truth[candidate.id] = before
            if self.by_lot:
                return random.Random(stable_id("lot", candidate.id)).random() < 0.5, None
            return verdict_of(candidate.text, last) == before, None
        answer = None if candidate.finish == "length" else self.extract(candidate.text)
        truth[candidate.id] = winner is not None and answer == winner
        return truth[candidate.id], answer


def is_verification(candidate: Candidate) -> bool:
    return candidate.text.startswith(VERIFY)


def verdict_of(text: str, last: bool) -> bool:
    """What a verification says of the solution: its last word on it. Without one, a sample that ends there is taken to
    be content, and one that tries again is not."""
    said = list(_SAYS.finditer(text))
    if not said:
        return last
    return said[-1][1] is None and said[-1][2] is None


def _stopped(group: Group) -> Group:
    """With solutions that a verification follows as whole answers."""
    ended = [c.model_copy(update={"finish": "stop"}) if c.finish == "stop_string" else c for c in group.candidates]
    return group.model_copy(update={"candidates": tuple(ended)})
