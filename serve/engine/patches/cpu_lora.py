"""Replaces vLLM's LoRA product on a CPU: it is correct for tokens of the base model, exact, and fast.

Patched: `PunicaWrapperCPU.update_metadata` and `.add_lora_linear` (vllm/lora/punica_wrapper/punica_cpu.py). Why: vLLM
copies A and B for every token, by an index that is -1 for tokens of the base model. So it adds the adapter in the last
slot to those tokens: base answers become wrong, without an error, after that slot was used. The copies also cost more
than the model itself. This patch computes one product per adapter in the batch. Upstream:
https://github.com/vllm-project/vllm/pull/48421 and /49656. Holds for: vLLM 0.31; 0.33 has the fix of the base's tokens.

It multiplies and adds in float32 whatever the engine's dtype is, and rounds to that dtype once. In bfloat16 that is
also much faster, because few CPUs have instructions for it. For this it keeps a float32 copy of each adapter that was
used, in the layout of the product. vLLM writes adapters into its tensors in place; torch counts these writes, and a
copy is used only while the count is that of its making.
"""

from dataclasses import dataclass
from typing import Any

import torch
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

from serve.engine.patches import cpu_build, vllm_patch

PATCH = vllm_patch("cpu_lora", without="on a CPU tokens of the base model get the adapter in the last slot")

Stacks = tuple[torch.Tensor, ...]
"""One tensor for each slice of a packed linear (q, k, v): A [slots, 1, rank, in], B [slots, 1, out, rank]."""


@dataclass(frozen=True)
class Part:
    """One slice of a packed linear."""

    column: int
    """Its first column of the output."""
    b: torch.Tensor
    """[rank, out], float32"""


class Product:
    """y += scale x A^T B^T for one adapter and one linear. Slices whose B is zero cost nothing."""

    def __init__(self, slot: int, a: Stacks, b: Stacks, widths: tuple[int, ...], scale: float) -> None:
        column, slices, self._parts = 0, [], []
        for a_slots, b_slots, width in zip(a, b, widths, strict=True):
            if b_slots[slot].any():
                slices.append(a_slots[slot, 0])
                self._parts.append(Part(column, (b_slots[slot, 0].float() * scale).t().contiguous()))
            column += width
        self._a = torch.cat(slices).float().t() if slices else None

    def add(self, y: torch.Tensor, x: torch.Tensor, rows: torch.Tensor | None) -> None:
        """`rows`: the rows that have the adapter. None: all."""
        if self._a is None:
            return
        x_rows, y_rows = (x, y) if rows is None else (x.index_select(0, rows), y.index_select(0, rows))
        x_rows, total = x_rows.float(), y_rows.float()
        shrunk, rank = x_rows @ self._a, 0
        for part in self._parts:
            size, width = part.b.shape
            total.narrow(1, part.column, width).addmm_(shrunk.narrow(1, rank, size), part.b)
            rank += size
        if rows is not None:
            y.index_copy_(0, rows, total.to(y.dtype))
        elif total is not y:
            y.copy_(total)


class Linear:
    """The products of one linear. Those of earlier contents of its slots are never used again."""

    def __init__(self, a: Stacks, b: Stacks) -> None:
        self._a, self._b = a, b
        self._writes: list[int] = []
        self._products: dict[tuple[int, float], Product] = {}

    def has(self, a: Stacks, b: Stacks) -> bool:
        return self._a is a and self._b is b

    def product(self, slot: int, widths: tuple[int, ...], scale: float) -> Product:
        writes = [slots._version for slots in (*self._a, *self._b)]
        if writes != self._writes:
            self._products.clear()
            self._writes = writes
        found = self._products.get((slot, scale))
        if found is None:
            found = self._products[slot, scale] = Product(slot, self._a, self._b, widths, scale)
        return found


class GroupedLora:
    @staticmethod
    def install() -> None:
        if cpu_build() and PATCH.on():
            PunicaWrapperCPU.update_metadata = GroupedLora.update_metadata  # type: ignore[method-assign]
            PunicaWrapperCPU.add_lora_linear = GroupedLora.add_lora_linear  # type: ignore[method-assign]

    _update_metadata = PunicaWrapperCPU.update_metadata
    vllms = PunicaWrapperCPU.add_lora_linear
    """vLLM's own product, for comparison (bench/lora.py)."""

    @staticmethod
    def update_metadata(wrapper: Any, *arguments: Any, **options: Any) -> None:
        GroupedLora._update_metadata(wrapper, *arguments, **options)
        slots = wrapper.token_lora_indices
        present = slots.unique().tolist()
        wrapper.ratchet_groups = [
            (slot, None if len(present) == 1 else (slots == slot).nonzero().flatten()) for slot in present if slot >= 0
        ]

    @staticmethod
    def add_lora_linear(
        wrapper: Any,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: Stacks,
        lora_b_stacked: Stacks,
        scale: float,
        output_slices: tuple[int, ...],
        **_: Any,
    ) -> None:
        if not wrapper.ratchet_groups:
            return
        x, y = x.view(-1, x.shape[-1]), y.view(-1, y.shape[-1])
        linear = GroupedLora._linear(wrapper, lora_a_stacked, lora_b_stacked)
        for slot, rows in wrapper.ratchet_groups:
            linear.product(slot, output_slices, scale).add(y, x, rows)

    @staticmethod
    def _linear(wrapper: Any, a: Stacks, b: Stacks) -> Linear:
        """The linear with these stacks. An entry holds its stacks, so no other stacks get their `id`."""
        linears: dict[int, Linear] = wrapper.__dict__.setdefault("ratchet_linears", {})
        found = linears.get(id(a))
        if found is None or not found.has(a, b):
            found = linears[id(a)] = Linear(a, b)
        return found
