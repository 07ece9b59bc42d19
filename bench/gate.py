"""How often does the gate promote a worse candidate, how many probes does it need, and which errors can it not see?

It simulates a set of 2,000 probes, drawn without replacement. Candidate and champion differ on a share of the probes
(the discordance), and the candidate is better by `effect`. A run weighs 100 candidates. Each simulated candidate is
judged as the first, the second, ... and the last of a run, by the rule that the gate uses (training.gate.rule). Some
whole runs are weighed by `Gate` itself; `gate_differs` counts its verdicts that differ, and must be 0. The known cases
in which anchors mislead follow, one row each, with the verdicts on 5th candidates of that kind.
"""

import argparse
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench._gate_simulation import (
    DISCORDANCE,
    EFFECTS,
    decline,
    driven,
    power,
    shares,
    simulate,
    simulate_saturated,
    watch,
)
from core.config import GateConfig
from training.gate.rule import alpha_of, weigh, weigh_saturated

NTH = 5
PRECISION = 0.93


@dataclass(frozen=True)
class World:
    """A version's behavior on probes whose anchors are correct with probability `precision`. `right`: how often it is
    correct where the anchor is. `repeats`: how often it repeats a wrong anchor; otherwise it is correct."""

    right: float
    repeats: float

    def agreement(self, precision: float) -> float:
        return precision * self.right + (1 - precision) * self.repeats

    def accuracy(self, precision: float) -> float:
        return precision * self.right + (1 - precision) * (1 - self.repeats)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--simulated", type=int, default=40_000, help="candidates for each error of a whole run")
    parser.add_argument("--candidates", type=int, default=100, help="of a run")
    parser.add_argument("--seed", type=int, default=0)


def run(options: argparse.Namespace) -> dict[str, Any]:
    simulated, weighed, runs = (2000, 400, 1) if options.quick else (options.simulated, 4000, 3)
    worst = simulate(simulated, options.candidates, options.seed)
    equal = simulate(simulated, options.candidates, options.seed, 0.0)
    below = simulate_saturated(simulated // 2, options.candidates, options.seed)
    candidates = 20 if options.quick else options.candidates
    gate = [driven(runs, candidates, options.seed, effect) for effect in (-0.03, 0.0)]
    table = [
        power(effect, weighed, options.seed, discordance=discordance)
        for discordance in (DISCORDANCE, 2 * DISCORDANCE)
        for effect in EFFECTS
    ]
    rejection = [_rejections(at, weighed // 2, options.seed) for at in (20, 50, 100)]
    watched = [watch(effect, weighed // 4, options.seed) for effect in (0.0, -0.03, -0.06, -0.10)]
    failures = _known_failures(weighed // 4, options.seed, 10 if options.quick else 100)
    for row in (worst, equal, below, *gate, *table, *rejection, *watched, *failures):
        print(row)
    by_effect = {row["effect"]: row for row in table[: len(EFFECTS)]}
    return {
        "simulated": simulated,
        "false_promotions": worst["promoted_in_run_ratio"],
        "false_promotions_error": worst["promoted_in_run_error"],
        "false_champions": equal["champion_moved_in_run_ratio"],
        "false_champions_error": equal["champion_moved_in_run_error"],
        "false_promotions_saturated": below["promoted_in_run_ratio"],
        "gate_weighed": sum(found["runs"] * found["candidates"] for found in gate),
        "gate_differs": sum(found["differ"] for found in gate),
        "median_probes": {str(effect): row["median_probes_decided"] for effect, row in by_effect.items()},
        "missed_gains": 1 - by_effect[0.10]["promoted"],
        "reject_at": rejection,
        "watch": watched,
        "known_failures": failures,
    }


def _rejections(reject_at: float, candidates: int, seed: int) -> dict[str, float]:
    """Effects of the evidence required for a rejection: too little rejects good candidates, too much keeps bad ones."""
    config = GateConfig(reject_at=reject_at)
    equal, loss = (power(effect, candidates, seed, NTH, config) for effect in (0.0, -0.06))
    return {
        "reject_at": reject_at,
        "equal_rejected_ratio": equal["rejected"],
        "six_points_worse_rejected_ratio": loss["rejected"],
        "six_points_worse_median_probes": loss["median_probes_decided"],
    }


def _known_failures(candidates: int, seed: int, chains: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    blind, knowing = GateConfig(), GateConfig(anchor_precision=PRECISION)
    champion, better = World(right=0.985, repeats=0.5), World(right=0.985, repeats=0.1)
    peer = World(right=0.98, repeats=0.4)
    copied, copier = World(right=0.90, repeats=0.5), World(right=0.88, repeats=0.9)
    rows: list[dict[str, Any]] = [
        _weighed("better than its anchors, saturation unknown", better, champion, PRECISION, blind, candidates, rng),
        _weighed("better than its anchors, precision given", better, champion, PRECISION, knowing, candidates, rng),
        _weighed("as good as the champion, saturation unknown", peer, champion, PRECISION, blind, candidates, rng),
        _weighed("as good as the champion, precision given", peer, champion, PRECISION, knowing, candidates, rng),
        _weighed("copies wrong anchors (70% right)", copier, copied, 0.7, blind, candidates, rng),
    ]
    same = power(0.0, candidates, seed, NTH, blind)
    seen = {name: same[name] for name in ("promoted", "rejected", "held", "median_probes")}
    rows.append({"case": "equal on the probes, 10 points worse on the traffic", **seen, "true_gain": -0.10})
    for spending in (True, False):
        for rule in (True, False):
            against = "the champion" if rule else "the version served last"
            budget = "one budget" if spending else "a whole alpha each"
            found = decline(0.01, chains, 30, rule, spending, seed)
            rows.append({"case": f"slow decline, 1 point each of 30, against {against}, {budget}", **found})
    return rows


def _weighed(
    case: str, candidate: World, champion: World, precision: float, config: GateConfig, n: int, rng: np.random.Generator
) -> dict[str, Any]:
    """Weighs candidates and champion on the same questions, with their errors correlated as much as possible."""
    shape = (n, config.max_probes)
    anchored, u = rng.random(shape) < precision, rng.random(shape)
    hits, theirs = (np.where(anchored, u < w.right, u < w.repeats).astype(np.int8) for w in (candidate, champion))
    saturated = config.anchor_precision is not None and champion.agreement(precision) >= precision - config.delta
    alphas = [alpha_of(NTH, config.alpha)]
    found = weigh_saturated(hits, theirs, config, alphas) if saturated else weigh(hits - theirs, config, alphas)
    gain = candidate.accuracy(precision) - champion.accuracy(precision)
    agreement = candidate.agreement(precision) - champion.agreement(precision)
    return {"case": case, **shares(found), "agreement_gain": round(agreement, 4), "true_gain": round(gain, 4)}
