"""The gate's rule: verdicts from hits, by betting. `Gate` weighs one candidate by it, `./run bench gate` many.

For each probe, D in {-1, 0, 1} is the candidate's hit minus the champion's hit. The null hypothesis is "the candidate
is more than delta worse". A bettor against it stakes a part lambda of its wealth on every probe. If the null is true,
the wealth ever reaches 1/alpha with probability at most alpha (Ville's inequality), no matter how often the gate looks.

    E_n = mean over lambda of prod_i (1 + lambda (D_i + delta) / (1 + delta))

Source: Waudby-Smith and Ramdas, arXiv:2010.09686 (capital processes); Ramdas et al., arXiv:2210.01948 (e-processes).
There are finitely many probes, drawn without replacement in random order. The process is the one for independent draws;
without replacement it is conservative: in the Brownian limit a bridge crosses a line a + bt with probability
exp(-2a(a + b)), a free path with probability exp(-2ab). `./run bench gate` measures it.

**Saturated anchors.** Anchors are answers of the base model; an audit found the fraction p of them right. A champion
that agrees with p - delta of the anchors cannot show more improvement on them: a better candidate disagrees with wrong
anchors, so the comparison with the champion would falsely reject it. From then on a floor applies, which is fixed for
the whole run:

    floor = p - 2 delta        F_n = mean over lambda of prod_i (1 + lambda (x_i - floor) / floor)

where x_i is the candidate's hit. A candidate is promoted if it is at most delta worse than the champion *or* not below
the floor: if the mean of E_n and F_n reaches 1/alpha_j. If both claims are false, E_n and F_n each have mean at most 1.
Their mean then reaches 1/alpha_j with probability at most alpha_j, and over the run with probability at most alpha. A
candidate is rejected if the evidence shows that it is below the floor. No candidate becomes champion, because more
agreement is not evidence of improvement. The floor does not move, so small losses cannot add up below it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from core.config import GateConfig

STAKES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7)
PROMOTE, REJECT, HOLD = 1, -1, 0

Bits = npt.NDArray[np.int8]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Verdicts:
    """Verdicts on candidates, [..., m] for m budgets; the first crossing on the path decides."""

    verdict: Ints
    probes: Ints
    """Probes until the decision; all probes if there was none (hold)."""
    better: npt.NDArray[np.bool_]
    """Promoted, and also shown to be better on some look at the path: the new champion."""


def alpha_of(j: int, alpha: float) -> float:
    """Error probability allowed for the j-th candidate (from 1): alpha * 6 / (pi^2 j^2). Sums to alpha over all j."""
    return alpha * 6 / (math.pi**2 * j**2)


def weigh(d: Bits, config: GateConfig, alphas: Sequence[float]) -> Verdicts:
    """Verdicts on candidates with the paths d [..., n], each for every one of the error probabilities."""
    needed = [1 / alpha for alpha in alphas]
    better = first(wealth(d, 0.0), needed) <= d.shape[-1]
    return _verdicts(wealth(d, config.delta), wealth(-d, 0.0), needed, config.reject_at, better)


def weigh_saturated(hits: Bits, champion_hits: Bits, config: GateConfig, alphas: Sequence[float]) -> Verdicts:
    """The same with saturated anchors; hits [..., n] in {0, 1}. None is better."""
    floor, needed = floor_of(config), [1 / alpha for alpha in alphas]
    fit = (wealth(hits - champion_hits, config.delta) + wealth_above(hits, floor)) / 2
    return _verdicts(fit, wealth_below(hits, floor), needed, config.reject_at, np.False_)


def _verdicts(fit: Floats, against: Floats, needed: Sequence[float], reject_at: float, better: object) -> Verdicts:
    length = fit.shape[-1]
    promoted, rejected = first(fit, needed), first(against, [reject_at])
    probes = np.minimum(promoted, rejected)
    verdict = np.where(probes > length, HOLD, np.where(rejected < promoted, REJECT, PROMOTE))
    return Verdicts(verdict, np.minimum(probes, length), (verdict == PROMOTE) & np.asarray(better, np.bool_))


def regret(d: Bits, config: GateConfig) -> Ints:
    """Number of probes at which the watch rolls back versions with the paths d [..., n]; n + 1: never.

    A version at most delta worse than the champion is rolled back with probability at most 1 / rollback_at."""
    return first(wealth_worse(d, config.delta), [config.rollback_at])[..., 0]


def regret_saturated(hits: Bits, config: GateConfig) -> Ints:
    """The same with saturated anchors: for versions below the floor."""
    return first(wealth_below(hits, floor_of(config)), [config.rollback_at])[..., 0]


def floor_of(config: GateConfig) -> float:
    """With saturated anchors, the agreement that a candidate must reach."""
    return max(0.01, (config.anchor_precision or 0.0) - 2 * config.delta)


def wealth(d: Bits, delta: float) -> Floats:
    """E_1 to E_n against the null "E[D] <= -delta". d: [..., n] in {-1, 0, 1}; 0 <= delta < 1.

    delta = 0: the null is "not better". For the null "not worse" use `wealth(-d, 0)`."""
    return _capital(d + 1, (np.array([-1.0, 0.0, 1.0]) + delta) / (1 + delta))


def wealth_worse(d: Bits, delta: float) -> Floats:
    """Against the null "E[D] >= -delta": evidence that the candidate is more than delta worse."""
    return _capital(d + 1, (np.array([1.0, 0.0, -1.0]) - delta) / (1 + delta))


def wealth_above(hits: Bits, floor: float) -> Floats:
    """F_1 to F_n against the null "E[x] <= floor". hits: [..., n] in {0, 1}; 0 < floor < 1."""
    return _capital(hits, np.array([-1.0, (1 - floor) / floor]))


def wealth_below(hits: Bits, floor: float) -> Floats:
    """Against the null "E[x] >= floor"."""
    return _capital(hits, np.array([floor / (1 - floor), -1.0]))


def _capital(outcomes: Bits, gains: Floats) -> Floats:
    """Running mean over STAKES of prod (1 + stake * gains[outcome]); infinite from 1e308 on. The gains are at least -1,
    with mean at most 0 under the null hypothesis."""
    total = np.zeros(outcomes.shape)
    with np.errstate(over="ignore"):
        for stake in STAKES:
            total += np.cumprod((1 + stake * gains)[outcomes], axis=-1)
    return total / len(STAKES)


def first(path: Floats, levels: Sequence[float]) -> Ints:
    """Number of probes at which each path [..., n] first reaches each of m levels, [..., m]; n + 1 if it never does."""
    peaks = np.maximum.accumulate(path, axis=-1)
    found = [np.searchsorted(row, levels) for row in peaks.reshape(-1, path.shape[-1])]
    return np.array(found, dtype=np.int64).reshape(*path.shape[:-1], len(levels)) + 1
