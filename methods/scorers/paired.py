"""A group of two candidates, judged. A pair must lie in one group, but its candidates may come from two."""

import random

from core.codec import stable_id
from core.messages import Candidate, Prompt, Scored, Verdict
from methods.samplers.iid import grouped

KIND = "pair"
"""Part of the id of such groups, by which `methods.selectors.pairs.is_pair` knows them."""


def paired(
    prompt: Prompt,
    candidates: tuple[Candidate, Candidate],
    answers: tuple[str | None, str | None],
    *,
    better: int,
    share: float,
    fixed: bool,
    flipped: bool = False,
) -> Scored:
    """The group of two candidates, judged. `fixed`: the second one is the base model's, on purpose. `flipped`: half of
    all pairs, drawn by their ids, get the wrong one as the better one."""
    group = grouped(prompt, list(candidates), fixed=fixed, kind=KIND)
    if flipped and random.Random(stable_id("flip", group.id)).random() < 0.5:
        better = 1 - better
    verdict = Verdict(
        scores=(float(better == 0), float(better == 1)),
        answers=answers,
        winner=answers[better] or candidates[better].id,
        share=share,
        margin=share,
    )
    return Scored(group=group, verdict=verdict)
