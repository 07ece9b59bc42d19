# pyright: basic
"""Turns examples into padded batches with little padding. Only completion tokens are in the loss."""

from collections.abc import Iterator, Sequence
from random import Random

import numpy as np
import torch

from core.messages import Imitate, Reinforce

Continued = Imitate | Reinforce
"""Examples with one completion after a context."""
SPREAD_TOKENS = 40
"""Largest difference in length between two sequences of a batch."""
CHUNK = 4096
"""Number of examples that are sorted by length together. The shuffle decides the chunk of an example and the order of
the batches."""


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


def collate(batch: Sequence[Continued]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns ids_BT int64, right-padded with 0; mask_BT bool, true on completion tokens (with the stop token, without
    the padding); weight_B float32. A causal model needs no attention mask for right padding."""
    width = max(length(example) for example in batch)
    ids_BT = np.zeros((len(batch), width), dtype=np.int64)
    mask_BT = np.zeros((len(batch), width), dtype=np.bool_)
    for row, example in enumerate(batch):
        context = np.frombuffer(example.context_ids, dtype="<i4")
        completion = np.frombuffer(example.completion_ids, dtype="<i4")
        end = len(context) + len(completion)
        ids_BT[row, : len(context)] = context
        ids_BT[row, len(context) : end] = completion
        mask_BT[row, len(context) : end] = True
    weight_B = torch.tensor([example.weight for example in batch], dtype=torch.float32)
    return torch.from_numpy(ids_BT), torch.from_numpy(mask_BT), weight_B
