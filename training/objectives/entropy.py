# pyright: basic
"""Entropy minimization: the model becomes surer of whatever it finds likely.

    loss = - sum_t w_t sum_v p_tv log p_tv / sum_t w_t

Source: TENT, as ENT in arXiv:2104.12928. Deviation: there only the affine parameters of normalizations are trained;
here whatever the run trains. It never changes the argmax of one place by itself, and has no defence against collapse.
"""

import torch

from core.objectives import Entropy
from training.learner.tokens import Tokens, exact


def entropy(t: Tokens, s: Entropy) -> torch.Tensor:
    """Weighted sum over the targets (nats), a scalar."""
    logp_NV = torch.log_softmax(exact(t.logits_NV), dim=-1)
    return (-(logp_NV.exp() * logp_NV).sum(dim=-1) * t.weight_N).sum()
