"""Guards: limits on the entropy, format and length of a version's answers. A broken limit rejects the candidate.

Anchors measure agreement. They do not show that a candidate gives the same answer to different questions, stops early,
or rambles. A collapse lowers the entropy of the answers *across* questions. The diversity of texts may not show it, and
the model's agreement with itself even rises.

All compared answers are to the same probes, because an entropy estimated from n answers is too low by about (distinct
answers - 1) / 2n nats. The candidate is compared with the champion and with the base model; the base catches a slow
decline over many versions. A guard is a fixed margin, not a statistical test. It applies from `min_probes` on, where
the margins are ten times the noise measured on the embedded model (docs/reliability.md).
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.config import GuardsConfig


@dataclass(frozen=True)
class Answer:
    """A version's greedy answer to one probe."""

    hit: bool
    value: str | None
    """The extracted answer; None if the text has none or was cut off."""
    tokens: int


@dataclass(frozen=True)
class Manner:
    """Entropy, format and length of a version's answers to `probes` probes."""

    probes: int
    entropy_nats: float
    """Entropy of the distribution of values across probes; 0 if all values are equal or there are none."""
    format_ratio: float
    mean_tokens: float


def entropy(values: Sequence[str]) -> float:
    """Plug-in entropy, nats."""
    n = len(values)
    return sum(-count / n * math.log(count / n) for count in Counter(values).values())


def manner(answers: Sequence[Answer]) -> Manner:
    n = len(answers)
    values = [answer.value for answer in answers if answer.value is not None]
    return Manner(n, entropy(values), len(values) / max(1, n), sum(a.tokens for a in answers) / max(1, n))


def broken(
    candidate: Sequence[Answer],
    others: Mapping[str, Sequence[Answer]],
    expected: Sequence[str],
    limits: GuardsConfig,
) -> str | None:
    """The first limit that the candidate breaks, with measured value and limit. None if no limit is broken or there are
    fewer than limits.min_probes probes.

    `others`: name -> answers to the same probes in the same order, or to the first of them. `expected`: the keys or
    anchors of the probes; a candidate may be as uniform as these are."""
    for name, theirs in others.items():
        n = min(len(candidate), len(theirs))
        if n < limits.min_probes:
            continue
        found = _against(manner(candidate[:n]), manner(theirs[:n]), entropy(expected[:n]), limits)
        if found is not None:
            return f"{found} of {name} on the same {n} probes"
    return None


def _against(mine: Manner, theirs: Manner, expected_nats: float, limits: GuardsConfig) -> str | None:
    least_nats = limits.min_entropy_ratio * min(theirs.entropy_nats, expected_nats)
    if mine.entropy_nats < least_nats:
        return (
            f"answers too much alike: entropy {mine.entropy_nats:.2f} nats, limit {least_nats:.2f}; "
            f"{theirs.entropy_nats:.2f}"
        )
    least_ratio = theirs.format_ratio - limits.max_format_drop
    if mine.format_ratio < least_ratio:
        return (
            f"answers that cannot be read: {mine.format_ratio:.1%} finished and readable, limit {least_ratio:.1%}; "
            f"{theirs.format_ratio:.1%}"
        )
    least, most = limits.min_length_ratio * theirs.mean_tokens, limits.max_length_ratio * theirs.mean_tokens
    if not least <= mine.mean_tokens <= most:
        return (
            f"answers of another length: {mine.mean_tokens:.1f} tokens, limits {least:.1f} to {most:.1f}; "
            f"{theirs.mean_tokens:.1f}"
        )
    return None
