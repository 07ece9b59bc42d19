# pyright: basic
"""Logits of a causal model at selected positions only: logits of a whole batch would take most of the memory."""

from typing import Any

import torch

SCALED_HEADS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier", "output_multiplier")
"""Config fields of models that transform the logits after the head. These models use the slower full forward."""


def logits_at(model: Any, ids_BT: torch.Tensor, keep_BT: torch.Tensor) -> torch.Tensor:
    """Logits [N, V] at the kept positions, row by row. Causal and right-padded input needs no attention mask."""
    if any(getattr(model.config.get_text_config(), name, None) not in (None, 1.0) for name in SCALED_HEADS):
        return model.forward(input_ids=ids_BT, use_cache=False).logits[keep_BT]
    hidden_BTD = model.base_model(input_ids=ids_BT, use_cache=False).last_hidden_state
    return model.get_output_embeddings()(hidden_BTD[keep_BT])
