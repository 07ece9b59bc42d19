# pyright: basic
"""Generalized cross entropy: imitation of targets that may be wrong.

    loss = sum_t w_t (1 - p_t^q) / q / sum_t w_t

Its gradient is p^q times that of cross entropy, so a target that the model finds unlikely pulls less. q towards 0 is
cross entropy, q = 1 the mean absolute error. `targets="argmax"` takes the likeliest token of the same forward in place
of the given one, as in robust pseudo-labeling. Source: arXiv:1805.07836; RPL, arXiv:2104.12928.
"""

import torch

from core.objectives import Gce
from training.learner.tokens import Tokens, exact


def gce(t: Tokens, s: Gce) -> torch.Tensor:
    """Weighted sum over the targets, a scalar."""
    logp_N = t.current_N
    if s.targets == "argmax":
        logp_N = torch.log_softmax(exact(t.logits_NV), dim=-1).amax(dim=-1)
    return (-torch.expm1(s.q * logp_N) / s.q * t.weight_N).sum()
