"""Whether hits depend on the questions at all. If not, ties are no evidence, and the gate decides nothing.

Keys in a spelling that no answer has are missed by every version. Equal keys are hit by whoever says that one answer.
Keys on the wrong lines are hit by chance. Each time candidate and champion tie, and a version that does not read the
question would tie too. So the hits are compared with those of the same answers given to the same questions in random
order (a permutation test with its exact mean and variance; Hoeffding 1951):

    a_v answers and k_v keys with value v:    mean = sum a_v k_v / n
    variance = (sum a_v k_v - sum a_v k_v (a_v + k_v) / n + mean^2) / (n - 1)

A version sees the questions if it hits more than delta above that, and is blind if it does not, each by three standard
deviations. If all are blind, "at most delta worse" is true of every version.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from training.gate.guards import Answer

DEVIATIONS = 3
BLIND_PROBES = 256
"""Probes from which on a weighing that is surely blind ends; before, a hard set may have been missed by chance."""


@dataclass(frozen=True)
class Sight:
    """How far the version that sees most hits above the same answers in random order, as a share of the probes."""

    least: float
    """By three standard deviations; likewise `most`."""
    most: float
    why: str
    """What was seen and what to do, for the case that it is too little."""


CLEAR = Sight(math.inf, math.inf, "")
"""For evidence whose answers are unknown."""


def sight(versions: Mapping[str, Sequence[Answer]], expected: Sequence[str], keys: str) -> Sight:
    """`versions`: name -> its answers to the probes with the answers `expected`. `keys`: their setting's name."""
    found = [_excess(answers, expected) for answers in versions.values()] if len(expected) > 1 else []
    return Sight(
        max((excess - DEVIATIONS * deviation for excess, deviation in found), default=-math.inf),
        max((excess + DEVIATIONS * deviation for excess, deviation in found), default=math.inf),
        _why(versions, expected, keys),
    )


def _excess(answers: Sequence[Answer], expected: Sequence[str]) -> tuple[float, float]:
    """Hits above those of the same answers in random order, and the standard deviation of the latter; per probe."""
    n = len(expected)
    said, keys = Counter(answer.value for answer in answers), Counter(expected)
    pairs = sum(said[value] * keys[value] for value in keys)
    crossed = sum(said[value] * keys[value] * (said[value] + keys[value]) for value in keys)
    variance = max(0.0, pairs - crossed / n + (pairs / n) ** 2) / (n - 1)
    return (sum(answer.hit for answer in answers) - pairs / n) / n, math.sqrt(variance) / n


def _why(versions: Mapping[str, Sequence[Answer]], expected: Sequence[str], keys: str) -> str:
    n = len(expected)
    hits = " and ".join(f"{sum(answer.hit for answer in answers)} by {name}" for name, answers in versions.items())
    missed = [
        (answer.value not in key and key not in answer.value, f"{name} said {answer.value!r} where {key!r} is expected")
        for name, answers in versions.items()
        for answer, key in zip(answers, expected, strict=True)
        if answer.value is not None and not answer.hit
    ]
    if all(answer.value is None for answers in versions.values() for answer in answers):
        seen, remedy = "no answer can be read", "check method.answer and method.sampler.max_tokens"
    elif len(set(expected)) == 1:
        seen, remedy = f"all expect {expected[0]!r}", f"give {keys} questions with different answers"
    else:
        _, seen = min(missed, key=lambda each: each[0], default=(False, "all are hit"))
        remedy = f"check the answers in {keys}, their spelling and their lines"
    return f"of {n} probes {hits} were hit, no more than when the answers are shuffled ({seen}); {remedy}"
