# pyright: basic
"""Direct preference optimization: raises the chosen row above the rejected one, relative to a reference.

    z = beta ( log p(c)/p_ref(c) - log p(r)/p_ref(r) )         sums over tokens; c chosen, r rejected
    loss = sum_i w_i ( -log sigmoid(z_i) - nll log p(c_i) / |c_i| + optimism sum of log p over marked rows ) / sum_i w_i

`loss="square"` replaces the first term by (z / beta - 1 / (2 beta))^2 (IPO). The optimism makes rows that the reference
sampled less likely, won or lost, so that the policy tries what the reference seldom does (XPO); 0 is online DPO.
Source: DPO, arXiv:2305.18290; IPO, arXiv:2310.12036; the NLL term as in ScPO, arXiv:2411.04109; XPO,
arXiv:2405.21046, its loss as in trl/trainer/xpo_trainer.py.
"""

import torch
import torch.nn.functional as F

from core.objectives import Dpo
from training.learner.tokens import Tokens


def dpo(t: Tokens, s: Dpo) -> torch.Tensor:
    """Weighted sum over the examples, a scalar."""
    ahead_E = t.of(0, t.log_ratio_R) - t.of(1, t.log_ratio_R)
    loss_E = -F.logsigmoid(s.beta * ahead_E) if s.loss == "logistic" else (ahead_E - 1 / (2 * s.beta)).square()
    logp_R = t.per_row(t.current_N)
    if s.nll > 0:
        loss_E = loss_E - s.nll * t.of(0, logp_R / t.tokens_R)
    if s.optimism > 0:
        marked_R = t.per_row(t.current_N * t.column("optimism"))
        loss_E = loss_E + s.optimism * (t.of(0, marked_R) + t.of(1, marked_R))
    return (t.weight_E * loss_E).sum()
