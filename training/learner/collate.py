# pyright: basic
"""Turns examples into batches with little padding, and batches into forwards. Only targets are in the loss.

A forward computes lines. A plain line is one row of one example. Where it pays, rows that begin alike are one line
together, in which the tokens that they share are computed once (training.learner.tree). All rows of an example are in
the same forward, because its loss compares them.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from core.messages import Example, Row
from training.learner import tree
from training.learner.tree import ROW_TOKENS, Forest, cost, shared

SPREAD_TOKENS = 40
"""Largest difference in length between two sequences of a batch."""
CHUNK = 4096
"""Number of examples that are sorted by length together. The shuffle decides the chunk of an example and the order of
the batches."""
WORTH = 0.8
"""Rows are shared if they cost at most this part of plain ones."""


@dataclass(frozen=True)
class Piece:
    """One row of an example."""

    example: Example
    place: int

    @property
    def row(self) -> Row:
        return self.example.rows[self.place]

    @property
    def key(self) -> tuple[str, int]:
        return self.example.id, self.place

    @property
    def inputs(self) -> bytes:
        """The tokens that a forward computes: the last one is only predicted."""
        return self.row.token_ids[:-4]


Turn = Sequence[Sequence[Piece]]
"""The lines of one forward. The pieces of a line are in the order of a walk through their tree."""


def length(example: Example) -> int:
    """Tokens of its longest row."""
    return max(len(row.token_ids) for row in example.rows) // 4


def targets_of(row: Row) -> npt.NDArray[np.int64]:
    """The places of the row's targets. The first token of all is never predicted."""
    learned = np.repeat([span.weight > 0 for span in row.spans], [span.tokens for span in row.spans])
    learned[:1] = False
    return np.flatnonzero(learned)


def per_target(row: Row, name: str) -> npt.NDArray[np.float32]:
    """A number of the spans (weight, advantage, kl), for every target."""
    values = np.repeat([getattr(span, name) for span in row.spans], [span.tokens for span in row.spans])
    return values[targets_of(row)].astype(np.float32)


def pieces(examples: Sequence[Example]) -> list[Piece]:
    return [Piece(example, place) for example in examples for place in range(len(example.rows))]


def pack_batches(examples: Sequence[Example], batch_tokens: int, rng: Random) -> list[list[Example]]:
    """Shuffled batches of similar lengths, each at most batch_tokens with padding. A longer example is a batch alone.

    Every example is in exactly one batch. `rng` is the only random state."""
    shuffled = rng.sample(list(examples), len(examples))
    batches: list[list[Example]] = []
    for start in range(0, len(shuffled), CHUNK):
        batches += _fill(sorted(shuffled[start : start + CHUNK], key=length), batch_tokens)
    rng.shuffle(batches)
    return batches


def _fill(by_length: Sequence[Example], batch_tokens: int) -> Iterator[list[Example]]:
    batch: list[Example] = []
    rows = 0
    for example in by_length:
        longest = length(example)
        full = longest * (rows + len(example.rows)) > batch_tokens
        if batch and (full or longest - length(batch[0]) > SPREAD_TOKENS):
            yield batch
            batch, rows = [], 0
        batch.append(example)
        rows += len(example.rows)
    if batch:
        yield batch


def micro_batches(batch: Sequence[Example], micro_batch_tokens: int | None) -> list[list[Example]]:
    """Split a batch into micro-batches of at most micro_batch_tokens padded tokens, by length. None: no split."""
    if micro_batch_tokens is None:
        return [list(batch)]
    return list(_fill(sorted(batch, key=length), micro_batch_tokens))


def turns(batch: Sequence[Example], micro_batch_tokens: int | None, share_tokens: float) -> list[Turn]:
    """The forwards of a batch, each of at most micro_batch_tokens computed tokens (None: a single forward). Every
    example is in exactly one. Rows are shared if that pays and no example is longer than share_tokens."""
    micros = micro_batches(batch, micro_batch_tokens)
    if any(len(example.rows) > 1 for example in batch):
        return [turn for micro in micros for turn in _laid(pieces(micro), [micro], None, share_tokens)]
    return _laid(pieces(batch), micros, micro_batch_tokens, share_tokens) if batch else []


def _laid(
    every: Sequence[Piece], micros: Sequence[Sequence[Example]], most_tokens: int | None, share_tokens: float
) -> list[Turn]:
    """Plain lines of the micro-batches, or shared lines of all pieces if they cost less."""
    plain: list[Turn] = [[[piece] for piece in pieces(micro)] for micro in micros]
    if len(every) == 1 or max(len(piece.row.token_ids) for piece in every) // 4 > share_tokens:
        return plain
    whole = forest(every)
    if whole.tokens > WORTH * sum(map(computed, plain)):
        return plain
    most = math.inf if most_tokens is None else most_tokens
    widths = [width for width in ROW_TOKENS if width <= most] or [int(most)]
    tried = (_grouped([[every[place] for place in line] for line in whole.rows(width)], most) for width in widths)
    best = min(tried, key=total_cost)
    return best if total_cost(best) <= WORTH * total_cost(plain) else plain


def _grouped(lines: Sequence[Sequence[Piece]], most: float) -> list[Turn]:
    many = len(lines) if most == math.inf else max(1, int(most) // max(1, _width(lines)))
    return [lines[start : start + many] for start in range(0, len(lines), many)]


def total_cost(turns: Sequence[Turn]) -> float:
    """See training.learner.tree.cost."""
    return sum(cost(len(turn), _width(turn)) for turn in turns)


def computed(turn: Turn) -> int:
    """Tokens that a forward computes, with padding."""
    return len(turn) * _width(turn)


def _width(turn: Turn) -> int:
    return max(_tokens(line) for line in turn)


def _tokens(line: Sequence[Piece]) -> int:
    inputs = [piece.inputs for piece in line]
    twice = sum(shared(one, two) for one, two in pairwise(inputs))
    return sum(map(len, inputs)) // 4 - twice


def forest(every: Sequence[Piece]) -> Forest:
    return Forest.of([piece.inputs for piece in every], [piece.row.targets for piece in every])


@dataclass(frozen=True)
class Collated:
    """What a forward computes, and which of its logits predict the N targets, in the order of the turn's pieces. A
    causal model needs no attention mask for plain lines, which are padded on the right."""

    ids_BT: torch.Tensor
    """int64, padded with 0."""
    kept_U: torch.Tensor
    """The places in the flattened lines whose logits are needed, each once."""
    targets_N: torch.Tensor
    counts: Sequence[int]
    """Targets of each piece."""
    which_N: torch.Tensor | None = None
    """Which of the U logits predict each token. None in plain lines, where it is each in turn."""
    depths_BT: torch.Tensor | None = None
    """Positions of shared lines; see training.learner.tree.Row."""
    ends_BT: torch.Tensor | None = None

    def to(self, device: torch.device) -> "Collated":
        moved: dict[str, Any] = {
            name: at.to(device) if isinstance(at, torch.Tensor) else at for name, at in vars(self).items()
        }
        return Collated(**moved)

    def predicting(self, logits_UV: torch.Tensor) -> torch.Tensor:
        """The logits [N, V] that predict the targets."""
        return logits_UV if self.which_N is None else logits_UV.index_select(0, self.which_N)


def collate(turn: Turn) -> Collated:
    lines = [tree.Row.of([piece.inputs for piece in line]) for line in turn]
    width = max(len(line.ids) for line in lines)
    ids_BT = np.zeros((len(lines), width), dtype=np.int64)
    depths_BT = np.zeros_like(ids_BT)
    ends_BT = np.tile(np.arange(1, width + 1), (len(lines), 1))
    predicts, targets = [], []
    for place, (line, held) in enumerate(zip(lines, turn, strict=True)):
        ids_BT[place, : len(line.ids)] = line.ids
        depths_BT[place, : len(line.ids)] = line.depths
        ends_BT[place, : len(line.ids)] = line.ends
        for path, piece in zip(line.paths, held, strict=True):
            learned = targets_of(piece.row)
            predicts.append(place * width + path[learned - 1])
            targets.append(np.frombuffer(piece.row.token_ids, "<i4")[learned].astype(np.int64))
    predicts_N, targets_N = np.concatenate(predicts), np.concatenate(targets)
    plain = all(len(held) == 1 for held in turn)
    kept_U, which_N = (predicts_N, None) if plain else np.unique(predicts_N, return_inverse=True)
    return Collated(
        ids_BT=torch.from_numpy(ids_BT),
        kept_U=torch.from_numpy(kept_U),
        targets_N=torch.from_numpy(targets_N),
        counts=[len(each) for each in targets],
        which_N=None if which_N is None else torch.from_numpy(which_N),
        depths_BT=None if plain else torch.from_numpy(depths_BT),
        ends_BT=None if plain else torch.from_numpy(ends_BT),
    )
