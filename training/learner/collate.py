# pyright: basic
"""Turns examples into batches with little padding, and batches into forwards. Only completion tokens are in the loss.

A forward computes rows. A plain row is one example. Where it pays, examples that begin alike are one row together, in
which the tokens that they share are computed once (training.learner.tree).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Any

import numpy as np
import torch

from core.messages import Imitate, Reinforce
from training.learner.tree import ROW_TOKENS, Forest, Row, cost, shared

Continued = Imitate | Reinforce
"""Examples with one completion after a context."""
Turn = Sequence[Sequence[Continued]]
"""The rows of one forward. The examples of a row are in the order of a walk through their tree."""
SPREAD_TOKENS = 40
"""Largest difference in length between two sequences of a batch."""
CHUNK = 4096
"""Number of examples that are sorted by length together. The shuffle decides the chunk of an example and the order of
the batches."""
WORTH = 0.8
"""Rows are shared if they cost at most this part of plain ones."""


def length(example: Continued) -> int:
    """Tokens of context and completion."""
    return (len(example.context_ids) + len(example.completion_ids)) // 4


def pack_batches(examples: Sequence[Continued], batch_tokens: int, rng: Random) -> list[list[Continued]]:
    """Shuffled batches of similar lengths, each at most batch_tokens with padding. A longer example is a batch alone.

    Every example is in exactly one batch. `rng` is the only random state."""
    shuffled = rng.sample(list(examples), len(examples))
    batches: list[list[Continued]] = []
    for start in range(0, len(shuffled), CHUNK):
        batches += _fill(sorted(shuffled[start : start + CHUNK], key=length), batch_tokens)
    rng.shuffle(batches)
    return batches


def _fill(by_length: Sequence[Continued], batch_tokens: int) -> Iterator[list[Continued]]:
    batch: list[Continued] = []
    for example in by_length:
        longest = length(example)
        if batch and (longest * (len(batch) + 1) > batch_tokens or longest - length(batch[0]) > SPREAD_TOKENS):
            yield batch
            batch = []
        batch.append(example)
    if batch:
        yield batch


def micro_batches(batch: Sequence[Continued], micro_batch_tokens: int | None) -> list[list[Continued]]:
    """Split a batch into micro-batches of at most micro_batch_tokens padded tokens, by length. None: no split."""
    if micro_batch_tokens is None:
        return [list(batch)]
    return list(_fill(sorted(batch, key=length), micro_batch_tokens))


def turns(batch: Sequence[Continued], micro_batch_tokens: int | None, share_tokens: float) -> list[Turn]:
    """The forwards of a batch, each of at most micro_batch_tokens computed tokens (None: a single forward). Every
    example is in exactly one. Rows are shared if that pays and no example is longer than share_tokens."""
    if not batch:
        return []
    plain: list[Turn] = [[[example] for example in micro] for micro in micro_batches(batch, micro_batch_tokens)]
    if len(batch) == 1 or max(map(length, batch)) > share_tokens:
        return plain
    whole = forest(batch)
    if whole.tokens > WORTH * sum(map(computed, plain)):
        return plain
    most = math.inf if micro_batch_tokens is None else micro_batch_tokens
    widths = [width for width in ROW_TOKENS if width <= most] or [int(most)]
    tried = (_grouped([[batch[place] for place in row] for row in whole.rows(width)], most) for width in widths)
    best = min(tried, key=total_cost)
    return best if total_cost(best) <= WORTH * total_cost(plain) else plain


def _grouped(rows: Sequence[Sequence[Continued]], most: float) -> list[Turn]:
    many = len(rows) if most == math.inf else max(1, int(most) // max(1, _width(rows)))
    return [rows[start : start + many] for start in range(0, len(rows), many)]


def total_cost(turns: Sequence[Turn]) -> float:
    """See training.learner.tree.cost."""
    return sum(cost(len(turn), _width(turn)) for turn in turns)


def computed(turn: Turn) -> int:
    """Tokens that a forward computes, with padding. The last token of an example is only predicted."""
    return len(turn) * _width(turn)


def _width(turn: Turn) -> int:
    return max(_tokens(row) for row in turn)


def _tokens(row: Sequence[Continued]) -> int:
    inputs = [_inputs(example) for example in row]
    twice = sum(shared(one, two) for one, two in pairwise(inputs))
    return sum(map(len, inputs)) // 4 - twice


def forest(batch: Sequence[Continued]) -> Forest:
    return Forest.of([_inputs(example) for example in batch], [len(example.completion_ids) // 4 for example in batch])


def _inputs(example: Continued) -> bytes:
    """The tokens that a forward computes."""
    return (example.context_ids + example.completion_ids)[:-4]


@dataclass(frozen=True)
class Collated:
    """What a forward computes, and which of its logits predict the N completion tokens (with the stop token). They are
    in the order of the turn's examples. A causal model needs no attention mask for plain rows, which are padded on the
    right."""

    ids_BT: torch.Tensor
    """int64, padded with 0."""
    kept_U: torch.Tensor
    """The places in the flattened rows whose logits are needed, each once."""
    targets_N: torch.Tensor
    weight_N: torch.Tensor
    """float32: the example's weight at each of its tokens."""
    which_N: torch.Tensor | None = None
    """Which of the U logits predict each token. None in plain rows, where it is each in turn."""
    depths_BT: torch.Tensor | None = None
    """Positions of shared rows; see training.learner.tree.Row."""
    ends_BT: torch.Tensor | None = None

    def to(self, device: torch.device) -> "Collated":
        moved: dict[str, Any] = {name: None if at is None else at.to(device) for name, at in vars(self).items()}
        return Collated(**moved)

    def predicting(self, logits_UV: torch.Tensor) -> torch.Tensor:
        """The logits [N, V] that predict the completion tokens."""
        return logits_UV if self.which_N is None else logits_UV.index_select(0, self.which_N)


def collate(turn: Turn) -> Collated:
    rows = [Row.of([_inputs(example) for example in row]) for row in turn]
    width = max(len(row.ids) for row in rows)
    ids_BT = np.zeros((len(rows), width), dtype=np.int64)
    depths_BT = np.zeros_like(ids_BT)
    ends_BT = np.tile(np.arange(1, width + 1), (len(rows), 1))
    predicts, targets = [], []
    for place, (row, examples) in enumerate(zip(rows, turn, strict=True)):
        ids_BT[place, : len(row.ids)] = row.ids
        depths_BT[place, : len(row.ids)] = row.depths
        ends_BT[place, : len(row.ids)] = row.ends
        for path, example in zip(row.paths, examples, strict=True):
            first = max(1, len(example.context_ids) // 4)  # the first token of all is never predicted
            predicts.append(place * width + path[first - 1 :])
            targets.append(np.frombuffer(example.context_ids + example.completion_ids, "<i4")[first:].astype(np.int64))
    weights = np.array([example.weight for examples in turn for example in examples], dtype=np.float32)
    weight_N = np.repeat(weights, [len(each) for each in targets])
    predicts_N, targets_N = np.concatenate(predicts), np.concatenate(targets)
    if all(len(examples) == 1 for examples in turn):
        return Collated(*map(torch.from_numpy, (ids_BT, predicts_N, targets_N, weight_N)))
    kept_U, which_N = np.unique(predicts_N, return_inverse=True)
    return Collated(*map(torch.from_numpy, (ids_BT, kept_U, targets_N, weight_N, which_N, depths_BT, ends_BT)))
