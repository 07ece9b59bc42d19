"""The null control of recipes that learn from texts: the same tokens in a random order."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from core.codec import pack_ids, stable_id, unpack_ids
from core.messages import Example, Row, Scored
from core.protocols import History, Selector


@dataclass(frozen=True)
class Scrambled:
    """Another selector's examples. The learned tokens of each row are shuffled by the example's id; context and stop
    token stay in place."""

    of: Selector

    def __call__(self, scored: Sequence[Scored], history: History) -> list[Example]:
        return [
            one.model_copy(update={"rows": tuple(scrambled(row, one.id) for row in one.rows)})
            for one in self.of(scored, history)
        ]


def scrambled(row: Row, seed: str) -> Row:
    """For rows without columns, of which the last span is learned."""
    ids = unpack_ids(row.token_ids)
    start = len(ids) - row.spans[-1].tokens
    learned = ids[start:-1]
    random.Random(stable_id("scrambled", seed)).shuffle(learned)
    return row.model_copy(update={"token_ids": pack_ids([*ids[:start], *learned, ids[-1]])})
