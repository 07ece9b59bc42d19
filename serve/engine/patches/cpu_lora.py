"""vLLM's LoRA product on CPUs."""

from typing import Any

import torch
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU


class GroupedLora:
    """y += x A^T B^T with each row's own adapter, on a CPU: one product for each adapter in the batch.

    vLLM 0.31 gathers a copy of A and B for every token, by an index that is -1 for tokens of the base model, and so
    adds the adapter of the last slot to those (vllm-project/vllm pull requests 48421 and 49656): base answers turn
    wrong, silently, once that slot was used. This is right, and faster."""

    @staticmethod
    def install() -> None:
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
