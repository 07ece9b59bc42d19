"""DIVE: diverse pairs of all rounds. Numbers worked by hand."""

import random
from statistics import fmean

import pytest

from core.errors import ConfigError
from core.messages import Group, Scored
from core.objectives import Dpo
from methods.selectors.diverse import diversity, most_diverse
from tests.pure.methods.recipes.hand_made import candidate, group, method, settled, texts
from tests.pure.training.tabular import sums
from training.objectives.dpo import dpo

A, B = "3 plus 4 is 7", "3 plus 4 is 7 so 7"
C, D = "4 more than 3 gives 7", "3 plus 4 equals 7"
NUMBER = "method.answer.kind=number"


class First(random.Random):
    """Always starts with the first."""

    def randrange(self, *args: int) -> int:  # type: ignore[override]
        return 0


def judged(*made: Group) -> list[Scored]:
    return [one for each in made for one in settled(method("dive", NUMBER), each).scored]


def pool(seed: int, size: int = 12) -> list[str]:
    lots = random.Random(seed)
    words = ["so", "then", "we", "add", "the", "two", "numbers", "and", "get", "it", "at", "last"]
    return [" ".join(lots.choices(words, k=lots.randint(4, 9))) for _ in range(size)]


@pytest.mark.parametrize(
    ("taken", "worth"), [((A, B), 0.55), ((A, C), 0.8636), ((A, D), 0.675), ((A, C, B), 0.6167), ((A, C, D), 0.7043)]
)
def test_diversity_is_the_mean_of_distinct_words_and_distinct_pairs_of_words(
    taken: tuple[str, ...], worth: float
) -> None:
    assert diversity(taken) == pytest.approx(worth, abs=1e-4)
    assert diversity([]) == 0 and diversity(["7"]) == 0.5


def test_the_greedy_set_adds_what_makes_it_most_diverse() -> None:
    side = [candidate(text, name) for name, text in zip("abcd", (A, B, C, D), strict=True)]
    assert [c.id for c in most_diverse(side, 3, First())] == ["a", "c", "d"]


def test_pairs_are_of_the_winning_and_of_other_answers() -> None:
    one = group("is 7", "so 7", "7 it is", "8 or so", "no idea", "it is 9", "7", cut=[6])
    examples = settled(method("dive", NUMBER, "method.options.min_share=0.4"), one).examples
    sides = [texts(example, one) for example in examples]
    assert len(sides) == 2 and {low for _, low in sides} == {"8 or so", "it is 9"}
    assert {high for high, _ in sides} < {"is 7", "so 7", "7 it is"}


def test_a_prompt_has_at_most_as_many_pairs_as_set() -> None:
    one = group(*(f"{n} 7" for n in range(4)), *(f"{n} 8" for n in range(3)))
    assert len(settled(method("dive", NUMBER), one).examples) == 3
    assert len(settled(method("dive", NUMBER, "method.options.pairs=2"), one).examples) == 2


def test_todays_majority_labels_the_texts_of_earlier_rounds() -> None:
    before = group("old 8", "older 8", "old 7", name="before", version=1)
    today = group("7", "it is 7", name="today", version=3)
    kept = settled(method("dive", NUMBER), today, earlier=judged(before))
    sides = [texts(example, before, today) for example in kept.examples]
    assert {low for _, low in sides} == {"old 8", "older 8"}
    assert {high for high, _ in sides} <= {"7", "it is 7", "old 7"}
    for example in kept.examples:
        assert example.group_id == "today" and example.policy.version == 3


def test_a_pair_of_old_texts_only_counts_as_old_as_todays_samples() -> None:
    before = group("old 7", "old 8", name="before", version=1)
    today = group("old 7", name="today", version=3)
    (example,) = settled(method("dive", NUMBER), today, earlier=judged(before)).examples
    assert texts(example, before) == ["old 7", "old 8"] and example.policy.version == 3


def test_without_a_wrong_text_in_any_round_nothing_is_learned() -> None:
    today = group("7", "it is 7", "8", cut=[2])
    kept = settled(method("dive", NUMBER), today)
    assert not kept.examples and kept.drops == {"one_sided": 1}


def test_the_same_groups_make_the_same_pairs() -> None:
    one = group(*(f"{n} so 7" for n in range(6)), *(f"{n} so 8" for n in range(4)))
    first, second = (settled(method("dive", NUMBER), one).examples for _ in range(2))
    assert first == second and len({example.id for example in first}) == 4


def test_the_loss_is_the_released_one() -> None:
    pair = sums([[-12.0, -20.0]], [[-13.0, -19.5]], tokens=6)
    assert method("dive").objective == Dpo(beta=0.4, nll=0.5, reference="parent")
    assert dpo(pair, Dpo(beta=0.4)).item() == pytest.approx(0.4375, abs=1e-4)
    assert dpo(pair, Dpo(beta=0.4, nll=0.5)).item() == pytest.approx(1.4375, abs=1e-4)


def test_the_null_control_takes_less_diverse_sets_of_the_same_pool() -> None:
    better = 0
    for seed in range(40):
        # answers differ in the last word, so that every text of the pool is on one side
        one = group(
            *(f"{text} 7" for text in pool(seed)), *(f"{text} 8" for text in pool(seed + 100)[:6]), name=f"{seed}"
        )
        found = []
        for greedy in ("true", "false"):
            examples = settled(method("dive", NUMBER, f"method.options.greedy={greedy}"), one).examples
            assert len(examples) == 5
            found.append(fmean(diversity([texts(e, one)[side] for e in examples]) for side in (0, 1)))
        better += found[0] > found[1]
    assert better >= 36


def test_it_needs_samples_that_differ() -> None:
    with pytest.raises(ConfigError, match="recipe dive needs different samples"):
        method("dive", "method.sampler.temperature=0")


def test_it_remembers_earlier_rounds() -> None:
    assert method("dive").remembers
