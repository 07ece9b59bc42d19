"""Which versions do the tokens of an answer come from? Told by their log-probabilities.

An engine reports the log-probability of every token that it samples. Each version gives the same tokens other
log-probabilities. The versions named are those of the cheapest path over the tokens: a token costs the distance between
the engine's log-probability and the version's, and a change of version costs SWITCH_NATS, which noise does not pay.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from core.config import Config
from core.messages import PolicyRef

SWITCH_NATS = 2.0
MOST_NATS = 3.0
"""The most that one token costs: a rare token under bfloat16 must not decide alone."""
FOREIGN_NATS = 0.3
"""Mean cost of a token above which no known version made the answer. Engine and trainer differ by about 0.01."""
FOREIGN = -1
Floats = npt.NDArray[np.floating[Any]]


def named(told: Sequence[float], by_version: Mapping[int, Floats], first: int) -> list[int]:
    """The versions in the order of their tokens; [FOREIGN] if none fits. `told`: the engine's log-probabilities (nats).
    `first`: the version that the answer is said to begin with; another one costs SWITCH_NATS too."""
    versions = sorted(by_version)
    costs_TV = _costs(told, [by_version[version] for version in versions])
    total_V = costs_TV[0] + [SWITCH_NATS * (version != first) for version in versions]
    came_from = list[Any]()
    for cost_V in costs_TV[1:]:
        best = int(total_V.argmin())
        stay_V = total_V <= total_V[best] + SWITCH_NATS
        came_from.append(np.where(stay_V, np.arange(len(versions)), best))
        total_V = np.where(stay_V, total_V, total_V[best] + SWITCH_NATS) + cost_V
    at = int(total_V.argmin())
    if total_V[at] > FOREIGN_NATS * len(costs_TV) + SWITCH_NATS:
        return [FOREIGN]
    path = [at]
    for step in reversed(came_from):
        path.append(int(step[path[-1]]))
    return [versions[at] for at, _ in groupby(reversed(path))]


def margin(told: Sequence[float], by_version: Mapping[int, Floats]) -> float:
    """By how many nats the second-best version explains the whole answer worse than the best."""
    best, second, *_ = sorted(_costs(told, list(by_version.values())).sum(axis=0))
    return float(second - best)


def _costs(told: Sequence[float], rows: Sequence[Floats]) -> Floats:
    return np.minimum(np.abs(np.stack(rows, axis=1) - np.array(told)[:, None]), MOST_NATS)


def scored(config: Config, run_dir: Path, refs: Sequence[PolicyRef], answers: Sequence[tuple[list[int], int]]) -> Any:
    """For each answer (its ids after the prompt's, and the number of the prompt's) the log-probabilities of its tokens
    by version."""
    from training.learner.learner import Learner
    from training.versions.load import load_version

    learner = Learner(config.model, config.learning)
    learner.load()
    found: list[dict[int, Floats]] = [{} for _ in answers]
    for ref in refs:
        load_version(learner, run_dir, ref)
        rows = learner.score([ids for ids, _ in answers])
        for each, row, (_, prompt) in zip(found, rows, answers, strict=True):
            each[ref.version] = row[prompt - 1 :]
    return found
