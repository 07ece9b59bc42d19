from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.codec import pack_ids
from core.errors import ObjectiveError
from core.messages import Imitate, PolicyRef, Prefer, Reinforce
from core.protocols import Method
from training.learner.collate import SPREAD_TOKENS, collate, length, micro_batches, pack_batches
from training.objectives import check, objective
from training.objectives.sft import sft


def imitate(name: str, context: list[int], completion: list[int], weight: float = 1.0) -> Imitate:
    return Imitate(
        id=name,
        group_id="g",
        policy=PolicyRef(version=0),
        method="m",
        weight=weight,
        render_id="r",
        context_ids=pack_ids(context),
        completion_ids=pack_ids(completion),
    )


def test_only_completion_tokens_with_their_stop_token_are_in_the_loss():
    rows = collate([[imitate("a", [1, 7], [8, 2])], [imitate("b", [1, 5, 6], [9, 9, 2], weight=0.5)]])
    assert rows.ids_BT.tolist() == [[1, 7, 8, 0, 0], [1, 5, 6, 9, 9]]  # the last tokens are only predicted
    assert rows.kept_U.tolist() == [1, 2, 7, 8, 9]
    assert rows.targets_N.tolist() == [8, 2, 9, 9, 2]
    assert rows.weight_N.tolist() == [1.0, 1.0, 0.5, 0.5, 0.5]


def test_shared_rows_keep_the_logits_that_predict_several_tokens_once():
    rows = collate([[imitate("a", [1, 7], [8, 2]), imitate("b", [1, 7], [9, 2], weight=0.5)], [imitate("c", [1], [5])]])
    assert rows.ids_BT.tolist() == [[1, 7, 8, 9], [1, 0, 0, 0]]
    assert rows.depths_BT is not None and rows.depths_BT.tolist() == [[0, 1, 2, 2], [0, 0, 0, 0]]
    assert rows.ends_BT is not None and rows.ends_BT.tolist() == [[4, 4, 3, 4], [1, 2, 3, 4]]
    assert rows.kept_U.tolist() == [1, 2, 3, 4]
    assert rows.which_N is not None and rows.which_N.tolist() == [0, 1, 0, 2, 3]
    assert rows.targets_N.tolist() == [8, 2, 9, 2, 5]
    assert rows.weight_N.tolist() == [1.0, 1.0, 0.5, 0.5, 1.0]


lengths = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=80)


@settings(max_examples=100, deadline=None)
@given(shapes=lengths, batch_tokens=st.integers(1, 600), seed=st.integers(0, 5))
def test_every_example_is_in_one_batch_within_its_tokens_and_the_order_is_the_seeds(shapes, batch_tokens, seed):
    examples = [imitate(str(i), [1] * c, [2] * y) for i, (c, y) in enumerate(shapes)]
    batches = pack_batches(examples, batch_tokens, Random(seed))
    assert sorted(e.id for b in batches for e in b) == sorted(e.id for e in examples)
    for batch in batches:
        sizes = [length(e) for e in batch]
        assert len(batch) == 1 or max(sizes) * len(batch) <= batch_tokens
        assert max(sizes) - min(sizes) <= SPREAD_TOKENS
        cut = micro_batches(batch, 100)
        assert sorted(e.id for m in cut for e in m) == sorted(e.id for e in batch)
        assert all(len(m) == 1 or max(map(length, m)) * len(m) <= 100 for m in cut)
    assert batches == pack_batches(examples, batch_tokens, Random(seed))


def test_the_loss_of_two_weighted_tokens_by_hand():
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]))
    loss = sft(logits, torch.tensor([1, 2]), torch.tensor([1.0, 2.0]))
    assert loss.item() == pytest.approx(1.3862944 + 2 * 0.2231436, rel=1e-5)


def test_the_gradient_of_the_loss_is_right():
    logits = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    targets, weight = torch.tensor([0, 3, 1, 2, 2]), torch.tensor([1.0, 0.0, 2.0, 0.5, 1.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: sft(x, targets, weight), (logits,))


def method(makes, name: str = "sft") -> Method:
    return Method("lmsi", None, None, lambda s, h: [], name, makes, "none")  # type: ignore[arg-type]


def test_a_method_whose_examples_its_objective_cannot_eat_is_refused_with_the_remedy():
    assert check(method(Imitate)).function is sft
    assert check(method(Reinforce, "grpo")).name == "grpo"
    with pytest.raises(ObjectiveError, match=r"makes Imitate and its objective 'grpo' takes .*use objective sft"):
        check(method(Imitate, "grpo"))
    with pytest.raises(ObjectiveError, match=r"'lmsi' makes Prefer and its objective 'sft' takes Imitate; .*select"):
        check(method(Prefer))
    with pytest.raises(ObjectiveError, match="use one of grpo, sft"):
        objective("dpo")
