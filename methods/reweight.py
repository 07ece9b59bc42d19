"""Keeps what a verifier scores highly: the weights of candidates, and what they do to the mean utility. Pure.

    w = 1[u >= tau]        tau: one threshold for all prompts, or a quantile of the scores of each prompt
    J' = sum w U / sum w        U: true utility, u: the verifier's score

Source: Mind the Gap, arXiv 2412.02674, sections 2 and 3.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Threshold:
    """`tau`: at least `value`. `top`: among the best part `value` of the prompt's scores, with all equals of the last
    one."""

    rule: Literal["top", "tau"]
    value: float

    def weights(self, scores: Sequence[float]) -> list[float]:
        """1 for each score that survives, else 0. A score that is not finite is none: it never survives, and does not
        count in a quantile."""
        return weights(scores, self.value if self.rule == "tau" else quantile(scores, self.value))


def weights(scores: Sequence[float], tau: float) -> list[float]:
    return [float(math.isfinite(score) and score >= tau) for score in scores]


def quantile(scores: Sequence[float], top: float) -> float:
    """The least score of the best part `top` of the finite ones, at least of one; infinity if there is none."""
    ranked = sorted((score for score in scores if math.isfinite(score)), reverse=True)
    return ranked[max(1, math.ceil(top * len(ranked) - 1e-9)) - 1] if ranked else math.inf


def both(first: Sequence[float], second: Sequence[float]) -> list[float]:
    """The weights of what survives two verifiers."""
    return [a * b for a, b in zip(first, second, strict=True)]


def reweighted(utilities: Sequence[float], weights: Sequence[float]) -> float:
    """The mean utility of the survivors, J'; if nothing survives, of all."""
    total = math.fsum(weights)
    if total <= 0:
        return math.fsum(utilities) / len(utilities)
    return math.fsum(u * w for u, w in zip(utilities, weights, strict=True)) / total
