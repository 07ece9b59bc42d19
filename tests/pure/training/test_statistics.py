import math

import pytest

from training.gate.statistics import accuracy, mean_interval, paired_difference, student_t, upper_bound


@pytest.mark.parametrize(
    "hits, of, low, high",
    [
        (50, 100, 0.4038, 0.5962),
        (3, 10, 0.1078, 0.6032),
        (10, 10, 0.7225, 1.0),
        (0, 10, 0.0, 0.2775),
        (1, 1, 0.2065, 1.0),
    ],
)
def test_the_interval_is_that_of_wilsons_tables(hits: int, of: int, low: float, high: float) -> None:
    rate, *interval = accuracy([True] * hits + [False] * (of - hits))
    assert rate == hits / of and interval == pytest.approx([low, high], abs=1e-4)


def test_without_outcomes_any_rate_may_be_true() -> None:
    assert accuracy([]) == (0.0, 0.0, 1.0)


def test_the_paired_bound_counts_only_questions_that_differ() -> None:
    a, b = [True] * 60 + [False] * 40, [True] * 40 + [False] * 60
    mean, low = paired_difference(a, b)
    assert mean == pytest.approx(0.2)
    assert low == pytest.approx(0.2 - 1.644854 * (0.16 * 100 / 99 / 100) ** 0.5, abs=1e-6)
    assert paired_difference(a, a) == (0.0, 0.0)
    with pytest.raises(ValueError, match="not pairs"):
        paired_difference([True], [])


def test_fewer_than_two_pairs_bound_nothing_and_no_bound_is_below_minus_one() -> None:
    assert paired_difference([], []) == (0.0, -1.0)
    assert paired_difference([True], [False]) == (1.0, -1.0)
    assert paired_difference([False], [True]) == (-1.0, -1.0)
    assert paired_difference([False, True], [True, True]) == (-0.5, -1.0)
    assert paired_difference([True, True], [False, True])[1] == pytest.approx(0.5 - 1.644854 * 0.5)


def test_nothing_seen_in_so_many_trials_has_an_upper_bound() -> None:
    """Without events (1 - p)^n = .05. With one of two: 1 - p^2 = .05. Table of Clopper and Pearson for 5 of 20."""
    assert upper_bound(0, 59) == pytest.approx(1 - 0.05 ** (1 / 59)) and 0.049 < upper_bound(0, 59) < 0.05
    assert upper_bound(1, 2) == pytest.approx(0.95**0.5)
    assert upper_bound(5, 20) == pytest.approx(0.4556, abs=1e-3)
    assert upper_bound(3, 3) == upper_bound(0, 0) == 1.0


@pytest.mark.parametrize(("freedom", "t"), [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (30, 2.042)])
def test_students_t_is_that_of_the_tables(freedom: int, t: float) -> None:
    assert student_t(freedom) == pytest.approx(t, abs=1e-3)


def test_the_interval_of_a_mean_is_students() -> None:
    """Standard deviation sqrt(2.5), so 2.7764 * sqrt(2.5 / 5) on each side of 3."""
    assert mean_interval([1, 2, 3, 4, 5]) == pytest.approx((3, 3 - 1.96324, 3 + 1.96324), abs=1e-4)
    assert mean_interval([2, 2]) == (2, 2, 2)
    assert mean_interval([2]) == (2, -math.inf, math.inf)
    with pytest.raises(ValueError, match="no mean of no values"):
        mean_interval([])
