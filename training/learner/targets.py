# pyright: basic
"""Puts together what a loss sees of a forward: see training.learner.tokens."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from core.objectives import Unit
from training.learner.collate import Collated, Piece, Turn, per_target
from training.learner.tokens import Tokens

Floats = npt.NDArray[np.float32]
Key = tuple[str, int]
"""An example's id, and the place of one of its rows."""


def tokens_of(
    turn: Turn,
    held: Collated,
    logits_NV: torch.Tensor,
    columns: Mapping[Key, Mapping[str, Floats]],
    unit: Unit,
    teacher: Callable[[], torch.Tensor],
) -> Tokens:
    """`held`: the collated turn, on the device of the logits. `columns`: of each row of its examples. `teacher`
    computes the base model's logits."""
    found = [piece for line in turn for piece in line]
    order = {piece.key: number for number, piece in enumerate(found)}
    examples = list({piece.example.id: piece.example for piece in found}.values())
    names = {name for piece in found for name in columns.get(piece.key, ())}
    device = logits_NV.device

    def joined(parts: Sequence[npt.NDArray[Any]]) -> torch.Tensor:
        return torch.from_numpy(np.concatenate(parts)).to(device)

    def column(name: str) -> torch.Tensor:
        parts = zip((columns[piece.key].get(name) for piece in found), held.counts, strict=True)
        return joined([np.zeros(n, np.float32) if part is None else part for part, n in parts])

    rows_EK = [[order[example.id, place] for place in range(len(example.rows))] for example in examples]
    return Tokens(
        logits_NV=logits_NV,
        targets_N=held.targets_N,
        weight_N=joined([_weights(piece, unit) for piece in found]),
        advantage_N=joined([per_target(piece.row, "advantage") for piece in found]),
        kl_N=joined([per_target(piece.row, "kl") for piece in found]),
        row_N=joined([np.full(n, number, np.int64) for number, n in enumerate(held.counts)]),
        rows_EK=torch.tensor(rows_EK, device=device),
        weight_E=torch.tensor([example.weight for example in examples], dtype=torch.float32, device=device),
        columns={name: column(name) for name in names},
        teacher=teacher,
    )


def _weights(piece: Piece, unit: Unit) -> Floats:
    """What each target of the row counts in the unit of the objective; see `Tokens.weight_N`."""
    weights = per_target(piece.row, "weight")
    match unit:
        case "token":
            return weights * np.float32(piece.example.weight)
        case "sequence":
            return weights * np.float32(piece.example.weight / max(1.0, float(weights.sum())))
        case _:
            return weights
