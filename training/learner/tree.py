# pyright: basic
"""Sequences that begin alike, laid out as rows of trees: a token that they share is in a row once.

A row holds the tokens of its tree in depth-first order. A token's position is its depth, and it sees its ancestors and
itself only, so sequences that part do not see one another. Functions take sequences as packed token ids.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

ROW_TOKENS = (256, 512, 1024, 2048)
"""Row lengths that are tried. Long rows share more, short ones have less attention to compute."""
EVEN_TOKENS = 1024
"""At this row length, attention is taken to cost as much as everything else of a token. Larger models come to it
later."""


def cost(rows: int, width: int) -> float:
    """What `rows` rows of `width` tokens cost, in tokens of a very short row."""
    return rows * width * (1 + width / EVEN_TOKENS)


def shared(one: bytes, two: bytes) -> int:
    """Number of equal tokens at the start of both."""
    most = min(len(one), len(two)) // 4
    differ = np.frombuffer(one, "<i4", most) != np.frombuffer(two, "<i4", most)
    return int(differ.argmax()) if differ.any() else most


@dataclass(frozen=True)
class Forest:
    """Sequences in the order of a depth-first walk through the tree of all of them."""

    order: Sequence[int]
    """Which sequence is at which place of the walk."""
    lengths: Sequence[int]
    """Tokens of the sequence at each place."""
    shares: Sequence[int]
    """Tokens that it shares with the sequence before; 0 for the first."""

    targets: Sequence[int]
    """Tokens that each sequence predicts, in the order in which sequences were given. They bound the memory of logits,
    which equal sequences do not share."""

    @classmethod
    def of(cls, sequences: Sequence[bytes], targets: Sequence[int]) -> "Forest":
        order = sorted(range(len(sequences)), key=lambda place: sequences[place])
        walk = [sequences[place] for place in order]
        shares = [0, *(shared(one, two) for one, two in pairwise(walk))]
        return cls(order, [len(sequence) // 4 for sequence in walk], shares[: len(walk)], targets)

    @property
    def tokens(self) -> int:
        """Tokens if all sequences are one row."""
        return sum(self.lengths) - sum(self.shares)

    def rows(self, width: int) -> list[list[int]]:
        """The fewest rows of at most `width` tokens and as many targets, as equal in length as possible. A longer
        sequence is a row alone. A row is a list of sequences, in the order of the walk."""
        fewest = len(self._filled(width, width))
        least = bisect_left(range(width), -fewest, key=lambda narrower: -len(self._filled(narrower, width)))
        return self._filled(least, width)

    def parts(self, most: int) -> list[list[int]]:
        """At most `most` rows, as equal in length as possible."""
        least = bisect_left(range(self.tokens), -most, key=lambda width: -len(self._filled(width)))
        return self._filled(least)

    def _filled(self, width: int, most_targets: float = math.inf) -> list[list[int]]:
        rows: list[list[int]] = []
        size = targets = 0
        for place, length, shares in zip(self.order, self.lengths, self.shares, strict=True):
            size, targets = size + length - shares, targets + self.targets[place]
            if not rows or size > width or targets > most_targets:
                rows.append([])
                size, targets = length, self.targets[place]
            rows[-1].append(place)
        return rows


@dataclass(frozen=True)
class Row:
    """The tokens of a tree. `ids`, `depths`, `ends`: int64[T]. A token's descendants are the tokens after it and before
    its end. `paths`: for each sequence the places of its tokens in the row."""

    ids: npt.NDArray[np.int64]
    depths: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    paths: Sequence[npt.NDArray[np.int64]]

    @classmethod
    def of(cls, sequences: Sequence[bytes]) -> "Row":
        """`sequences`: in the order of a walk; see Forest."""
        ids, depths, paths = [], [], []
        ends = np.zeros(sum(map(len, sequences)) // 4, dtype=np.int64)
        size, before, path = 0, b"", np.zeros(0, dtype=np.int64)
        for sequence in sequences:
            length, kept = len(sequence) // 4, shared(before, sequence)
            ends[path[kept:]] = size
            ids.append(np.frombuffer(sequence, "<i4")[kept:].astype(np.int64))
            depths.append(np.arange(kept, length))
            grown = np.arange(size, size + length - kept)
            before, path, size = sequence, np.concatenate([path[:kept], grown]), size + len(grown)
            paths.append(path)
        ends[path] = size
        return cls(np.concatenate(ids), np.concatenate(depths), ends[:size], paths)
