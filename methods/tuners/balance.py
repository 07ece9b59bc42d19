"""Moves the temperature to where a prompt has the most distinct winners.

bs = min(1, n' / n*) n' / n          n: kept samples of a prompt          n': the distinct right ones among them
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from core.codec import stable_id
from core.messages import Scored
from core.protocols import Facts, Tuned
from methods.samplers.temperatures import Temperatures


@dataclass(frozen=True)
class Balance:
    temperatures: Temperatures
    min_share: float
    """Nothing is kept of a prompt whose winner has less; it has no bs."""
    enough: int
    """n*"""
    kept: Literal["winners", "samples"]
    """What n counts, without equal ones. Winners are the right ones."""
    random: bool = False
    """The null control: draw the temperature of each window from the grid."""

    def measure(self, scored: Sequence[Scored], tuned: Tuned) -> Mapping[str, float]:
        """bs, named by the temperature at which the prompt was sampled."""
        kept = [one for one in scored if one.group.by == "sample" and one.verdict.share >= self.min_share]
        judged = [pair for one in kept for pair in zip(one.group.candidates, one.verdict.scores, strict=True)]
        winners = {candidate.completion_ids for candidate, score in judged if score > 0}
        samples = winners if self.kept == "winners" else {candidate.completion_ids for candidate, _ in judged}
        if not winners:
            return {}
        at = self.temperatures.of(scored[0].group.prompt.id, tuned)
        return {_at(at): balance(len(winners), len(samples), self.enough)}

    def tune(self, facts: Facts) -> Tuned:
        """The best of the present temperature and its neighbours; of equals, the present one."""
        now = facts.tuned["temperature"]
        if self.random:
            lots = random.Random(stable_id("balance", str(facts.window)))
            return {"temperature": lots.choice(self.temperatures.grid())}
        means = {at: facts.measured[_at(at)][0] for at in self.temperatures.around(now) if _at(at) in facts.measured}
        return {"temperature": max(means, key=lambda at: means[at], default=now)}


def balance(right: int, kept: int, enough: int) -> float:
    """bs of a prompt with `kept` samples, of which `right` are distinct and right: 0 to 1."""
    return min(1.0, right / enough) * right / kept


def _at(temperature: float) -> str:
    return f"balance@{temperature:.2f}"
