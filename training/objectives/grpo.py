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
Deviation: the mean is over all tokens of the batch (DAPO) unless `mean` is `sequence` (GRPO), see LearningConfig.grpo.
"""

import torch
import torch.nn.functional as F

from core.config import GrpoConfig


def grpo(
    logits_NV: torch.Tensor,
    targets_N: torch.Tensor,
    weight_N: torch.Tensor,
    *,
    advantage: torch.Tensor,
    behaviour: torch.Tensor,
    proximal: torch.Tensor,
    reference: torch.Tensor | None = None,
    settings: GrpoConfig,
) -> torch.Tensor:
    """Weighted sum of the loss over N completion tokens, a scalar. Columns are float[N]: `advantage` is the candidate's
    advantage at each token, the others are log-probabilities (nats). Without `reference` there is no KL term."""
    logits_NV = logits_NV if logits_NV.dtype == torch.float64 else logits_NV.float()
    current_N = -F.cross_entropy(logits_NV, targets_N, reduction="none")
    ratio_N = torch.exp(current_N - proximal)
    low = None if settings.clip_low is None else 1 - settings.clip_low
    high = None if settings.clip_high is None else 1 + settings.clip_high
    clipped_N = ratio_N if low is None and high is None else ratio_N.clamp(low, high)
    gain_N = torch.minimum(ratio_N * advantage, clipped_N * advantage)
    if settings.max_correction is not None:
        gain_N = gain_N * torch.exp(proximal - behaviour).clamp(max=settings.max_correction)
    loss_N = -gain_N
    if reference is not None:
        less_N = reference - current_N
        loss_N = loss_N + settings.kl * (torch.expm1(less_N) - less_N)
    return (loss_N * weight_N).sum()
