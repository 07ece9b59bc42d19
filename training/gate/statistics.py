"""Confidence intervals for reports."""

import math
from collections.abc import Sequence

Z95 = 1.959964
Z95_ONE_SIDED = 1.644854


def accuracy(hits: Sequence[bool]) -> tuple[float, float, float]:
    """Rate with its 95% interval (low, high). Source: Wilson 1927. Without outcomes: (0, 0, 1)."""
    n = len(hits)
    if n == 0:
        return 0.0, 0.0, 1.0
    rate = sum(hits) / n
    center = (rate + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(rate * (1 - rate) / n + Z95**2 / (4 * n * n))
    return rate, max(0.0, center - half), min(1.0, center + half)


def paired_difference(a: Sequence[bool], b: Sequence[bool]) -> tuple[float, float]:
    """Mean of a minus b on the same questions, and its one-sided 95% lower bound (normal; for 30 questions or more).

    Pairing reduces the variance: questions on which both agree add nothing to it. Raises: ValueError if the lengths
    differ."""
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} outcomes are not pairs; ask both the same questions")
    n = len(a)
    if n < 2:
        return (float(a[0]) - float(b[0]) if n else 0.0), -1.0
    d = [int(x) - int(y) for x, y in zip(a, b, strict=True)]
    mean = sum(d) / n
    variance = sum((x - mean) ** 2 for x in d) / (n - 1)
    return mean, max(-1.0, mean - Z95_ONE_SIDED * math.sqrt(variance / n))


def paired_interval(a: Sequence[bool], b: Sequence[bool]) -> tuple[float, float, float]:
    """Mean of a minus b on the same questions with its 95% interval (low, high); normal, for 30 questions or more.
    Raises: ValueError if the lengths differ."""
    mean, low = paired_difference(a, b)
    half = (mean - low) * Z95 / Z95_ONE_SIDED
    return mean, max(-1.0, mean - half), min(1.0, mean + half)


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean of independent values with its 95% interval (low, high), by Student's t. The interval of a single value is
    infinite. Raises: ValueError without values."""
    n = len(values)
    if n == 0:
        raise ValueError("there is no mean of no values; give at least one")
    mean = sum(values) / n
    if n == 1:
        return mean, -math.inf, math.inf
    variance = sum((value - mean) ** 2 for value in values) / (n - 1)
    half = student_t(n - 1) * math.sqrt(variance / n)
    return mean, mean - half, mean + half


def student_t(freedom: int, inside: float = 0.95) -> float:
    """The t within which Student's distribution with so many degrees of freedom has the share `inside`. Source:
    Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    low, high = 0.0, 1e3
    for _ in range(60):
        t = (low + high) / 2
        low, high = (t, high) if _within(t, freedom) < inside else (low, t)
    return high


def _within(t: float, freedom: int) -> float:
    """The chance of a value between -t and t."""
    angle = math.atan(t / math.sqrt(freedom))
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for power in range(odd, freedom - 1, 2):
        total += term
        term *= math.cos(angle) ** 2 * (power + 1) / (power + 2)
    return (angle + math.sin(angle) * total) * 2 / math.pi if odd else math.sin(angle) * total


def upper_bound(events: int, of: int) -> float:
    """One-sided 95% upper bound on the chance of an event that was seen `events` times in `of` trials: the chance at
    which so few are seen with probability .05. Without events about 3 / of; 1 without trials. Source: Clopper and
    Pearson 1934."""
    if events >= of:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(40):
        chance = (low + high) / 2
        fewer = sum(math.comb(of, k) * chance**k * (1 - chance) ** (of - k) for k in range(events + 1))
        low, high = (chance, high) if fewer > 0.05 else (low, chance)
    return high
