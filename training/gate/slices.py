"""Slices: named kinds of questions, on none of which a promoted version may be much worse, whatever the mean says.

A promotion needs, beside the evidence on all probes, the same evidence 1 / alpha_j against "more than slices.delta
worse" on each held slice. All these claims must be refuted, and one that is true is refuted with probability at most
alpha_j, whichever it is: so the slices share the error budget and cost nothing of it (Berger 1982, intersection-union
tests). Evidence of reject_at times the number of slices that one is more than slices.delta worse rejects the candidate
(Bonferroni); of rollback_at times that number, on the probes since the promotion, rolls it back.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from core.config import GateConfig
from core.messages import Evidence
from core.messages.versions import Question, SliceFound
from training.gate import rule


def held(order: Sequence[Question], config: GateConfig) -> tuple[str, ...]:
    """The slices with enough probes among those that may be asked."""
    sizes = Counter(question.slice for question in order[: config.max_probes] if question.slice)
    return tuple(sorted(name for name, size in sizes.items() if size >= config.slices.least))


def notes(probes: Sequence[Question], config: GateConfig) -> list[str]:
    """What the start says of the slices of its probes."""
    sizes = Counter(question.slice for question in probes if question.slice)
    kept = held(probes, config)
    small = [f"{name} ({size})" for name, size in sorted(sizes.items()) if name not in kept]
    said = [f"no version more than {config.slices.delta:g} worse is served on: {', '.join(kept)}"] if kept else []
    few = f"too few probes to hold these slices (gate.slices.least={config.slices.least}): {', '.join(small)}"
    return [*said, few] if small else said


def judged(evidence: Evidence, config: GateConfig, alpha: float) -> dict[str, SliceFound]:
    """Of each held slice what its probes so far say; the first crossing on their path decides."""
    return {name: _judged(evidence, name, config, alpha) for name in evidence.held_slices}


def _judged(evidence: Evidence, name: str, config: GateConfig, alpha: float) -> SliceFound:
    hits, theirs = _hits(evidence, name, 0)
    n = len(hits)
    d, delta = hits - theirs, config.slices.delta
    kept = _crossed(rule.wealth(d, delta), 1 / alpha)
    worse = _crossed(rule.wealth_worse(d, delta), config.reject_at * len(evidence.held_slices))
    result = "open" if min(kept, worse) > n else "kept" if kept < worse else "worse"
    rates = [each.sum() / max(1, n) for each in (hits, theirs)]
    return SliceFound(probes=n, candidate_rate=rates[0], champion_rate=rates[1], result=result)


def fell(evidence: Evidence, since: int, config: GateConfig) -> str | None:
    """The reason to roll back a promoted version: a slice on the probes from index `since` on; or None."""
    for name in evidence.held_slices:
        hits, theirs = _hits(evidence, name, since)
        against = config.rollback_at * len(evidence.held_slices)
        crossed = _crossed(rule.wealth_worse(hits - theirs, config.slices.delta), against)
        if crossed <= len(hits):
            return (
                f"more than {config.slices.delta:g} worse than the champion on the slice {name}, on {crossed} of its "
                f"probes asked since (evidence {against:g} to 1)"
            )
    return None


def worst(found: dict[str, SliceFound]) -> str | None:
    """The slice with the largest loss."""
    return min(found, key=lambda name: found[name].candidate_rate - found[name].champion_rate, default=None)


def shown(name: str, found: SliceFound) -> str:
    return f"{name}: {found.candidate_rate:.1%} against {found.champion_rate:.1%} of {found.probes}"


def _crossed(path: rule.Floats, level: float) -> int:
    """Number of probes at which the path first reaches the level; one more than there are if it never does."""
    return int(rule.first(path, [level])[0]) if len(path) else 1


def _hits(evidence: Evidence, name: str, since: int) -> tuple[rule.Bits, rule.Bits]:
    places = [place for place, slice in enumerate(evidence.slices) if slice == name and place >= since]
    mine, theirs = (np.array(hits, dtype=np.int8) for hits in (evidence.candidate_hits, evidence.champion_hits))
    return mine[places], theirs[places]
