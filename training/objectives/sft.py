# pyright: basic
"""Imitation: raises the log-likelihood of every kept completion.

    loss = - sum_i w_i sum_t log p(y_it | x_i, y_i<t) / sum_i w_i |y_i|

The mean is over the batch's targets, so a completion counts in proportion to its length. Only the ratios of
weights within a batch matter. Source: LMSI, arXiv:2210.11610; the recipe is in docs/results.md.
"""

import torch

from core.objectives import Sft
from training.learner.tokens import Tokens


def sft(t: Tokens, s: Sft) -> torch.Tensor:
    """Weighted sum of the negative log-likelihood over the targets (nats), a scalar."""
    return -(t.current_N * t.weight_N).sum()
