"""Judgments by a score of each candidate, without a ballot."""

from collections.abc import Sequence

from core.messages import Group, Scored, Verdict
from methods.scorers.majority import count


def best(answers: Sequence[str | None], scores: Sequence[float]) -> int | None:
    """The place of the highest score among candidates with an answer, the first of equals."""
    standing = [place for place, answer in enumerate(answers) if answer is not None]
    return max(standing, key=lambda place: scores[place], default=None)


def by_score(group: Group, answers: Sequence[str | None], scores: Sequence[float]) -> Scored:
    """The winner is the answer of the best candidate; shares are the parts of the samples that agree. A candidate that
    was cut off must come without an answer."""
    first = best(answers, scores)
    shares = count((answer, 1.0) for answer in answers).shares
    winner = None if first is None else answers[first]
    share = shares.get(winner or "", 0.0)
    others = max((one for answer, one in shares.items() if answer != winner), default=0.0)
    verdict = Verdict(
        scores=tuple(scores),
        answers=tuple(answers),
        winner=winner,
        share=share,
        margin=max(0.0, share - others),
        shares=tuple(shares.get(answer or "", 0.0) for answer in answers),
    )
    return Scored(group=group, verdict=verdict)
