"""Simulates the gate: its rule, vectorized over many simulated candidates, to count its errors and its probes.

On each probe D is +1 with probability (discordance + effect) / 2 and -1 with probability (discordance - effect) / 2.
The discordance is the share of questions on which candidate and champion differ. The default is .10: two consecutive
versions of the embedded model agree on about nine of ten questions. A higher discordance needs more probes and causes
no more errors. Probes are drawn without replacement from a finite set, in a separate order for each candidate.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from core.config import GateConfig
from training.gate.gate import STAKES, Gate, alpha_of, log_wealth, log_wealth_above, log_wealth_below, log_wealth_worse

DISCORDANCE = 0.10
EFFECTS = (0.10, 0.03, 0.0, -0.03, -0.06)

PROMOTED, REJECTED, HELD = 1, -1, 0

Bits = npt.NDArray[np.int8]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Verdicts:
    """One entry per simulated candidate."""

    verdict: Ints
    probes: Ints
    """Probes until the decision; all probes if there was none."""
    better: npt.NDArray[np.bool_]
    """Whether the candidate became champion."""


def population(effect: float, discordance: float, size: int) -> npt.NDArray[np.int8]:
    """D of all probes, [size] in {-1, 0, 1}. Its mean is the largest possible one that is at most `effect`.

    A discordance below |effect| is raised to |effect|."""
    discordance = max(discordance, abs(effect))
    worse = round(size * (discordance - effect) / 2)
    better = min(int(np.floor(worse + size * effect + 1e-9)), size - worse)
    d = np.zeros(size, dtype=np.int8)
    d[:better], d[better : better + worse] = 1, -1
    return d


def weigh_many(d: npt.NDArray[np.int8], config: GateConfig, j: int) -> Verdicts:
    """The verdict of Gate.decide on a j-th candidate, for each row of d [candidates, probes]."""
    rows, length = d.shape
    verdict, probes, better = np.zeros(rows, np.int64), np.full(rows, length), np.zeros(rows, np.bool_)
    needed = 1 / alpha_of(j, config.alpha)
    open_rows: Ints = np.arange(rows, dtype=np.int64)
    wealth = {name: np.ones((len(STAKES), rows)) for name in ("fit", "worse", "better")}
    superior = np.zeros(rows, np.bool_)
    for start in range(0, length, config.batch):
        look = d[open_rows, start : start + config.batch]
        fit, wealth["fit"] = _bet(wealth["fit"], look, config.delta, needed)
        worse, wealth["worse"] = _bet(wealth["worse"], -look, 0.0, config.reject_at)
        crossed, wealth["better"] = _bet(wealth["better"], look, 0.0, needed)
        superior |= crossed <= look.shape[1]
        first = np.minimum(fit, worse)
        decided = first <= look.shape[1]
        ended: Ints = open_rows[decided]
        verdict[ended] = np.where(worse < fit, REJECTED, PROMOTED)[decided]
        probes[ended] = start + first[decided]
        better[ended] = (superior & (fit <= worse))[decided]
        open_rows, superior = open_rows[~decided], superior[~decided]
        wealth = {name: w[:, ~decided] for name, w in wealth.items()}
        if not len(open_rows):
            break
    return Verdicts(verdict, probes, better)


def _bet(wealth: Floats, look: npt.NDArray[np.int8], delta: float, level: float) -> tuple[Ints, Floats]:
    """First crossing within the look (one past its end if there is none), [rows], and the wealth after the look."""
    total = np.zeros(look.shape)
    after = np.empty_like(wealth)
    for k, stake in enumerate(STAKES):
        factor = 1 + stake * (np.array([-1, 0, 1]) + delta) / (1 + delta)
        path = np.cumprod(factor[look + 1], axis=1)
        path *= wealth[k][:, None]
        total += path
        after[k] = path[:, -1]
    reached = total / len(STAKES) >= level
    return np.where(reached.any(axis=1), reached.argmax(axis=1) + 1, look.shape[1] + 1), np.minimum(after, 1e200)


def draw(effect: float, rows: int, rng: np.random.Generator, discordance: float, probes: int) -> npt.NDArray[np.int8]:
    """[rows, probes]: each row is the whole probe set in a separate random order."""
    return rng.permuted(np.tile(population(effect, discordance, probes), (rows, 1)), axis=1)


def simulate(
    runs: int,
    candidates: int,
    seed: int = 0,
    effect: float | None = None,
    config: GateConfig | None = None,
    discordance: float = DISCORDANCE,
    block: int = 2000,
) -> dict[str, float]:
    """Simulates `runs` runs of `candidates` candidates, each better than the champion by `effect` (default: -delta, the
    worst case).

    Returns the shares of runs that ever promote a candidate and that ever move the champion, and the mean probes."""
    config = config or GateConfig()
    effect = -config.delta if effect is None else effect
    rng = np.random.default_rng(seed)
    promoted, moved, probes = 0, 0, 0
    for start in range(0, runs, block):
        rows = min(block, runs - start)
        ever, ever_moved = np.zeros(rows, np.bool_), np.zeros(rows, np.bool_)
        for j in range(1, candidates + 1):
            verdicts = weigh_many(draw(effect, rows, rng, discordance, config.max_probes), config, j)
            ever |= verdicts.verdict == PROMOTED
            ever_moved |= verdicts.better
            probes += int(verdicts.probes.sum())
        promoted, moved = promoted + int(ever.sum()), moved + int(ever_moved.sum())
    return {
        "runs": runs,
        "candidates": candidates,
        "effect": effect,
        "promoted_in_run_ratio": promoted / runs,
        "champion_moved_in_run_ratio": moved / runs,
        "probes_per_candidate": probes / (runs * candidates),
    }


def power(
    effect: float,
    candidates: int,
    seed: int = 0,
    j: int = 1,
    config: GateConfig | None = None,
    discordance: float = DISCORDANCE,
) -> dict[str, float]:
    """Shares of verdicts on a j-th candidate that is better than the champion by `effect`, and its probes."""
    config = config or GateConfig()
    d = draw(effect, candidates, np.random.default_rng(seed), discordance, config.max_probes)
    verdicts = weigh_many(d, config, j)
    decided = verdicts.verdict != HELD
    return {
        "effect": effect,
        "discordance": max(discordance, abs(effect)),
        "j": j,
        "promoted_ratio": float((verdicts.verdict == PROMOTED).mean()),
        "rejected_ratio": float((verdicts.verdict == REJECTED).mean()),
        "held_ratio": float((verdicts.verdict == HELD).mean()),
        "champion_moved_ratio": float(verdicts.better.mean()),
        "median_probes": float(np.median(verdicts.probes)),
        "median_probes_decided": float(np.median(verdicts.probes[decided])) if decided.any() else float("nan"),
    }


# --- saturated anchors, the watch, slow decline ----------------------------------------------------------------------


def draw_pairs(rate: float, champion: float, rows: int, rng: np.random.Generator, probes: int) -> tuple[Bits, Bits]:
    """Hits [rows, probes] of candidates and of their champion. Independent hits are the hardest case to decide."""
    return (rng.random((rows, probes)) < rate).astype(np.int8), (rng.random((rows, probes)) < champion).astype(np.int8)


def weigh_saturated(hits: Bits, champion_hits: Bits, config: GateConfig, j: int) -> Verdicts:
    """The verdict of Gate.decide on a j-th candidate with saturated anchors, for each row."""
    floor, length = Gate(config).floor, hits.shape[1]
    near = np.logaddexp(log_wealth(hits - champion_hits, config.delta), log_wealth_above(hits, floor)) - np.log(2)
    fit = _first(near, 1 / alpha_of(j, config.alpha))
    low = _first(log_wealth_below(hits, floor), config.reject_at)
    verdict = np.where(np.minimum(fit, low) > length, HELD, np.where(low < fit, REJECTED, PROMOTED))
    return Verdicts(verdict, np.minimum(np.minimum(fit, low), length), np.zeros(len(hits), np.bool_))


def simulate_saturated(
    runs: int, candidates: int, seed: int = 0, config: GateConfig | None = None, below: float = 0.0, block: int = 100
) -> dict[str, float]:
    """The share of runs that ever promote a candidate, for candidates whose agreement is `below` under the floor and
    more than delta under the champion's. The champion agrees with all correct anchors."""
    config = config or GateConfig(anchor_precision=0.93)
    rng, promoted = np.random.default_rng(seed), 0
    floor, champion = Gate(config).floor, config.anchor_precision or 0.0
    for start in range(0, runs, block):
        rows = min(block, runs - start)
        ever = np.zeros(rows, np.bool_)
        for j in range(1, candidates + 1):
            pairs = draw_pairs(floor - below, champion, rows, rng, config.max_probes)
            ever |= weigh_saturated(*pairs, config, j).verdict == PROMOTED
        promoted += int(ever.sum())
    return {"runs": runs, "candidates": candidates, "floor": floor, "promoted_in_run_ratio": promoted / runs}


def watch(effect: float, versions: int, seed: int = 0, config: GateConfig | None = None) -> dict[str, float | None]:
    """The share of promoted versions that the watch rolls back, when they are better than the champion by `effect`."""
    config = config or GateConfig()
    d = draw(effect, versions, np.random.default_rng(seed), DISCORDANCE, config.max_probes)[:, : config.watch_probes]
    called_back = _first(log_wealth_worse(d, config.delta), config.rollback_at)
    found = called_back <= config.watch_probes
    return {
        "effect": effect,
        "rolled_back_ratio": float(found.mean()),
        "median_probes": float(np.median(called_back[found])) if found.any() else None,
    }


def decline(
    step: float, runs: int, candidates: int, champion_rule: bool, spending: bool, seed: int = 0
) -> dict[str, float]:
    """How far below the base a run ends when each candidate is `step` worse than the version served before it.

    Without `champion_rule` each candidate is compared with the last promoted version. Without `spending` each candidate
    gets the alpha of a first candidate."""
    config = GateConfig()
    rng, served = np.random.default_rng(seed), np.zeros(runs)
    for j in range(1, candidates + 1):
        effects = served - step if champion_rule else np.full(runs, -step)
        d = np.concatenate([draw(float(e), 1, rng, DISCORDANCE / 2, config.max_probes) for e in effects])
        promoted = weigh_many(d, config, j if spending else 1).verdict == PROMOTED
        served = np.where(promoted, served - step, served)
    return {"step": step, "mean_end": float(served.mean()), "worst_end": float(served.min())}


def _first(path: Floats, level: float) -> Ints:
    """First crossing of each row of log wealth, counted from 1; one past the end if there is none."""
    reached = path >= np.log(level)
    return np.where(reached.any(axis=1), reached.argmax(axis=1) + 1, path.shape[1] + 1)
