"""How a version answers, apart from what: entropy across questions, format, length. Each limit is a veto of the gate.

Anchors see that a candidate agrees; they do not see that it answers all else alike, breaks off, or rambles. A collapse
shows in the entropy of the answers *across* questions, not in the diversity of texts, and never in the agreement of a
model with itself, which rises. Compared are answers to the same probes, since an entropy estimated from n answers is
too low by about (distinct answers - 1) / 2n nats; against the champion, and against the base, so that a decline too
slow for one comparison cannot add up. A guard is a fixed margin, no test: it speaks from `min_probes` on, where the
margins are ten times the noise measured on the embedded model (docs/reliability.md).
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
    """What could be read out of it; None where nothing could, or where it was cut off."""
    tokens: int


@dataclass(frozen=True)
class Manner:
    """How somebody answers, over so many probes."""

    probes: int
    entropy_nats: float
    """Of the distribution of values across probes; 0 when all are the same, or there are none."""
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
    """The first limit that the candidate breaks, with figure and limit; None while all hold or it is too early.

    `others`: by name, their answers to the same probes in the same order, of all or of the first so many. `expected`:
    the keys or anchors of the probes; nobody need be more diverse than what is expected."""
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
