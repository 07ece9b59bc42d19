# pyright: basic
"""Imitation: raises the log-likelihood of every kept completion.

    loss = - sum_i w_i sum_t log p(y_it | x_i, y_i<t) / sum_i w_i |y_i|

The mean is over the batch's completion tokens, so a completion counts in proportion to its length. Only the ratios of
weights within a batch matter. Source: LMSI, arXiv:2210.11610; the recipe is in docs/results.md.
"""

import torch
import torch.nn.functional as F


def sft(logits_NV: torch.Tensor, targets_N: torch.Tensor, weight_N: torch.Tensor) -> torch.Tensor:
    """Weighted sum of the negative log-likelihood over N completion tokens (nats), a scalar.

    logits_NV: at the positions that predict the targets. weight_N: the example's weight at each of its tokens. For the
    mean, divide by the batch's sum of weight_N; the sums of micro-batches add up to the sum of the batch."""
    nll_N = F.cross_entropy(
        logits_NV.float() if logits_NV.dtype != torch.float64 else logits_NV, targets_N, reduction="none"
    )
    return (nll_N * weight_N).sum()
