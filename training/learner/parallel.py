# pyright: basic
"""The processes that train one model together. Each runs the same Learner on the same window, in lockstep."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import torch

from core.messages import Example
from training.learner.collate import Turn, turns

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")


class Parallel(Protocol):
    """The operations that differ between one process and several. Every member must call the same methods in the same
    order; if a member omits a call, the others wait for it."""

    @property
    def first(self) -> bool:
        """Whether this member writes files."""
        ...

    def place(self, model: Any, device: torch.device) -> None:
        """Move the model to the device; this member then holds its shard. A call of the model's `logits_at` counts as a
        forward pass."""
        ...

    def turns(self, batch: Sequence[Example], micro_batch_tokens: int | None, share_tokens: float) -> list[Turn]:
        """This member's share of a batch, one turn for each forward pass; see training.learner.collate.turns. Every
        member has the same number of turns, and every example is in exactly one of them. A turn that would be empty
        repeats an example with weight 0."""
        ...

    def backward(self, loss: torch.Tensor) -> None:
        """Compute the gradients of the sum of all members' losses."""
        ...

    def clip(self, parameters: Sequence[torch.nn.Parameter], norm: float) -> float:
        """Clip gradients to a norm over the whole model; returns the norm before clipping."""
        ...

    def total(self, number: float) -> float:
        """The sum of `number` over the members."""
        ...

    def merged(self, found: dict[K, V]) -> dict[K, V]:
        """The union of all members' dictionaries."""
        ...

    def whole(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Whole tensors, gathered from all shards, for the first member; an empty dictionary for the others."""
        ...

    def part(self, tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """This member's shard of a whole tensor that every member has, placed as `like`."""
        ...

    def by_first(self, act: Callable[[], T]) -> T:
        """Only the first member calls `act`. All members return its result or raise its error."""
        ...


class SingleProcess:
    """One process, one device."""

    first = True

    def place(self, model: Any, device: torch.device) -> None:
        model.to(device)

    def turns(self, batch: Sequence[Example], micro_batch_tokens: int | None, share_tokens: float) -> list[Turn]:
        return turns(batch, micro_batch_tokens, share_tokens)

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()

    def clip(self, parameters: Sequence[torch.nn.Parameter], norm: float) -> float:
        return torch.nn.utils.clip_grad_norm_(parameters, norm).item()

    def total(self, number: float) -> float:
        return number

    def merged(self, found: dict[K, V]) -> dict[K, V]:
        return found

    def whole(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return dict(tensors)

    def part(self, tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        return tensor

    def by_first(self, act: Callable[[], T]) -> T:
        return act()
