from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.codec import pack_ids
from core.errors import ObjectiveError
from core.messages import Example
from core.objectives import Dpo, Grpo, Objective, Sft
from core.protocols import Method
from tests.pure import examples
from tests.pure.training.tabular import responses
from training.learner.collate import SPREAD_TOKENS, Piece, collate, computed, length, micro_batches, pack_batches, turns
from training.learner.targets import tokens_of
from training.learner.tokens import Tokens
from training.objectives import check, loss_of
from training.objectives.sft import sft


def imitate(name: str, context: list[int], completion: list[int]) -> Example:
    return examples.imitate(name, pack_ids(context), pack_ids(completion))


def piece(name: str, context: list[int], completion: list[int]) -> Piece:
    return Piece(imitate(name, context, completion), 0)


def test_only_completion_tokens_with_their_stop_token_are_in_the_loss():
    rows = collate([[piece("a", [1, 7], [8, 2])], [piece("b", [1, 5, 6], [9, 9, 2])]])
    assert rows.ids_BT.tolist() == [[1, 7, 8, 0, 0], [1, 5, 6, 9, 9]]  # the last tokens are only predicted
    assert rows.kept_U.tolist() == [1, 2, 7, 8, 9]
    assert rows.targets_N.tolist() == [8, 2, 9, 9, 2]
    assert rows.counts == [2, 3]


def test_shared_rows_keep_the_logits_that_predict_several_tokens_once():
    rows = collate([[piece("a", [1, 7], [8, 2]), piece("b", [1, 7], [9, 2])], [piece("c", [1], [5])]])
    assert rows.ids_BT.tolist() == [[1, 7, 8, 9], [1, 0, 0, 0]]
    assert rows.depths_BT is not None and rows.depths_BT.tolist() == [[0, 1, 2, 2], [0, 0, 0, 0]]
    assert rows.ends_BT is not None and rows.ends_BT.tolist() == [[4, 4, 3, 4], [1, 2, 3, 4]]
    assert rows.kept_U.tolist() == [1, 2, 3, 4]
    assert rows.which_N is not None and rows.which_N.tolist() == [0, 1, 0, 2, 3]
    assert rows.targets_N.tolist() == [8, 2, 9, 2, 5]
    assert rows.counts == [2, 2, 1]


def no_teacher() -> torch.Tensor:
    raise AssertionError("no objective here has a teacher")


@pytest.mark.parametrize(
    ("objective", "weight_N"),
    [(Sft(), [1.0, 1.0, 0.5, 0.5, 0.5]), (Grpo(mean="sequence"), [1 / 2, 1 / 2, 1 / 6, 1 / 6, 1 / 6])],
    ids=lambda value: getattr(value, "unit", ""),
)
def test_a_token_weighs_what_its_example_does_in_the_unit_of_the_objective(objective, weight_N):
    light = examples.imitate("b", pack_ids([1, 5, 6]), pack_ids([9, 9, 2]), weight=0.5)
    turn = [[piece("a", [1, 7], [8, 2])], [Piece(light, 0)]]
    tokens = tokens_of(turn, collate(turn), torch.zeros(5, 10), {}, objective.unit, no_teacher)
    assert tokens.weight_N.tolist() == pytest.approx(weight_N)
    assert tokens.row_N.tolist() == [0, 0, 1, 1, 1] and tokens.rows_EK.tolist() == [[0], [1]]


def test_the_rows_of_a_pair_are_found_in_any_order_and_its_weight_is_the_example_s():
    one, two = (examples.prefer(name, *map(pack_ids, ([1], [8, 2], [9])), weight=3.0) for name in "ab")
    turn = [[Piece(one, 1), Piece(two, 0)], [Piece(two, 1), Piece(one, 0)]]
    tokens = tokens_of(turn, collate(turn), torch.zeros(6, 10), {}, Dpo().unit, no_teacher)
    assert tokens.rows_EK.tolist() == [[3, 0], [1, 2]] and tokens.row_N.tolist() == [0, 1, 1, 2, 3, 3]
    assert tokens.weight_E.tolist() == [3.0, 3.0] and tokens.weight_N.tolist() == [1.0] * 6


lengths = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=80)


@settings(max_examples=100, deadline=None)
@given(shapes=lengths, batch_tokens=st.integers(1, 600), seed=st.integers(0, 5))
def test_every_example_is_in_one_batch_within_its_tokens_and_the_order_is_the_seeds(shapes, batch_tokens, seed):
    made = [imitate(str(i), [1] * c, [2] * y) for i, (c, y) in enumerate(shapes)]
    batches = pack_batches(made, batch_tokens, Random(seed))
    assert sorted(e.id for b in batches for e in b) == sorted(e.id for e in made)
    for batch in batches:
        sizes = [length(e) for e in batch]
        assert len(batch) == 1 or max(sizes) * len(batch) <= batch_tokens
        assert max(sizes) - min(sizes) <= SPREAD_TOKENS
        cut = micro_batches(batch, 100)
        assert sorted(e.id for m in cut for e in m) == sorted(e.id for e in batch)
        assert all(len(m) == 1 or max(map(length, m)) * len(m) <= 100 for m in cut)
    assert batches == pack_batches(made, batch_tokens, Random(seed))


def weighted(logits: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor) -> Tokens:
    made = responses(logits[0], [[int(target)] for target in targets])
    made.logits_NV, made.weight_N = logits, weight
    return made


def test_the_loss_of_two_weighted_tokens_by_hand():
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]))
    loss = sft(weighted(logits, torch.tensor([1, 2]), torch.tensor([1.0, 2.0])), Sft())
    assert loss.item() == pytest.approx(1.3862944 + 2 * 0.2231436, rel=1e-5)


def test_the_gradient_of_the_loss_is_right():
    logits = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    targets, weight = torch.tensor([0, 3, 1, 2, 2]), torch.tensor([1.0, 0.0, 2.0, 0.5, 1.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: sft(weighted(x, targets, weight), Sft()), (logits,))


def method(objective: Objective, rows: int = 1, columns: tuple[str, ...] = ()) -> Method:
    return Method("lmsi", None, None, lambda s, h: [], objective, rows=rows, columns=columns)  # type: ignore[arg-type]


def test_a_method_whose_examples_its_objective_does_not_take_is_refused_with_the_remedy():
    assert loss_of(check(method(Sft()))) is sft
    assert check(method(Grpo(), columns=("behaviour",))).kind == "grpo"
    with pytest.raises(ObjectiveError, match=r"needs the column 'behaviour', .* of method 'lmsi' .*behaviour=True"):
        check(method(Grpo()))
    with pytest.raises(ObjectiveError, match=r"'lmsi' makes examples of 2 row\(s\) and its objective 'sft' takes 1"):
        check(method(Sft(), rows=2))
    with pytest.raises(ObjectiveError, match=r"of 1 row\(s\) and its objective 'dpo' takes 2; .*or a selector that"):
        check(method(Dpo()))


def test_the_rows_of_a_pair_are_in_one_forward_and_share_their_context():
    pairs = [
        examples.prefer(str(i), pack_ids([1] * 30 + [5 + i]), pack_ids([8, 2]), pack_ids([9, 9, 2])) for i in range(6)
    ]
    for share_tokens in (0, 100):
        made = turns(pairs, 80, share_tokens)
        assert len(made) > 1
        for turn in made:
            held = [piece.key for line in turn for piece in line]
            assert {(name, 0) for name, _ in held} | {(name, 1) for name, _ in held} == set(held)
        found = sorted(piece.key for turn in made for line in turn for piece in line)
        assert found == sorted((str(i), place) for i in range(6) for place in (0, 1))
    assert sum(map(computed, turns(pairs, 80, 100))) < 0.8 * sum(map(computed, turns(pairs, 80, 0)))
