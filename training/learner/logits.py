# pyright: basic
"""Logits of a causal model at selected places only: logits of a whole batch would take most of the memory."""

from typing import Any

import torch

SCALED_HEADS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier", "output_multiplier")
"""Config fields of models that transform the logits after the head. These models use the slower full forward."""


def logits_at(
    model: Any,
    ids_BT: torch.Tensor,
    kept_U: torch.Tensor,
    depths_BT: torch.Tensor | None = None,
    ends_BT: torch.Tensor | None = None,
) -> torch.Tensor:
    """Logits [U, V] at places of the flattened rows. Depths and ends make a row a tree (training.learner.tree). Without
    them a row is one sequence: causal and right-padded input needs no attention mask."""
    inputs: dict[str, Any] = {"input_ids": ids_BT, "use_cache": False}
    if ends_BT is not None:
        inputs |= {"position_ids": depths_BT, "attention_mask": seen(ends_BT)}
    if any(getattr(model.config.get_text_config(), name, None) not in (None, 1.0) for name in SCALED_HEADS):
        return model.forward(**inputs).logits.flatten(0, 1).index_select(0, kept_U)
    hidden_BTD = model.base_model(**inputs).last_hidden_state
    return model.get_output_embeddings()(hidden_BTD.flatten(0, 1).index_select(0, kept_U))


def seen(ends_BT: torch.Tensor) -> torch.Tensor:
    """bool[B, 1, T, T]: whether a token (third index) sees another (last): itself and its ancestors."""
    places_T = torch.arange(ends_BT.shape[1], device=ends_BT.device)
    mask_BTT = (places_T <= places_T[:, None]) & (places_T[:, None] < ends_BT[:, None, :])
    return mask_BTT[:, None]
