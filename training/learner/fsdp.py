# pyright: basic
"""One learner on several devices: FSDP2 shards its weights, gradients and optimizer state over one process a device.

Every member packs the same batches and computes its share of the examples of each batch. It divides by the weight of
the whole batch, which it can compute locally. The sum of all members' gradients then equals the gradient of one
process, except for the order in which floats are added.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from core.messages import Example
from training.learner.collate import Turn, forest, length, pieces, total_cost, turns

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")


def shard(model: Any, mesh: DeviceMesh) -> None:
    """Shard each tensor of the model along its first dimension over the mesh. A forward or backward pass then gathers
    one decoder layer at a time, and the parameters outside of the layers."""
    layers = set(model._no_split_modules or ())
    for module in model.modules():
        if type(module).__name__ in layers:
            fully_shard(module, mesh=mesh, reshard_after_forward=True)
    # reshard after the root's forward too, so that its parameters are always shards
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    register_fsdp_forward_method(model, "logits_at")


def deal(
    batch: Sequence[Example], size: int, micro_batch_tokens: int | None, share_tokens: float = 0
) -> list[list[Turn]]:
    """Member -> its turns. Members get examples of similar lengths, or branches of the tree of all examples if that
    costs the slowest member less, and the same number of turns. A member without examples in a turn repeats the
    shortest with weight 0, because every forward gathers from all members."""
    if not batch:
        return [[] for _ in range(size)]
    examples = sorted(batch, key=length)
    idle: Turn = [[piece] for piece in pieces([examples[0].model_copy(update={"weight": 0.0})])]
    shares = [[examples[rank::size] for rank in range(size)]]
    if all(len(example.rows) == 1 for example in batch):
        branches = [[batch[place] for place in part] for part in forest(pieces(batch)).parts(size)]
        shares.append(branches + [[]] * (size - len(branches)))
    ways = [[turns(share, micro_batch_tokens, share_tokens) for share in way] for way in shares]
    dealt = min(ways, key=lambda way: max(map(total_cost, way)))
    most = max(map(len, dealt))
    return [own + [idle] * (most - len(own)) for own in dealt]


class Sharded:
    """A `Parallel` over all processes of torch's default group. Initialize the group first."""

    def __init__(self) -> None:
        self._rank, self._size = dist.get_rank(), dist.get_world_size()
        self._meshes: dict[str, DeviceMesh] = {}

    @property
    def first(self) -> bool:
        return self._rank == 0

    def place(self, model: Any, device: torch.device) -> None:
        """Each member has the whole model in memory. One layer at a time is moved to the device and sharded."""
        if device.type not in self._meshes:
            self._meshes[device.type] = init_device_mesh(device.type, (self._size,))
        shard(model, self._meshes[device.type])

    def turns(self, batch: Sequence[Example], micro_batch_tokens: int | None, share_tokens: float) -> list[Turn]:
        return deal(batch, self._size, micro_batch_tokens, share_tokens)[self._rank]

    def backward(self, loss: torch.Tensor) -> None:
        (loss * self._size).backward()  # FSDP averages gradients over the members

    def clip(self, parameters: Sequence[torch.nn.Parameter], norm: float) -> float:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        total = torch.nn.utils.get_total_norm(gradients)
        total = total.full_tensor() if isinstance(total, DTensor) else total
        torch.nn.utils.clip_grads_with_norm_(parameters, norm, total)
        return total.item()

    def total(self, number: float) -> float:
        parts: list[Any] = [None] * self._size
        dist.all_gather_object(parts, number)
        return sum(parts)

    def merged(self, found: dict[K, V]) -> dict[K, V]:
        parts: list[Any] = [None] * self._size
        dist.all_gather_object(parts, found)
        return {key: value for part in parts for key, value in part.items()}

    def whole(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Gathers one tensor at a time and copies it to the CPU, so a device holds at most one whole tensor."""
        found: dict[str, torch.Tensor] = {}
        for name, tensor in tensors.items():
            full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            if self.first:
                found[name] = full.cpu()
        return found

    def part(self, tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        if isinstance(tensor, DTensor) or not isinstance(like, DTensor):
            return tensor
        there = tensor.to(like.device, like.dtype)
        return distribute_tensor(there, like.device_mesh, like.placements, src_data_rank=None)

    def by_first(self, act: Callable[[], T]) -> T:
        outcome: list[Any] = [None, None]
        failure: Exception | None = None
        if self.first:
            try:
                outcome = [act(), None]
            except Exception as error:
                outcome, failure = [None, error], error
        dist.broadcast_object_list(outcome, src=0)
        if failure is not None:
            raise failure
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]
