"""Draws simulated candidates, and counts the verdicts of the gate's rule on them.

On each probe D is +1 with probability (discordance + effect) / 2 and -1 with probability (discordance - effect) / 2.
The discordance is the share of questions on which candidate and champion differ. The default is .10: two consecutive
versions of the embedded model agree on about nine of ten questions. A higher discordance needs more probes and causes
no more errors. Probes are drawn without replacement from a finite set, in a separate order for each candidate.

The verdicts are those of training.gate.rule, which `Gate` asks too. `driven` weighs whole runs by `Gate` itself.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from core.config import GateConfig
from core.messages import BASE, Evidence, PolicyRef
from training.gate.gate import Gate
from training.gate.rule import HOLD, PROMOTE, REJECT, Bits, Verdicts, alpha_of, floor_of, regret, weigh, weigh_saturated

DISCORDANCE = 0.10
EFFECTS = (0.10, 0.03, 0.0, -0.03, -0.06)
BLOCK = 100
"""Candidates judged at once; their wealths fit into a processor's cache."""

Bools = npt.NDArray[np.bool_]


def population(effect: float, discordance: float, size: int) -> Bits:
    """D of all probes, [size] in {-1, 0, 1}. Its mean is the largest possible one that is at most `effect`.

    A discordance below |effect| is raised to |effect|."""
    discordance = max(discordance, abs(effect))
    worse = round(size * (discordance - effect) / 2)
    better = min(int(np.floor(worse + size * effect + 1e-9)), size - worse)
    d = np.zeros(size, dtype=np.int8)
    d[:better], d[better : better + worse] = 1, -1
    return d


def draw(effect: float, rows: int, rng: np.random.Generator, discordance: float, probes: int) -> Bits:
    """[rows, probes]: each row is the whole probe set in a separate random order."""
    return rng.permuted(np.tile(population(effect, discordance, probes), (rows, 1)), axis=1)


def draw_pairs(rate: float, champion: float, rows: int, rng: np.random.Generator, probes: int) -> tuple[Bits, Bits]:
    """Hits [rows, probes] of candidates and of their champion. Independent hits are the hardest case to decide."""
    return (rng.random((rows, probes)) < rate).astype(np.int8), (rng.random((rows, probes)) < champion).astype(np.int8)


def in_blocks(rows: int, verdicts: Callable[[int], Verdicts]) -> Verdicts:
    """The verdicts on `rows` candidates, made by calls for at most BLOCK of them each."""
    parts = [verdicts(min(BLOCK, rows - start)) for start in range(0, rows, BLOCK)]
    return Verdicts(*(np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])))


# --- whole runs ------------------------------------------------------------------------------------------------------


def chance_in_run(found: Bools) -> tuple[float, float]:
    """Chance that it happens to any candidate of a run, and its standard error. found [candidates, m]: whether it
    happened to each simulated candidate if that was weighed as the first, ..., as the m-th of a run.

    The candidates of a run are independent: 1 - prod_j (1 - share_j). The error is that of the sum of the shares."""
    chance = 1 - float(np.prod(1 - found.mean(axis=0)))
    return chance, float(found.sum(axis=1).std() / math.sqrt(len(found)))


def simulate(
    simulated: int, candidates: int, seed: int = 0, effect: float | None = None, config: GateConfig | None = None
) -> dict[str, float]:
    """Errors of a run of `candidates` candidates, each better than the champion by `effect` (default: -delta, the worst
    case): chance that any is promoted, and that the champion ever moves. From `simulated` candidates, each judged with
    the error budget of every place in the run, and asked all probes until it is shown to be better."""
    config = config or GateConfig()
    effect = -config.delta if effect is None else effect
    rng, alphas = np.random.default_rng(seed), budgets(candidates, config)
    found = in_blocks(
        simulated, lambda rows: weigh(draw(effect, rows, rng, DISCORDANCE, config.max_probes), config, alphas)
    )
    return {"effect": effect, **errors(found)}


def simulate_saturated(
    simulated: int, candidates: int, seed: int = 0, config: GateConfig | None = None, below: float = 0.0
) -> dict[str, float]:
    """The same for candidates whose agreement is `below` under the floor and more than delta under the champion's. The
    champion agrees with all correct anchors."""
    config = config or GateConfig(anchor_precision=0.93)
    rng, alphas, floor = np.random.default_rng(seed), budgets(candidates, config), floor_of(config)
    champion = config.anchor_precision or 0.0
    found = in_blocks(
        simulated,
        lambda rows: weigh_saturated(
            *draw_pairs(floor - below, champion, rows, rng, config.max_probes), config, alphas
        ),
    )
    return {"floor": floor, **errors(found)}


def budgets(candidates: int, config: GateConfig) -> list[float]:
    return [alpha_of(j, config.alpha) for j in range(1, candidates + 1)]


def errors(found: Verdicts) -> dict[str, float]:
    promoted, promoted_error = chance_in_run(found.verdict == PROMOTE)
    moved, moved_error = chance_in_run(found.better)
    return {
        "simulated": len(found.verdict),
        "candidates": found.verdict.shape[1],
        "promoted_in_run_ratio": promoted,
        "promoted_in_run_error": promoted_error,
        "champion_moved_in_run_ratio": moved,
        "champion_moved_in_run_error": moved_error,
    }


def driven(runs: int, candidates: int, seed: int = 0, effect: float | None = None) -> dict[str, int]:
    """Weighs the candidates of whole runs by `Gate`, look by look, each gate with its own ledger. Counts the verdicts
    that differ from the rule's, and the promotions."""
    config = GateConfig()
    rng = np.random.default_rng(seed)
    differ = promoted = 0
    for _ in range(runs):
        gate = Gate(config)
        for j in range(1, candidates + 1):
            d = draw(-config.delta if effect is None else effect, 1, rng, DISCORDANCE, config.max_probes)[0]
            found = weigh(d, config, [alpha_of(j, config.alpha)])
            verdict = weighed(gate, d, j)
            differ += verdict != int(found.verdict[0])
            promoted += verdict == PROMOTE
    return {"runs": runs, "candidates": candidates, "differ": differ, "promoted": promoted}


def weighed(gate: Gate, d: Bits, version: int) -> int:
    """The verdict of the gate that is asked after every gate.config.batch probes of d [n]."""
    asked, decision = 0, None
    while decision is None:
        asked = min(asked + gate.config.batch, len(d))
        decision = gate.decide(evidence(d[:asked], version, gate.ledger.champion), exhausted=asked == len(d))
    return {"promote": PROMOTE, "reject": REJECT, "hold": HOLD}[decision.verdict]


def evidence(d: Sequence[int] | Bits, version: int = 1, champion: PolicyRef = BASE) -> Evidence:
    """Hits of candidate and champion that differ by d [n]; ties are hits."""
    return Evidence(
        candidate=PolicyRef(version=version),
        champion=champion,
        candidate_hits=tuple(bool(x >= 0) for x in d),
        champion_hits=tuple(bool(x <= 0) for x in d),
        certified=False,
    )


# --- single candidates -----------------------------------------------------------------------------------------------


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
    rng, alpha = np.random.default_rng(seed), alpha_of(j, config.alpha)
    found = in_blocks(
        candidates, lambda rows: weigh(draw(effect, rows, rng, discordance, config.max_probes), config, [alpha])
    )
    decided = found.verdict != HOLD
    return {
        "effect": effect,
        "discordance": max(discordance, abs(effect)),
        "j": j,
        **shares(found),
        "champion_moved": float(found.better.mean()),
        "median_probes_decided": float(np.median(found.probes[decided])) if decided.any() else float("nan"),
    }


def shares(found: Verdicts) -> dict[str, float]:
    words = {"promoted": PROMOTE, "rejected": REJECT, "held": HOLD}
    ratios = {word: float((found.verdict == value).mean()) for word, value in words.items()}
    return {**ratios, "median_probes": float(np.median(found.probes))}


def watch(effect: float, versions: int, seed: int = 0, config: GateConfig | None = None) -> dict[str, float | None]:
    """The share of promoted versions that the watch rolls back, when they are better than the champion by `effect`."""
    config = config or GateConfig()
    d = draw(effect, versions, np.random.default_rng(seed), DISCORDANCE, config.max_probes)[:, : config.watch_probes]
    rolled_back = regret(d, config)
    found = rolled_back <= d.shape[1]
    return {
        "effect": effect,
        "rolled_back_ratio": float(found.mean()),
        "median_probes": float(np.median(rolled_back[found])) if found.any() else None,
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
        promoted = weigh(d, config, [alpha_of(j if spending else 1, config.alpha)]).verdict[:, 0] == PROMOTE
        served = np.where(promoted, served - step, served)
    return {"step": step, "mean_end": float(served.mean()), "worst_end": float(served.min())}
