from hypothesis import given
from hypothesis import strategies as st

from core.codec import pack_ids
from core.messages import Example
from tests.pure import examples
from training.learner.collate import computed
from training.learner.fsdp import deal


def example(name: int, tokens: int) -> Example:
    ids = pack_ids(range(tokens))
    return examples.imitate(str(name), ids[:4], ids[4:])


@given(
    lengths=st.lists(st.integers(2, 30), max_size=20),
    size=st.integers(1, 5),
    micro_batch_tokens=st.one_of(st.none(), st.integers(30, 90)),
    share_tokens=st.sampled_from([0, 20, 30]),
)
def test_members_take_as_many_turns_and_every_example_counts_once(lengths, size, micro_batch_tokens, share_tokens):
    batch = [example(i, tokens) for i, tokens in enumerate(lengths)]
    dealt = deal(batch, size, micro_batch_tokens, share_tokens)
    assert len({len(turns) for turns in dealt}) == 1
    held = [piece.example for turns in dealt for turn in turns for line in turn for piece in line]
    assert sorted(e.id for e in held if e.weight) == sorted(e.id for e in batch)
    for turn in (turn for turns in dealt for turn in turns):
        assert turn
        assert micro_batch_tokens is None or computed(turn) <= micro_batch_tokens


def test_the_rows_of_a_pair_stay_with_one_member():
    ids = pack_ids(range(9))
    batch = [examples.prefer(str(i), ids[:16], ids[16 : 24 + 4 * (i % 3)], ids[4:12]) for i in range(7)]
    dealt = deal(batch, 2, 40, 30)
    assert len({len(turns) for turns in dealt}) == 1
    held = [[p for line in turn for p in line if p.example.weight] for turns in dealt for turn in turns]
    assert sorted(p.key for turn in held for p in turn) == sorted((str(i), place) for i in range(7) for place in (0, 1))
    for turn in held:
        assert {p.key for p in turn} == {(p.example.id, place) for p in turn for place in (0, 1)}
