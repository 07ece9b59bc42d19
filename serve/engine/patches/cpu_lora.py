"""Replaces vLLM's LoRA product on a CPU: it is correct for tokens of the base model, and faster.

Patched: `PunicaWrapperCPU.update_metadata` and `.add_lora_linear` (vllm/lora/punica_wrapper/punica_cpu.py). Why: vLLM
copies A and B for every token, by an index that is -1 for tokens of the base model. So it adds the adapter in the last
slot to those tokens: base answers become wrong, without an error, after that slot was used. This patch computes one
product per adapter in the batch. Upstream: https://github.com/vllm-project/vllm/pull/48421 and /49656. Holds for: vLLM
0.31; 0.33 has the fix.
"""

from typing import Any

import torch
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

from serve.engine.patches import cpu_build, vllm_patch

PATCH = vllm_patch("cpu_lora", without="on a CPU tokens of the base model get the adapter in the last slot")


class GroupedLora:
    """y += x A^T B^T with the adapter of each row."""

    @staticmethod
    def install() -> None:
        if cpu_build() and PATCH.on():
            PunicaWrapperCPU.update_metadata = GroupedLora.update_metadata  # type: ignore[method-assign]
            PunicaWrapperCPU.add_lora_linear = GroupedLora.add_lora_linear  # type: ignore[method-assign]

    _update_metadata = PunicaWrapperCPU.update_metadata

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
        lora_a_stacked: tuple[torch.Tensor, ...],
        lora_b_stacked: tuple[torch.Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        **_: Any,
    ) -> None:
        x, y = x.view(-1, x.shape[-1]), y.view(-1, y.shape[-1])
        for slot, rows in wrapper.ratchet_groups:
            x_rows = x if rows is None else x[rows]
            start = 0
            for a, b, width in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
                part = y[:, start : start + width]
                delta = (x_rows @ a[slot, 0].t()) @ b[slot, 0].t()
                if scale != 1:
                    delta *= scale
                if rows is None:
                    part += delta
                else:
                    part.index_add_(0, rows, delta)
                start += width
