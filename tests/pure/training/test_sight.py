import itertools
import math
import random
import statistics

import pytest

from training.gate.guards import Answer
from training.gate.sight import Sight, sight

NUMBERS = [str(i % 97) for i in range(300)]
DELTA = 0.03


def answers(values, expected=NUMBERS) -> list[Answer]:
    return [Answer(hit=value == key, value=value, tokens=5) for value, key in zip(values, expected, strict=True)]


def seen(champion, candidate=None, expected=NUMBERS) -> Sight:
    versions = {"policy@v0": answers(champion, expected), "policy@v1": answers(candidate or champion, expected)}
    return sight(versions, expected, "gate.keys")


def knowing(share: float, expected=NUMBERS, seed: int = 0) -> list[str | None]:
    """Right with this chance, else another key."""
    chance = random.Random(seed)
    return [key if chance.random() < share else chance.choice(expected) for key in expected]


def test_it_is_the_permutation_test_over_all_orders() -> None:
    expected, said = ["a", "a", "b", "c", "d"], ["a", "b", "b", "a", None]
    hits = [sum(x == y for x, y in zip(order, expected, strict=True)) for order in itertools.permutations(said)]
    excess = (2 - statistics.mean(hits)) / 5
    found = sight({"v": answers(said, expected)}, expected, "gate.keys")
    assert (found.least + found.most) / 2 == pytest.approx(excess)
    assert (found.most - found.least) / 2 == pytest.approx(3 * statistics.pstdev(hits) / 5)


def test_keys_that_nobody_can_hit_are_seen_as_such_with_an_example() -> None:
    found = seen(NUMBERS, expected=[f"{key}.0" for key in NUMBERS])
    assert found.most == found.least == 0.0
    assert found.why == (
        "of 300 probes 0 by policy@v0 and 0 by policy@v1 were hit, no more than when the answers are shuffled "
        "(policy@v0 said '0' where '0.0' is expected); check the answers in gate.keys, their spelling and their lines"
    )


def test_of_all_misses_one_that_differs_in_spelling_is_shown() -> None:
    found = seen(["1", "9", *NUMBERS[2:]], expected=["5", "9.0", *[f"not {key}" for key in NUMBERS[2:]][::-1]])
    assert "(policy@v0 said '9' where '9.0' is expected)" in found.why


def test_answers_that_nobody_can_read_are_seen_as_such() -> None:
    found = seen([None] * 300)
    assert found.most <= DELTA and "(no answer can be read); check method.answer" in found.why


@pytest.mark.parametrize("share", [0.4, 1.0])
def test_keys_that_are_all_the_same_show_nothing_however_often_they_are_hit(share: float) -> None:
    chance, same = random.Random(1), ["5"] * 300
    found = seen(["5" if chance.random() < share else "6" for _ in same], expected=same)
    assert found.most == pytest.approx(0.0, abs=1e-9)
    assert "all expect '5'); give gate.keys questions with different answers" in found.why


def test_keys_on_the_wrong_lines_show_nothing_even_if_they_are_often_hit_by_chance() -> None:
    shifted = [*NUMBERS[1:], NUMBERS[0]]
    assert seen(NUMBERS, expected=shifted).most <= DELTA
    letters = random.Random(2).choices("ABCD", k=2000)
    for seed in range(5):
        wrong = random.Random(seed).sample(letters, len(letters))
        assert seen(letters, knowing(0.9, letters), expected=wrong).least <= DELTA


def test_a_model_that_knows_something_is_seen_to_read_the_questions() -> None:
    assert seen(NUMBERS).least > DELTA, "the perfect champion"
    assert seen(knowing(0.15)).least > DELTA
    letters = random.Random(2).choices("ABCD", k=300)
    assert seen(knowing(0.4, letters), expected=letters).least > DELTA
    assert seen([None] * 300, knowing(0.15)).least > DELTA, "the candidate alone"
    assert seen(knowing(0.15), [None] * 300).least > DELTA, "the champion alone"


def test_answers_to_other_probes_than_those_expected_are_refused() -> None:
    with pytest.raises(ValueError):
        sight({"v": answers(NUMBERS)[:299]}, NUMBERS, "gate.keys")


def test_one_probe_or_none_shows_nothing_either_way() -> None:
    for n in (0, 1):
        found = sight({"v": answers(NUMBERS[:n], NUMBERS[:n])}, NUMBERS[:n], "gate.keys")
        assert found.least <= DELTA < found.most and not math.isnan(found.most)
