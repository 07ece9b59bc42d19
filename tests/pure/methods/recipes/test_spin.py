"""SPIN on people's corrections. Numbers worked by hand."""

import math

import pytest

from core.messages import Group
from core.objectives import Dpo
from tests.pure.methods.recipes.hand_made import correction, group, method, settled, texts
from tests.pure.training.tabular import sums
from training.objectives.dpo import dpo

WRITTEN = "That is 7"
SAMPLES = group("so 8", "so 9", "so 8", version=2)


def sides(*options: str, samples: Group = SAMPLES) -> list[list[str]]:
    kept = settled(method("spin", *options), samples, votes=[correction(WRITTEN)])
    return [texts(example, *(one.group for one in kept.scored)) for example in kept.examples]


def test_the_loss_worked_by_hand() -> None:
    assert method("spin").objective == Dpo(beta=0.1, reference="parent")
    assert dpo(sums([[-30.0, -25.0]], [[-32.0, -24.0]]), Dpo(beta=0.1)).item() == pytest.approx(0.5544, abs=1e-4)
    assert dpo(sums([[-32.0, -24.0]], [[-32.0, -24.0]]), Dpo(beta=0.1)).item() == pytest.approx(math.log(2))


def test_a_text_of_people_is_above_an_own_sample() -> None:
    ((chosen, rejected),) = sides()
    assert chosen == WRITTEN and rejected in ("so 8", "so 9")


def test_a_text_can_be_paired_with_several_distinct_samples() -> None:
    found = sides("method.options.each=8")
    assert sorted(found) == [[WRITTEN, "so 8"], [WRITTEN, "so 9"]]


def test_a_pair_of_equal_texts_and_a_sample_that_was_cut_off_are_dropped() -> None:
    samples = group(WRITTEN, f" {WRITTEN}\n", "it is", "so 9", cut=[2])
    assert sides("method.options.each=8", samples=samples) == [[WRITTEN, "so 9"]]
    assert sides(samples=group(WRITTEN)) == []


def test_without_a_correction_nothing_is_learned() -> None:
    kept = settled(method("spin"), SAMPLES)
    assert not kept.examples and kept.drops == {"no_correction": 1}


def test_a_text_that_too_few_people_wrote_is_not_learned_from() -> None:
    kept = settled(method("spin", "method.votes.quorum=2"), SAMPLES, votes=[correction(WRITTEN)])
    assert not kept.examples


def test_its_examples_are_by_people_and_as_old_as_the_samples() -> None:
    (example,) = settled(method("spin"), SAMPLES, votes=[correction(WRITTEN)]).examples
    assert example.by == "person" and example.policy.version == 2 and not example.fixed


def test_the_null_control_puts_the_text_of_people_first_in_half_of_the_pairs() -> None:
    first = 0
    for name in range(200):
        samples = group("so 8", name=f"{name}")
        ((chosen, _),) = sides("method.options.shuffled=true", samples=samples)
        first += chosen == WRITTEN
    assert 80 <= first <= 120
