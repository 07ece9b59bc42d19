"""How many probes the gate needs, by simulating its own rule. For people to read; no verdict depends on it."""

import numpy as np

from core.config import GateConfig
from training.gate.rule import HOLD, Bits, alpha_of, weigh

SHARE = 0.9
"""Of the simulated candidates that are decided within the probes needed."""
WINS, LOSSES = 0.10, 0.05
"""A version that is 5 points better, and differs from the champion on 15% of the probes."""
RUNS, MOST = 200, 4000
"""Simulated candidates, and the probes of each."""


def probes_needed(config: GateConfig, wins: float, losses: float, candidate: int = 1) -> int | None:
    """Probes within which nine of ten candidates are decided that win against the champion on the share `wins` of the
    probes and lose on `losses`; as the run's candidate number `candidate`. None: more than MOST."""
    shares = [wins, max(0.0, 1 - wins - losses), losses]
    draws = np.random.default_rng(0).choice([1, 0, -1], p=shares, size=(RUNS, MOST))
    found = weigh(draws.astype(np.int8), config, [alpha_of(candidate, config.alpha)])
    probes = np.sort(np.where(found.verdict == HOLD, MOST + 1, found.probes)[:, 0])
    needed = int(probes[int(np.ceil(SHARE * RUNS)) - 1])
    return None if needed > MOST else needed


def too_few(config: GateConfig, probes: int) -> str | None:
    """A sentence if the gate will often hold a version that is 5 points better for want of probes."""
    needed = probes_needed(config, WINS, LOSSES)
    usable = min(probes, config.max_probes)
    if needed is not None and usable >= needed:
        return None
    remedy = "raise gate.max_probes" if config.max_probes < probes else "bring more held-out questions"
    return (
        f"{usable} probes are few: to decide on a version that is {100 * (WINS - LOSSES):.0f} points better, nine of "
        f"ten times, the gate needs {needed or f'more than {MOST}'}, and otherwise holds it; {remedy}"
    )


def would_decide(config: GateConfig, d: Bits, candidate: int) -> str:
    """What would decide a candidate that is held after the probes d [n] in {-1, 0, 1}, if it goes on as it did."""
    needed = probes_needed(config, float(np.mean(d > 0)), float(np.mean(d < 0)), candidate)
    if needed is None:
        return f"if it goes on so, not even {MOST} probes decide"
    return f"if it goes on so, {max(needed, len(d) + 1)} probes decide it nine of ten times: bring more of them"
