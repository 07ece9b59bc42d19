"""ScPO: the most common answer above the least common one. Numbers worked by hand."""

import pytest

from core.config import MethodConfig
from core.messages import Group
from core.objectives import Dpo
from core.protocols import Facts, History
from methods import recipes
from tests.pure.methods.recipes.hand_made import group, method, settled, texts

NUMBER = "method.answer.kind=number"


def answers(**times: int) -> Group:
    """Samples with different texts for these answers: A is 1, B 2, C 3."""
    named = {"A": 1, "B": 2, "C": 3}
    return group(*(f"{place} so {named[name]}" for name, many in times.items() for place in range(many)))


def pair(one: Group, *options: str) -> tuple[float, str, str]:
    """Weight, chosen and rejected answer of the only example."""
    (example,) = settled(method("scpo", NUMBER, *options), one).examples
    chosen, rejected = texts(example, one)
    return example.weight, chosen[-1], rejected[-1]


def test_the_pair_is_of_the_largest_and_the_smallest_cluster_weighted_by_their_difference() -> None:
    assert pair(answers(A=5, B=2, C=1)) == (pytest.approx(0.5), "1", "3")
    assert pair(answers(C=1, B=2, A=5), "method.options.weighted=false") == (1.0, "1", "3")


def test_a_share_below_the_threshold_is_dropped() -> None:
    kept = settled(method("scpo", NUMBER, "method.options.min_share=0.7"), answers(A=5, B=2, C=1))
    assert not kept.examples and kept.drops == {"low_share": 1}


def test_a_tie_gives_no_example() -> None:
    kept = settled(method("scpo", NUMBER), answers(A=4, B=4))
    assert not kept.examples and kept.drops == {"no_loser": 1}


def test_a_unanimous_prompt_gives_no_example() -> None:
    assert settled(method("scpo", NUMBER), answers(A=8)).drops == {"no_loser": 1}


@pytest.mark.parametrize("k", [4, 8, 16])
def test_the_largest_weight_of_a_usable_pair_is_that_of_a_single_dissent(k: int) -> None:
    found = [pair(answers(A=k - few, B=few))[0] for few in range(1, k // 2)]
    assert max(found) == found[0] == pytest.approx((k - 2) / k)


def test_samples_without_an_answer_lower_the_share_and_are_no_cluster() -> None:
    one = group(*(f"{n} so 1" for n in range(5)), "no idea", "so 2", "and 2")
    assert pair(one) == (pytest.approx(3 / 8), "1", "2")


def test_the_threshold_rises_with_the_windows() -> None:
    made = method("scpo", NUMBER)
    assert made.tune is not None and made.tuned == {"min_share": 0.5}
    rising = [made.tune(Facts(w, 10, 10, {}, made.tuned))["min_share"] for w in (0, 1, 2, 3, 4, 9)]
    assert rising == pytest.approx([0.5, 0.55, 0.6, 0.65, 0.7, 0.7])
    one, late = answers(A=5, B=2, C=1), History(tuned={"min_share": 0.7})
    assert settled(made, one).examples
    assert settled(made, one, history=late).drops == {"low_share": 1}


def test_the_objective_is_the_papers() -> None:
    assert method("scpo").objective == Dpo(beta=0.5, nll=1.0, reference="parent")


def test_one_option_of_the_objective_leaves_its_others() -> None:
    method = recipes.build(MethodConfig(recipe="scpo", options={"dpo": {"beta": 0.2}}))
    assert method.objective == Dpo(beta=0.2, nll=1.0)
