# pyright: basic
"""Single judgments: wanted rows become likelier than under the reference, unwanted ones less likely.

    loss = sum_i w_i ( 1 - sigmoid(beta l_i) if wanted, else unwanted sigmoid(beta l_i) ) / sum_i w_i

l: log of current / reference probability, summed over tokens. A row is wanted if its advantage is positive.
Source: KTO, arXiv:2402.01306. Deviation: its reference point, an estimate of the divergence over a batch, is 0, so that
the sums of micro-batches add up; this is the form called APO-zero (arXiv:2408.06266).
"""

import torch

from core.objectives import Kto
from training.learner.tokens import Tokens


def kto(t: Tokens, s: Kto) -> torch.Tensor:
    """Weighted sum over the examples, a scalar."""
    value_E = torch.sigmoid(s.beta * t.of(0, t.log_ratio_R))
    wanted_E = t.of(0, t.per_row(t.advantage_N)) > 0
    return (t.weight_E * torch.where(wanted_E, 1 - value_E, s.unwanted * value_E)).sum()
