# pyright: basic
"""The processes that learn one model together. Each runs the same Learner on the same window, in lock step."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import torch

from training.learner.collate import Continued, micro_batches

T = TypeVar("T")


class Parallel(Protocol):
    """What differs between one process and several. Every member calls the same methods in the same order: one that
    leaves a call out makes the others wait."""

    @property
    def first(self) -> bool:
        """Whether this is the member that writes."""
        ...

    def place(self, model: Any, device: torch.device) -> None:
        """Move the model to the device, of which this member then holds its part; its method `logits_at` is a forward
        of its own."""
        ...

    def turns(self, batch: Sequence[Continued], micro_batch_tokens: int | None) -> list[list[Continued]]:
        """What this member computes of a batch, a forward at a time: as many for every member, and every example once
        among them (again with weight 0 where a member would have none)."""
        ...

    def backward(self, loss: torch.Tensor) -> None:
        """Gradients are those of the sum of all members' losses."""
        ...

    def clip(self, parameters: Sequence[torch.nn.Parameter], norm: float) -> float:
        """Clip gradients to a norm over the whole model; returns what it was."""
        ...

    def total(self, number: float) -> float:
        """The sum over the members."""
        ...

    def merged(self, found: dict[str, Any]) -> dict[str, Any]:
        """What all members found."""
        ...

    def whole(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Put together from all members' parts, for the first one; nothing for the others."""
        ...

    def part(self, tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """This member's part of a whole tensor that every member has."""
        ...

    def by_first(self, act: Callable[[], T]) -> T:
        """The first member acts; all return, or raise, what it did."""
        ...


class SingleProcess:
    """One process, one device."""

    first = True

    def place(self, model: Any, device: torch.device) -> None:
        model.to(device)

    def turns(self, batch: Sequence[Continued], micro_batch_tokens: int | None) -> list[list[Continued]]:
        return micro_batches(batch, micro_batch_tokens)

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()

    def clip(self, parameters: Sequence[torch.nn.Parameter], norm: float) -> float:
        return torch.nn.utils.clip_grad_norm_(parameters, norm).item()

    def total(self, number: float) -> float:
        return number

    def merged(self, found: dict[str, Any]) -> dict[str, Any]:
        return found

    def whole(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return dict(tensors)

    def part(self, tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        return tensor

    def by_first(self, act: Callable[[], T]) -> T:
        return act()
