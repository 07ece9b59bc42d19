from hypothesis import given
from hypothesis import strategies as st

from core.codec import pack_ids
from core.messages import BASE, Imitate
from training.learner.collate import computed
from training.learner.fsdp import deal


def example(name: int, tokens: int) -> Imitate:
    ids = pack_ids(range(tokens))
    fields = {"group_id": "g", "policy": BASE, "method": "m", "render_id": "r"}
    return Imitate(id=str(name), context_ids=ids[:4], completion_ids=ids[4:], **fields)


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
    examples = [e for turns in dealt for turn in turns for row in turn for e in row]
    assert sorted(e.id for e in examples if e.weight) == sorted(e.id for e in batch)
    for turn in (turn for turns in dealt for turn in turns):
        assert turn
        assert micro_batch_tokens is None or computed(turn) <= micro_batch_tokens
