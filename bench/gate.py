"""How often does the gate promote what is worse, and how soon does it find a gain or a loss?

Simulated on a probe set of 2,000 drawn without replacement: candidate and champion answer a part of the probes
differently (the discordance), and the candidate is `effect` better. A run weighs 100 candidates.
"""

import argparse
from typing import Any

from training.gate_simulation import DISCORDANCE, EFFECTS, power, simulate


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)


def run(options: argparse.Namespace) -> dict[str, Any]:
    runs, weighed = (200, 500) if options.quick else (options.runs, 4000)
    worst = simulate(runs, options.candidates, options.seed)
    equal = simulate(runs, options.candidates, options.seed, 0.0)
    table = [
        power(effect, weighed, options.seed, discordance=discordance)
        for discordance in (DISCORDANCE, 2 * DISCORDANCE)
        for effect in EFFECTS
    ]
    for row in table:
        print(row)
    by_effect = {row["effect"]: row for row in table[: len(EFFECTS)]}
    return {
        "runs": runs,
        "false_promotions": worst["promoted_in_run_ratio"],
        "false_champions": equal["champion_moved_in_run_ratio"],
        "median_probes": {str(effect): row["median_probes_decided"] for effect, row in by_effect.items()},
        "missed_gains": 1 - by_effect[0.10]["promoted_ratio"],
    }
