import torch
from hypothesis import given
from hypothesis import strategies as st

from core.codec import pack_ids
from training.learner.logits import seen
from training.learner.tree import Forest, Row, shared

sequences = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), min_size=1, max_size=20)


def forest(drawn: list[list[int]]) -> Forest:
    return Forest.of([pack_ids(ids) for ids in drawn], [1] * len(drawn))


def branches(drawn: list[list[int]]) -> set[tuple[int, ...]]:
    """Every beginning of a sequence, once: the tokens of the tree."""
    return {tuple(ids[: end + 1]) for ids in drawn for end in range(len(ids))}


def test_a_tree_of_three_sequences_by_hand():
    row = Row.of([pack_ids(ids) for ids in ([7, 8, 9], [7, 8, 300, 4], [7, 5])])
    assert row.ids.tolist() == [7, 8, 9, 300, 4, 5]
    assert row.depths.tolist() == [0, 1, 2, 2, 3, 1]
    assert row.ends.tolist() == [6, 5, 3, 5, 5, 6]
    assert [path.tolist() for path in row.paths] == [[0, 1, 2], [0, 1, 3, 4], [0, 5]]


def test_tokens_are_compared_and_not_their_bytes():
    assert shared(pack_ids([1, 256]), pack_ids([1, 512])) == 1
    assert shared(pack_ids([1, 2]), pack_ids([1, 2, 3])) == 2
    assert shared(b"", pack_ids([1])) == 0


@given(drawn=sequences)
def test_a_token_sees_its_sequence_up_to_itself_and_nothing_else(drawn):
    walk = [drawn[place] for place in forest(drawn).order]
    row = Row.of([pack_ids(ids) for ids in walk])
    assert len(row.ids) == len(branches(drawn)) == forest(drawn).tokens
    mask = seen(torch.from_numpy(row.ends)[None])[0, 0].numpy()
    for ids, path in zip(walk, row.paths, strict=True):
        assert row.ids[path].tolist() == ids
        assert row.depths[path].tolist() == list(range(len(ids)))
        for depth, place in enumerate(path):
            assert mask[place].nonzero()[0].tolist() == path[: depth + 1].tolist()


@given(drawn=sequences, width=st.integers(1, 30))
def test_rows_hold_every_sequence_once_within_their_width_and_are_few_and_equal(drawn, width):
    rows = forest(drawn).rows(width)
    assert sorted(place for row in rows for place in row) == list(range(len(drawn)))
    sizes = [len(branches([drawn[place] for place in row])) for row in rows]
    for row, size in zip(rows, sizes, strict=True):
        assert len(row) == 1 or (size <= width and len(row) <= width)
    if width >= max(len(branches(drawn)), len(drawn)):
        assert len(rows) == 1
    if max(map(len, drawn)) <= width:  # one token less would need another row
        assert (
            len(forest(drawn).rows(max(sizes) - 1)) > len(rows) or max(sizes) == 1 or max(map(len, drawn)) == max(sizes)
        )


@given(drawn=sequences, most=st.integers(1, 5))
def test_parts_are_no_more_than_asked_for(drawn, most):
    parts = forest(drawn).parts(most)
    assert 1 <= len(parts) <= most
    assert sorted(place for part in parts for place in part) == list(range(len(drawn)))


def test_parts_are_as_equal_as_possible():
    drawn = [[1, 2, first, end] for first in (3, 4) for end in (5, 6, 7)]
    assert forest(drawn).tokens == 10
    assert sorted(sorted(part) for part in forest(drawn).parts(2)) == [[0, 1, 2], [3, 4, 5]]


def test_equal_sequences_are_no_more_than_a_rows_tokens():
    many = Forest.of([pack_ids([1, 2, 3])] * 10, [2] * 10)
    assert [len(row) for row in many.rows(8)] == [4, 4, 2]
