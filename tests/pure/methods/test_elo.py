import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.elo import Battle, place_weights, ratings, wins

HAND = [[0, 1.0, 0.7], [0.2, 0, 0.6], [0.3, 0.4, 0]]


def test_a_win_weighs_less_where_wins_are_common_and_the_weights_add_up_to_one() -> None:
    assert place_weights(70, 30) == pytest.approx((0.3, 0.7))
    assert place_weights(0, 0) == (0.5, 0.5)


def test_a_player_that_wins_in_both_orders_gets_one_point() -> None:
    both_orders = [Battle(0, 1, True), Battle(1, 0, False)]
    assert wins(2, both_orders, (0.3, 0.7)) == [[0, pytest.approx(1.0)], [0, 0]]
    assert wins(2, [Battle(0, 1, True), Battle(1, 0, True)], (0.3, 0.7)) == [[0, 0.3], [0.3, 0]]


def test_ratings_worked_by_hand() -> None:
    assert ratings(HAND) == pytest.approx((0.8185, -0.3698, -0.4487), abs=1e-4)


def test_ratings_depend_on_nothing_but_the_battles() -> None:
    order = [2, 0, 1]
    turned = ratings([[HAND[m][n] for n in order] for m in order])
    assert turned == pytest.approx([ratings(HAND)[m] for m in order], abs=1e-9)
    assert ratings([[10 * won for won in row] for row in HAND]) == pytest.approx(ratings(HAND), abs=1e-4)


def test_a_player_that_wins_everything_has_a_finite_rating_and_one_without_battles_has_none() -> None:
    first, second, idle = ratings([[0, 2, 0], [0, 0, 0], [0, 0, 0]])
    assert 5 < first < 20 and second == pytest.approx(-first) and idle == pytest.approx(0)
    assert ratings([[0.0] * 3] * 3) == [0, 0, 0]


@given(st.lists(st.lists(st.floats(0, 5), min_size=4, max_size=4), min_size=4, max_size=4))
@settings(max_examples=50)
def test_ratings_have_mean_0_and_more_wins_never_lower_one(won: list[list[float]]) -> None:
    won = [[0.0 if m == n else value for n, value in enumerate(row)] for m, row in enumerate(won)]
    before = ratings(won)
    assert sum(before) == pytest.approx(0, abs=1e-6)
    won[0][1] += 1
    assert ratings(won)[0] >= before[0] - 1e-6


def order_found(weighted: bool, seed: int) -> bool:
    """Whether five judgements, of which some meet in one order only, are ranked truly by a judge that prefers the
    first place."""
    lots = random.Random(seed)
    battles = []
    for better in range(5):
        for worse in range(better + 1, 5):
            for _ in range(6):
                first, second = (better, worse) if lots.random() < 0.15 + 0.7 * (better % 2) else (worse, better)
                likely = 0.5 + 0.12 * (second - first) / 2 + 0.3
                battles.append(Battle(first, second, lots.random() < min(0.99, max(0.01, likely))))
    firsts = sum(battle.first_won for battle in battles)
    weights = place_weights(firsts, len(battles) - firsts) if weighted else (0.5, 0.5)
    rated = ratings(wins(5, battles, weights))
    return max(range(5), key=lambda m: rated[m]) == 0


def test_weights_recover_the_best_of_a_judge_that_prefers_one_place_more_often_than_equal_ones() -> None:
    found = {weighted: sum(order_found(weighted, seed) for seed in range(200)) for weighted in (True, False)}
    assert found[True] > found[False] + 20, found
