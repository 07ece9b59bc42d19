# pyright: basic
"""Group-relative policy optimization: raises the probability of candidates that beat their group, within bounds.

    loss = sum_t w_t ( - c_t min(r_t A, clip(r_t, 1 - clip_low, 1 + clip_high) A) + kl k_t ) / sum_t w_t

    r_t = current / proximal        proximal: the trainer before the window's first step
    c_t = min(proximal / behaviour, max_correction)        behaviour: the engine at sampling
    k_t = reference / current - 1 - log(reference / current)        reference: the base model

where current, proximal, behaviour and reference are probabilities of one token. Behaviour and proximal are kept apart:
the clip bounds the step from the proximal weights, and c_t corrects for an engine that computes differently or sampled
with an older version. k_t is the K3 estimate of KL(current || base), never below 0.
Source: GRPO, arXiv:2402.03300; two clips: DAPO, arXiv:2503.14476; decoupled: arXiv:2110.00641, 2505.24298.
Deviation: the mean is over all tokens of the batch (DAPO) unless `mean` is `sequence` (GRPO), see core.objectives.Grpo.
"""

import torch

from core.objectives import Grpo
from training.learner.tokens import Tokens


def grpo(t: Tokens, s: Grpo) -> torch.Tensor:
    """Weighted sum of the loss over the targets, a scalar. Without `kl` there is no reference."""
    proximal_N = t.columns["proximal"]
    ratio_N = torch.exp(t.current_N - proximal_N)
    low = None if s.clip_low is None else 1 - s.clip_low
    high = None if s.clip_high is None else 1 + s.clip_high
    clipped_N = ratio_N if low is None and high is None else ratio_N.clamp(low, high)
    gain_N = torch.minimum(ratio_N * t.advantage_N, clipped_N * t.advantage_N)
    if s.max_correction is not None:
        gain_N = gain_N * torch.exp(proximal_N - t.columns["behaviour"]).clamp(max=s.max_correction)
    loss_N = -gain_N
    if s.kl > 0:
        less_N = t.columns["reference"] - t.current_N
        loss_N = loss_N + s.kl * t.kl_N * (torch.expm1(less_N) - less_N)
    return (loss_N * t.weight_N).sum()
