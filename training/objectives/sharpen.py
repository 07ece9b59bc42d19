# pyright: basic
"""Sharpening: a square loss on pairs, by which the policy becomes the reference raised to a power.

    loss = sum over pairs ( beta [l(y) - l(y')] - (r(y) - r(y')) )^2 / scale + optimism log p(marked rows)

l: log of current / reference probability, summed over tokens. r: the rewards, in the spans' advantages. With
r = log p_reference the optimum is p proportional to p_reference^(1 + 1/beta). The optimism belongs to the variant that
samples one row from the policy and one from the reference, whose row is marked.
Source: arXiv:2412.01951, eq. 8 and algorithm 1. The printed algorithm has a minus before the squares, copied from a log
sigmoid; its proof has the plus that is used here.
"""

import torch

from core.objectives import Sharpen
from training.learner.tokens import Tokens


def sharpen(t: Tokens, s: Sharpen) -> torch.Tensor:
    """Weighted sum over the examples, a scalar."""
    reward_R = t.per_row(t.advantage_N) / t.tokens_R
    gap_E = t.of(0, reward_R) - t.of(1, reward_R)
    if s.clip is not None:
        gap_E = gap_E.clamp(-s.clip, s.clip)
    ahead_E = t.of(0, t.log_ratio_R) - t.of(1, t.log_ratio_R)
    loss_E = (s.beta * ahead_E - gap_E).square() / s.scale
    if s.optimism > 0:
        marked_R = t.per_row(t.current_N * t.column("optimism"))
        loss_E = loss_E + s.optimism * (t.of(0, marked_R) + t.of(1, marked_R))
    return (t.weight_E * loss_E).sum()
