"""Ratings of players from weighted battles, such as two judgements that a third compares.

    B_mn = w1 [m wins placed first] + w2 [m wins placed second]      w1 = second / (first + second), w2 = 1 - w1
    e = argmax sum_mn B_mn log sigmoid(e_m - e_n)                    mean 0, in natural units

first, second: how many battles the player placed there won. A judge that prefers one place wins more there, so wins
there weigh less. Source: Meta-Rewarding, arXiv 2407.19594, section 2.2.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
_linalg: Any = np.linalg

PRIOR = 1e-6
"""Pulls ratings to 0, so that a player who wins all battles has a finite one. It moves others by less than 1e-4."""
STEPS = 200


@dataclass(frozen=True)
class Battle:
    """Players by number, in the order in which the judge saw them."""

    first: int
    second: int
    first_won: bool


def place_weights(first_wins: float, second_wins: float) -> tuple[float, float]:
    """The weights of a win placed first and of one placed second; they add up to 1. Without battles both are equal."""
    total = first_wins + second_wins
    return (second_wins / total, first_wins / total) if total > 0 else (0.5, 0.5)


def wins(players: int, battles: Iterable[Battle], weights: tuple[float, float]) -> list[list[float]]:
    """B: row m holds the weighted wins of player m over each other player."""
    won = [[0.0] * players for _ in range(players)]
    for battle in battles:
        winner, loser = (battle.first, battle.second) if battle.first_won else (battle.second, battle.first)
        won[winner][loser] += weights[0] if battle.first_won else weights[1]
    return won


def ratings(won: Sequence[Sequence[float]]) -> list[float]:
    """Ratings with mean 0, by Newton's method; the objective is concave."""
    won_MM: Matrix = np.asarray(won, dtype=np.float64)
    rated_M: Matrix = np.zeros(len(won), dtype=np.float64)
    for _ in range(STEPS):
        step_M = _step(won_MM, rated_M)
        rated_M = rated_M + np.clip(step_M, -1.0, 1.0)
        if not np.any(np.abs(step_M) > 1e-10):
            break
    rated = [float(each) for each in rated_M.tolist()]
    return [each - fmean(rated) for each in rated]


def _step(won_MM: Matrix, rated_M: Matrix) -> Matrix:
    lost_MM: Matrix = 1 / (1 + np.exp(rated_M[:, None] - rated_M[None, :]))  # the chance that m loses to n
    pull_MM: Matrix = won_MM * lost_MM
    slope_M = np.sum(pull_MM, axis=1) - np.sum(pull_MM, axis=0) - PRIOR * rated_M
    stiff_MM: Matrix = (won_MM + won_MM.T) * lost_MM * lost_MM.T
    curve_MM: Matrix = np.diag(np.sum(stiff_MM, axis=1) + PRIOR) - stiff_MM
    return _linalg.solve(curve_MM, slope_M)
