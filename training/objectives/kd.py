# pyright: basic
"""Distillation from the base model, in which hard tokens get a target between student and teacher.

    difficulty_t = KL(blend onehot + (1 - blend) teacher || student)
    hard tokens: the share `hard` with the greatest difficulty; there student := (1 - proxy) student + proxy target
    loss = sum_t w_t KL(teacher || student) / sum_t w_t

Source: Self-Evolution KD, arXiv:2412.15303. Its abstract gives no numbers, so all settings are ours (a variant).
"""

import torch

from core.objectives import Kd
from training.learner.tokens import Tokens, exact


def kd(t: Tokens, s: Kd) -> torch.Tensor:
    """Weighted sum over the targets (nats), a scalar."""
    assert t.teacher is not None, "the objective needs reference_logits"
    student_NV = torch.softmax(exact(t.logits_NV), dim=-1)
    teacher_NV = torch.softmax(exact(t.teacher()), dim=-1)
    target_NV = (1 - s.blend) * teacher_NV
    target_NV = target_NV.scatter_add(-1, t.targets_N[:, None], torch.full_like(target_NV[:, :1], s.blend))
    hard = round(s.hard * len(t.targets_N))
    if hard:
        hardest = divergence(target_NV, student_NV.detach()).topk(hard).indices
        hard_N1 = torch.zeros_like(t.weight_N, dtype=torch.bool).scatter(0, hardest, True)[:, None]
        student_NV = torch.where(hard_N1, (1 - s.proxy) * student_NV + s.proxy * target_NV, student_NV)
    return (divergence(teacher_NV, student_NV) * t.weight_N).sum()


def divergence(p_NV: torch.Tensor, q_NV: torch.Tensor) -> torch.Tensor:
    """KL(p || q) of each place (nats), float[N]."""
    tiny = torch.finfo(q_NV.dtype).tiny
    return (p_NV * (p_NV.clamp(min=tiny).log() - q_NV.clamp(min=tiny).log())).sum(dim=-1)
