# pyright: basic
"""Imitation: make every kept completion likelier, token by token.

    loss = - sum_i w_i sum_t log p(y_it | x_i, y_i<t) / sum_i w_i |y_i|

The mean is over the batch's completion tokens, so that a long completion counts by its length. Weights matter only
relative to one another within a batch. Source: LMSI, arXiv:2210.11610; the recipe is in docs/results.md.
"""

import torch
import torch.nn.functional as F


def sft(logits_NV: torch.Tensor, targets_N: torch.Tensor, weight_N: torch.Tensor) -> torch.Tensor:
    """Weighted sum of the negative log-likelihood over N completion tokens (nats), a scalar.

    logits_NV: where the model predicts each target; weight_N: the example's weight at each of its tokens. Divide by
    the batch's sum of weight_N for the mean; micro-batches add up exactly that way."""
    nll_N = F.cross_entropy(
        logits_NV.float() if logits_NV.dtype != torch.float64 else logits_NV, targets_N, reduction="none"
    )
    return (nll_N * weight_N).sum()
