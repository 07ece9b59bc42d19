"""How many worse versions would other gates let through, how many better ones would they miss, and at what price?

Simulates runs of --candidates candidates. Each is weighed on fresh independent questions of the same kind, on a share
of which it differs from the champion (the discordance), and is better by `effect`. A worse candidate is 3 or 6 points
worse; a gain is 5 or 10 points. Every rule sees the same questions. Rules that look once ask a fixed number of them.

`worse_promoted`: how many of the candidates of a run that are so much worse are promoted, and the chance that any is.
`gains_missed`: share of better candidates that are not promoted. `probes`: asked of one candidate, mean.

With `--recorded RUN_DIR ...` the questions are those of finished runs: two versions that were measured on the same
report questions (keys) or asked the same probes (anchors), drawn again with replacement; the effect is then what the
two differ by on all of them. The rule of adaptergate is also asked as its package has it, in `.venv-rivals`, on the
first candidates: `adaptergate_differs` must be 0.
"""

import argparse
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from actors.evaluate.answer_cache import AnswerCache
from actors.storage.run_dir import CONFIG_FILE
from bench._rivals import answer
from core.config import GateConfig, load
from core.store.facts import Measured
from core.store.writer import RunReader
from methods.data.held_out import probes_of
from training.gate.rule import PROMOTE, Bits, alpha_of, weigh
from training.gate.statistics import Z95_ONE_SIDED

CONFIG = GateConfig()
EPSILON = 0.02
"""Of adaptergate, its default."""
WORSE, GAINS = (-0.03, -0.06), (0.05, 0.10)
DISCORDANCE = 0.15
LOOK = 64
CHECKED = 200
"""Candidates of each size of its set that adaptergate's own code judges too."""
BLOCK = 100
LEAST_PROBES = 100
"""Of two recorded versions in common, to be drawn from."""

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Judged:
    promoted: npt.NDArray[np.float64]
    """[places]: share of the candidates that are promoted as the first, second, ... of a run."""
    probes: float

    @property
    def expected(self) -> float:
        """Promoted of a whole run."""
        return float(self.promoted.sum())

    @property
    def chance(self) -> float:
        """That any of a run is promoted."""
        return 1 - float(np.prod(1 - self.promoted))


Rule = Callable[[Bits], tuple[Bools, npt.NDArray[np.int64]]]
"""d [rows, n] -> whether each is promoted, [rows] or [rows, places], and the probes it took."""


def betting(candidates: int, spending: bool = True) -> Rule:
    """Ratchet's. Without `spending` each candidate has the error budget of a first one."""
    alphas = [alpha_of(j if spending else 1, CONFIG.alpha) for j in range(1, candidates + 1)]

    def judge(d: Bits) -> tuple[Bools, npt.NDArray[np.int64]]:
        found = weigh(d, CONFIG, alphas)
        return found.verdict == PROMOTE, found.probes

    return judge


def threshold(n: int) -> Rule:
    """adaptergate: promote unless the mean falls by more than epsilon on a fixed set; in its order of operations."""

    def judge(d: Bits) -> tuple[Bools, npt.NDArray[np.int64]]:
        ours, theirs = (d[:, :n] > 0).sum(axis=1) / n, (d[:, :n] < 0).sum(axis=1) / n
        return ours - theirs >= -EPSILON, np.full(len(d), n)

    return judge


def mcnemar(n: int, better: bool) -> Rule:
    """One look: promote what is significantly better, or all that is not significantly worse (one-sided, 5%)."""

    def judge(d: Bits) -> tuple[Bools, npt.NDArray[np.int64]]:
        wins, losses = (d[:, :n] > 0).sum(axis=1), (d[:, :n] < 0).sum(axis=1)
        lead = wins - losses if better else losses - wins
        significant = (lead - 1) / np.sqrt(np.maximum(1, wins + losses)) > Z95_ONE_SIDED
        return (significant if better else ~significant), np.full(len(d), n)

    return judge


def peeking(d: Bits) -> tuple[Bools, npt.NDArray[np.int64]]:
    """After every LOOK questions, promote at the first look at which a paired z-test (5%) says `not delta worse`."""
    ends = np.arange(LOOK, d.shape[1] + 1, LOOK)
    sums, squares = (np.cumsum(power, axis=1, dtype=np.int64)[:, ends - 1] for power in (d, d.astype(np.int64) ** 2))
    means = sums / ends
    errors = np.sqrt(np.maximum(squares / ends - means**2, 1e-12) / ends)
    passed = (means + CONFIG.delta) / errors > Z95_ONE_SIDED
    first = np.where(passed.any(axis=1), passed.argmax(axis=1), len(ends) - 1)
    return passed.any(axis=1), ends[first]


def rules(candidates: int) -> dict[str, Rule]:
    return {
        "betting, one error budget a run (Ratchet)": betting(candidates),
        "betting, the same budget each": betting(candidates, spending=False),
        "threshold .02 on 25 questions (adaptergate)": threshold(25),
        "threshold .02 on 200 questions (adaptergate)": threshold(200),
        "threshold .02 on 2,000 questions (adaptergate)": threshold(2000),
        "McNemar on 200, not worse": mcnemar(200, better=False),
        "McNemar on 2,000, not worse": mcnemar(2000, better=False),
        "McNemar on 2,000, better": mcnemar(2000, better=True),
        "z-test at every 64 of 2,000, uncorrected": peeking,
    }


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--simulated", type=int, default=4000, help="candidates of each effect")
    parser.add_argument("--candidates", type=int, default=100, help="of a run")
    parser.add_argument("--recorded", nargs="*", default=[], metavar="RUN_DIR")
    parser.add_argument("--seed", type=int, default=0)


def run(options: argparse.Namespace) -> dict[str, Any]:
    simulated = 400 if options.quick else options.simulated
    rng = np.random.default_rng(options.seed)
    known = rules(options.candidates)
    effects = (*WORSE, 0.0, *GAINS)
    drawn = {effect: draws(effect, simulated, rng) for effect in effects}
    rows = {
        name: figures({effect: judged(rule, drawn[effect]) for effect in effects}, options.candidates)
        for name, rule in known.items()
    }
    for name, row in rows.items():
        print(json.dumps({"rule": name, **row}))
    recorded = [each for folder in options.recorded for each in replayed(Path(folder), simulated, known, rng)]
    for each in recorded:
        print(json.dumps(each))
    return {"simulated": simulated, "candidates": options.candidates, "rules": rows, "recorded": recorded} | {
        "adaptergate_differs": differs(drawn[WORSE[0]][:CHECKED])
    }


def draws(effect: float, rows: int, rng: np.random.Generator, discordance: float = DISCORDANCE) -> Bits:
    """D [rows, max_probes] of independent questions."""
    discordance = max(discordance, abs(effect))
    shares = [(discordance + effect) / 2, 1 - discordance, (discordance - effect) / 2]
    return rng.choice(np.array([1, 0, -1], dtype=np.int8), p=shares, size=(rows, CONFIG.max_probes))


def judged(rule: Rule, d: Bits) -> Judged:
    parts = [rule(d[start : start + BLOCK]) for start in range(0, len(d), BLOCK)]
    promoted = np.concatenate([each for each, _ in parts]).reshape(len(d), -1).mean(axis=0)
    return Judged(promoted, float(np.concatenate([probes for _, probes in parts]).mean()))


def figures(found: dict[float, Judged], candidates: int) -> dict[str, Any]:
    """A rule that does not know the place of a candidate judges all alike."""
    runs = {effect: Judged(np.resize(each.promoted, candidates), each.probes) for effect, each in found.items()}
    return {
        "worse_promoted": {f"{effect:+.2f}": round(runs[effect].expected, 2) for effect in WORSE},
        "any_worse_ratio": {f"{effect:+.2f}": round(runs[effect].chance, 4) for effect in WORSE},
        "equal_promoted_ratio": round(runs[0.0].expected / candidates, 3),
        "gains_missed_ratio": {f"{effect:+.2f}": round(1 - runs[effect].expected / candidates, 3) for effect in GAINS},
        "probes": {f"{effect:+.2f}": round(each.probes) for effect, each in runs.items()},
    }


# --- recorded answers ------------------------------------------------------------------------------------------------


def replayed(folder: Path, rows: int, known: dict[str, Rule], rng: np.random.Generator) -> list[dict[str, Any]]:
    """Every two versions of a run on the questions that both answered."""
    made: list[dict[str, Any]] = []
    for kind, hits in {"keys": by_keys(folder), "anchors": by_anchors(folder)}.items():
        for older, newer in itertools.combinations(sorted(hits), 2):
            common = sorted(hits[older].keys() & hits[newer].keys())
            if len(common) < LEAST_PROBES:
                continue
            d = np.array([hits[newer][each] - hits[older][each] for each in common], dtype=np.int8)
            again = d[rng.integers(0, len(d), size=(rows, CONFIG.max_probes))]
            promoted = {name: round(float(judged(rule, again).promoted.mean()), 3) for name, rule in known.items()}
            about = {"run": folder.name, "by": kind, "versions": [older, newer], "questions": len(common)}
            made.append({**about, "effect": round(float(d.mean()), 4), "promoted_ratio": promoted})
    return made


def by_keys(folder: Path) -> dict[int, dict[str, int]]:
    """Version -> question -> hit, on the report's questions."""
    reader = RunReader(folder)
    found = reader.read_all(Measured)
    reader.close()
    return {int(v): {str(place): int(bit) for place, bit in enumerate(each.hits)} for v, each in found.items()}


def by_anchors(folder: Path) -> dict[int, dict[str, int]]:
    """The same on the gate's probes, of the versions whose answers are still stored."""
    known = AnswerCache()
    reader = RunReader(folder)
    known.restore(reader, probes_of(load(folder / CONFIG_FILE), folder)[0])
    reader.close()
    found: dict[int, dict[str, int]] = {}
    for (ref, probe), said in known.items():
        found.setdefault(ref.version, {})[probe] = int(said.hit)
    return found


# --- the rival's own code --------------------------------------------------------------------------------------------


def differs(d: Bits) -> int:
    """Verdicts of adaptergate that differ from `threshold`, on sets of 25, 200 and all questions."""
    sizes = (25, 200, d.shape[1])
    asked = [{"epsilon": EPSILON, "d": row[:n].tolist()} for n in sizes for row in d]
    theirs = answer("adaptergate_gate", asked)
    ours = [bool(promoted) for n in sizes for promoted in threshold(n)(d)[0]]
    return sum(a != b for a, b in zip(theirs, ours, strict=True))
