# pyright: basic
"""What a loss sees of one forward: the tokens that are learned, the rows that they are in, and the examples."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F


@dataclass
class Tokens:
    """N targets in R rows of E examples. Tensors are on one device; log-probabilities are in nats."""

    logits_NV: torch.Tensor
    """float[N, V] that predict the targets, with gradients."""
    targets_N: torch.Tensor
    weight_N: torch.Tensor
    """float32: what each token counts in the unit of the objective, the weight of its example included. For the unit
    `example` it is 1 in the spans' weight, and `weight_E` has the examples'."""
    advantage_N: torch.Tensor
    kl_N: torch.Tensor
    row_N: torch.Tensor
    """int64: the row of each token, 0 to R - 1."""
    rows_EK: torch.Tensor
    """int64: the rows of each example, in its order."""
    weight_E: torch.Tensor
    columns: Mapping[str, torch.Tensor]
    """Name -> float32[N]."""
    teacher: Callable[[], torch.Tensor] | None = None
    """Computes the base model's logits float[N, V], without gradients."""

    @cached_property
    def current_N(self) -> torch.Tensor:
        """Log-probability of each target by the present weights, with gradients."""
        return -F.cross_entropy(exact(self.logits_NV), self.targets_N, reduction="none")

    def per_row(self, values_N: torch.Tensor) -> torch.Tensor:
        """Sums over the tokens of each row, float[R]."""
        sums_R = torch.zeros(self.rows_EK.numel(), dtype=values_N.dtype, device=values_N.device)
        return sums_R.index_add(0, self.row_N, values_N)

    @cached_property
    def tokens_R(self) -> torch.Tensor:
        return self.per_row(torch.ones_like(self.weight_N)).clamp(min=1)

    def of(self, place: int, values_R: torch.Tensor) -> torch.Tensor:
        """The value of the row at this place of each example, [E]."""
        return values_R[self.rows_EK[:, place]]

    def column(self, name: str) -> torch.Tensor:
        """A column; 0 where rows lack it."""
        return self.columns[name] if name in self.columns else torch.zeros_like(self.weight_N)

    @cached_property
    def log_ratio_R(self) -> torch.Tensor:
        """log of current / reference probability of each row."""
        return self.per_row(self.current_N - self.columns["reference"])


def exact(logits: torch.Tensor) -> torch.Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()
