# pyright: basic
"""Whether a model computes rows that several sequences share (training.learner.tree) as it computes them alone.

Decided once, when a model is loaded. In doubt it does not, and every example has a row of its own, which is slower and
never wrong.
"""

import math
from typing import Any

import numpy as np
import torch

from training.learner.logits import seen
from training.learner.tree import Row

WINDOWS = ("sliding_window", "attention_chunk_size")
"""Config fields of models whose attention reaches no farther back. Transformers takes a given mask as it is, without
the window, so sequences may share rows if none is longer than the window."""
WINDOWED = {"full_attention", "sliding_attention", "chunked_attention"}
"""Kinds of layers that obey a given mask."""
BY_LENGTH = ("dynamic", "longrope")
"""Kinds of rotary positions that depend on the longest sequence of a forward."""
ALIKE = {torch.float32: 1e-3, torch.float64: 1e-3}
ROUNDED = 0.1
"""Largest difference between shared and plain rows, as a part of the one that wrong rows make: in these types, and in
others. Rounding makes some millionths in float32 and some hundredths in bfloat16."""


def share_tokens(model: Any) -> float:
    """Length of the longest sequence that may share a row with others. 0: none. `model` is whole and in eval mode."""
    config = model.config.get_text_config()
    if not getattr(model, "_supports_attention_backend", False) or getattr(model, "_is_stateful", False):
        return 0
    if not set(getattr(config, "layer_types", None) or ()) <= WINDOWED:
        return 0
    if any(kind in str(getattr(config, "rope_parameters", None)) for kind in BY_LENGTH):
        return 0
    windows = [getattr(config, name, None) for name in WINDOWS]
    reach = min((window for window in windows if window), default=math.inf)
    return reach if _alike(model, config.vocab_size) else 0


@torch.no_grad()
def _alike(model: Any, vocabulary: int) -> bool:
    """Compares three short sequences in one row with the same sequences alone, and with a row in which they see one
    another and positions run on."""
    tokens = np.random.default_rng(0).integers(0, vocabulary, size=12, dtype=np.int32)
    packed = sorted(tokens[places].tobytes() for places in ([0, 1, 2, 3, 4], [0, 1, 2, 5, 6, 7], [0, 8, 9, 10, 11]))
    row = Row.of(packed)
    ids, depths, ends = (torch.from_numpy(each)[None].to(model.device) for each in (row.ids, row.depths, row.ends))
    try:
        tree = _hidden(model, ids, position_ids=depths, attention_mask=seen(ends))
    except Exception:  # whatever a model says to inputs that it does not know
        return False
    wrong = _hidden(model, ids)
    apart = astray = 0.0
    for path in row.paths:
        alone = _hidden(model, ids[:, path])
        apart += float((tree[path] - alone).square().sum())
        astray += float((wrong[path] - alone).square().sum())
    return math.sqrt(apart) <= ALIKE.get(model.dtype, ROUNDED) * math.sqrt(astray)


def _hidden(model: Any, ids_BT: torch.Tensor, **rows: torch.Tensor) -> torch.Tensor:
    """Hidden states float32[T, D] of the first row."""
    return model.base_model(input_ids=ids_BT, use_cache=False, **rows).last_hidden_state[0].float()
