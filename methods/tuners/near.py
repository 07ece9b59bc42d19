"""Tunes the selector `Near`: the loss on people's texts, and how far from it a sample may be."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.messages import Scored
from core.protocols import Facts, Tuned
from methods.selectors.near import loss_of, shift

LIMITS = {f"within@{1.1**power:.3f}": 1.1**power for power in range(1, 32)}
"""Name of a measured share -> the DS (up to 19) that it is within."""
UNKNOWN: Tuned = {"texts": 0.0, "valid_loss": 0.0, "ds_limit": 0.0}
BOUNDS = {"texts": (0.0, math.inf), "valid_loss": (0.0, math.inf), "ds_limit": (0.0, max(LIMITS.values()))}


@dataclass(frozen=True)
class NearTuner:
    """texts: prompts with a text of people, weighted by their age. valid_loss: the weighted mean loss of these texts.
    ds_limit: the least of `LIMITS` within which at least the share `keep` of the winners was; 0, which is no limit,
    without enough texts."""

    min_share: float
    """Prompts whose winner has less are not measured."""
    keep: float
    min_texts: int
    memory: float
    """Factor of the weight of earlier windows' texts, per window."""

    def measure(self, scored: Sequence[Scored], tuned: Tuned) -> Mapping[str, float]:
        texts = [loss_of(c) for one in scored if one.group.by == "person" for c in one.group.candidates]
        measured = {"valid_loss": math.fsum(texts) / len(texts)} if texts else {}
        sampled = [one for one in scored if one.group.by == "sample" and one.verdict.share >= self.min_share]
        judged = [pair for one in sampled for pair in zip(one.group.candidates, one.verdict.scores, strict=True)]
        losses = [loss_of(candidate) for candidate, score in judged if score > 0]
        if losses and tuned["texts"] >= self.min_texts:
            shifts = [shift(loss, tuned["valid_loss"]) for loss in losses]
            measured |= {name: sum(ds <= limit for ds in shifts) / len(shifts) for name, limit in LIMITS.items()}
        return measured

    def tune(self, facts: Facts) -> Tuned:
        mean, new = facts.measured.get("valid_loss", (0.0, 0))
        earlier = self.memory * facts.tuned["texts"]
        texts = earlier + new
        within = {limit: facts.measured[name][0] for name, limit in LIMITS.items() if name in facts.measured}
        wide = [limit for limit, share in within.items() if share >= self.keep - 1e-9]
        return {
            "texts": texts,
            "valid_loss": (earlier * facts.tuned["valid_loss"] + new * mean) / texts if texts else 0.0,
            "ds_limit": min(wide, default=0.0) if texts >= self.min_texts else 0.0,
        }
