"""Monitors against numbers worked by hand, and verifiers of a known precision against the gap that they must have."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.answers import extractor
from core.config import NumberAnswer, PatternAnswer
from methods.monitors import (
    Formats,
    Interval,
    answer_diversity,
    answer_entropy,
    cl_cs_rss,
    conditionals,
    distinct_n,
    formats,
    gap_gone,
    gv_gap,
    interval,
    pass_at_k,
)
from methods.reweight import Threshold, both, quantile, reweighted, weights

UTILITIES = ((1, 0, 0, 1), (0, 0, 1, 0), (1, 0, 1, 0))
SCORES = ((0.9, 0.4, 0.8, 0.7), (0.2, 0.7, 0.9, 0.1), (0.3, 0.2, 0.1, 0.5))

# --- weights ---


def test_survivors_are_at_or_above_the_threshold_and_no_survivor_keeps_the_mean() -> None:
    kept = [weights(scores, 0.6) for scores in SCORES]
    assert kept == [[1, 0, 1, 1], [0, 1, 1, 0], [0, 0, 0, 0]]
    after = [reweighted(u, w) for u, w in zip(UTILITIES, kept, strict=True)]
    assert after == pytest.approx((0.6667, 0.5, 0.5), abs=1e-4)


def test_a_quantile_keeps_the_best_part_of_each_prompt_with_equals() -> None:
    assert [quantile(scores, 0.5) for scores in SCORES] == [0.8, 0.7, 0.3]
    assert Threshold("top", 0.25).weights((3, 1, 3, 2)) == [1, 0, 1, 0], "equals of the last one survive together"
    assert Threshold("top", 0.3).weights([float(n) for n in range(10)]) == [0] * 7 + [1] * 3
    assert Threshold("tau", 2).weights((3, 1, 3, 2)) == [1, 0, 1, 1]


def test_what_has_no_score_never_survives_and_does_not_count_in_a_quantile() -> None:
    none = -math.inf
    assert Threshold("top", 0.5).weights((none, 1, none, 2)) == [0, 0, 0, 1]
    assert Threshold("top", 1).weights((none, none)) == [0, 0]
    assert weights((none,), none) == [0]


# --- the generation-verification gap ---


def test_the_gap_worked_by_hand_is_relative_to_each_prompt() -> None:
    gap = gv_gap(UTILITIES, SCORES, 0.6)
    assert gap is not None
    assert (gap.absolute, gap.relative) == pytest.approx((0.1389, 0.2222), abs=1e-4)
    assert gap.interval.mean == gap.absolute and gap.interval.low < 0 < gap.interval.high


def test_a_prompt_of_which_nothing_is_missing_has_no_relative_gap() -> None:
    all_right = gv_gap(((1, 1),), ((0.5, 0.1),), 0.3)
    assert all_right is not None and all_right.absolute == 0 and all_right.relative is None
    assert gv_gap((), (), 0.5) is None


def test_each_prompt_may_have_its_own_threshold() -> None:
    gap = gv_gap(UTILITIES, SCORES, [quantile(scores, 0.25) for scores in SCORES])
    assert gap is not None and gap.absolute == pytest.approx((0.5 + 0.75 - 0.5) / 3)


def verified(right_pass: float, wrong_pass: float) -> tuple[list[float], list[float]]:
    """1,000 samples of which 400 are right, and the verdicts of a verifier with these rates, exactly."""
    utilities = [1.0] * 400 + [0.0] * 600
    verdicts = [float(place < 400 * right_pass) for place in range(400)]
    return utilities, verdicts + [float(place < 600 * wrong_pass) for place in range(600)]


def test_a_verifier_of_known_rates_has_the_known_gap() -> None:
    utilities, verdicts = verified(0.8, 0.3)
    assert reweighted(utilities, verdicts) == pytest.approx(0.64)
    gap = gv_gap([utilities], [verdicts], 0.5)
    assert gap is not None and (gap.absolute, gap.relative) == pytest.approx((0.24, 0.40))


def test_two_independent_verifiers_that_agree_are_more_precise_than_one() -> None:
    grid = [place % 10 for place in range(1000)], [place // 10 % 10 for place in range(1000)]
    right = [place // 100 % 10 < 4 for place in range(1000)]  # digits: independent of each other
    first, second = (
        [float(digit < (8 if is_right else 3)) for digit, is_right in zip(digits, right, strict=True)]
        for digits in grid
    )
    utilities = [float(each) for each in right]
    assert reweighted(utilities, first) == pytest.approx(0.64)
    assert reweighted(utilities, both(first, second)) == pytest.approx(0.8258, abs=1e-4)


def test_a_verifier_that_knows_nothing_has_no_gap() -> None:
    gap = gv_gap(*([row] for row in verified(0.5, 0.5)), 0.5)
    assert gap is not None and gap.absolute == pytest.approx(0)


def test_scores_permuted_within_each_prompt_leave_no_gap() -> None:
    found = 0
    for seed in range(40):
        lots = random.Random(seed)
        utilities = [[float(lots.random() < 0.4) for _ in range(16)] for _ in range(60)]
        scores = [[lots.gauss(u, 0.5) for u in row] for row in utilities]
        true = gv_gap(utilities, scores, 0.5)
        shuffled = gv_gap(utilities, [lots.sample(row, len(row)) for row in scores], 0.5)
        assert true is not None and shuffled is not None and true.interval.low > 0.2
        found += shuffled.interval.low <= 0 <= shuffled.interval.high
    assert found >= 35, "the interval holds 0 in about 95 of 100 cases"


def test_the_gap_is_gone_after_two_windows_in_a_row_below_the_limit() -> None:
    low, high = Interval(0.0, -0.02, 0.02), Interval(0.1, 0.05, 0.15)
    assert not gap_gone([low], 0.03) and gap_gone([high, low, low], 0.03)
    assert not gap_gone([low, high, low], 0.03) and not gap_gone([low, low], 0.02)
    assert not gap_gone([interval([0.0])] * 2, 0.5), "one prompt says nothing"


def test_an_interval_worked_by_hand() -> None:
    found = interval([0.0, 0.2, 0.4])
    assert (found.mean, found.low, found.high) == pytest.approx((0.2, 0.2 - 0.2263, 0.2 + 0.2263), abs=1e-4)


# --- a second answer ---


def test_correction_worked_by_hand() -> None:
    found = cl_cs_rss((0.8, 0.5, 0.2), (0.9, 0.6, 0.5), (0.5, 0.2, 0.25))
    assert found is not None
    numbers = (found.kept, found.mended, found.first, found.second, found.rss)
    assert numbers == pytest.approx((0.7467, 0.2667, 0.5, 0.5067, 0.5133), abs=1e-4)


@given(st.lists(st.tuples(st.floats(0.01, 0.99), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=9))
def test_the_second_accuracy_is_what_is_kept_and_mended(rows: list[tuple[float, float, float]]) -> None:
    found = cl_cs_rss(*zip(*rows, strict=True))
    assert found is not None and found.kept is not None and found.mended is not None and found.rss is not None
    assert found.second == pytest.approx(found.first * found.kept + (1 - found.first) * found.mended)
    assert (found.rss > 0.5 + 1e-9) == (found.second - found.first > 2e-9 * found.first * (1 - found.first))


def test_a_fresh_sample_as_second_answer_keeps_by_chance_alone() -> None:
    right = (0.9, 0.5, 0.1)
    found = cl_cs_rss(right, right, right)
    assert found is not None and found.kept == pytest.approx(sum(p * p for p in right) / sum(right))


def test_what_is_undefined_is_none() -> None:
    right, wrong = cl_cs_rss((1, 1), (0.5, 1), (None, None)), cl_cs_rss((0.0,), (None,), (0.5,))
    assert right is not None and (right.kept, right.mended, right.rss) == (0.75, None, None)
    assert wrong is not None and (wrong.kept, wrong.mended, wrong.second, wrong.rss) == (None, 0.5, 0.5, None)
    assert cl_cs_rss((), (), ()) is None


def test_parts_are_conditional_on_the_first_answer_of_the_same_sample() -> None:
    samples = [(True, True), (True, False), (True, True), (False, True), (False, False)]
    assert conditionals(samples) == pytest.approx((0.6, 2 / 3, 0.5))
    assert conditionals([(True, True)]) == (1.0, 1.0, None) and conditionals([(False, True)]) == (0.0, None, 1.0)


# --- samples and texts ---


def test_pass_at_k_is_the_part_of_the_draws_without_repeats_that_hold_a_right_one() -> None:
    assert pass_at_k(4, 2, 1) == 0.5 and pass_at_k(4, 2, 2) == pytest.approx(5 / 6) and pass_at_k(4, 2, 3) == 1
    assert pass_at_k(8, 0, 8) == 0
    with pytest.raises(ValueError, match="pass@5 needs at least 5 samples"):
        pass_at_k(4, 2, 5)


def test_entropy_and_diversity_of_answers() -> None:
    assert answer_entropy(["1", "2", None, "1", "2"]) == pytest.approx(math.log(2))
    assert answer_entropy(["1", "1"]) == 0 and answer_entropy([None]) is None
    assert answer_diversity(["1", "1", "2", None, "1"]) == 0.5 and answer_diversity([]) is None


def test_distinct_words_worked_by_hand() -> None:
    a, b = "3 plus 4 is 7", "3 plus 4 is 7 so 7"
    c, d = "4 more than 3 gives 7", "3 plus 4 equals 7"

    def diversity(*texts: str) -> float:
        one, two = distinct_n(texts, 1), distinct_n(texts, 2)
        assert one is not None and two is not None
        return (one + two) / 2

    sets = [(a, b), (a, c), (a, d), (a, c, b), (a, c, d)]
    found = [diversity(*each) for each in sets]
    assert found == pytest.approx((0.55, 0.8636, 0.675, 0.6167, 0.7043), abs=1e-4)
    assert distinct_n(["one"], 2) is None


def test_a_format_that_was_learned_shows_as_exact_without_flexible() -> None:
    strict = extractor(PatternAnswer(pattern=r"The answer is (-?\d+)\.?$"))
    lenient = extractor(NumberAnswer())
    texts = ["The answer is 3.", "It is 3", "The answer is 4.", "no idea"]
    assert formats(texts, ["3"] * 4, strict, lenient) == Formats(exact=0.25, flexible=0.5, formatted=0.5)
    assert formats([], [], strict, lenient) is None
