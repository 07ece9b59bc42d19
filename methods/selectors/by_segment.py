"""Makes an example of each segment of a sample, with an advantage over what others had got with the same beginning."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from core.messages import Example, Scored
from core.protocols import Facts, History, Tuned
from methods.chains import Link, chains
from methods.rows import example, row
from methods.scorers.self_verified import is_verification

COUNTED = 4
"""Segments whose beginnings have a baseline; what follows longer ones has none."""


@dataclass(frozen=True)
class BySegment:
    """One example for each segment, with the advantage

        (reward - mean reward so far of segments behind the same rewards) * emphasis

    emphasis 2: a solution whose truth differs from that of the one before, and a verification of a right solution. A
    cut-off segment that is not the first has -1. The means are tuned values and count what earlier windows brought; one
    of fewer than `enough` prompts counts as 0. Source: S2R, arXiv 2502.12853, process level.

    Raises: ObjectiveError for a candidate without a log-probability for each of its tokens."""

    method: str
    enough: int = 10

    def __call__(self, scored: Sequence[Scored], history: History) -> list[Example]:
        made: list[Example] = []
        for chain in chains(scored):
            for segment, advantage in zip(chain, advantages(chain, history.tuned, self.enough), strict=True):
                if advantage:
                    group, candidate, _ = segment
                    made.append(
                        example(self.method, group, [candidate], [row(candidate, advantage=advantage, behaviour=True)])
                    )
        return made

    def measure(self, scored: Sequence[Scored], tuned: Tuned) -> Mapping[str, float]:
        """The mean reward behind each beginning, in one prompt."""
        found: dict[str, list[float]] = {}
        for chain in chains(scored):
            for place, (_, _, reward) in enumerate(chain[:COUNTED]):
                found.setdefault(beginning(chain[:place]), []).append(reward)
        return {f"mean {name}": sum(each) / len(each) for name, each in found.items()}

    def tune(self, facts: Facts) -> Tuned:
        """The means over all prompts so far, each with its number of prompts."""
        values = dict(facts.tuned)
        for name in beginnings():
            mean, n = facts.measured.get(f"mean {name}", (0.0, 0))
            seen = values[f"seen {name}"] + n
            if n:
                values[f"mean {name}"] += (mean - values[f"mean {name}"]) * n / seen
                values[f"seen {name}"] = seen
        return values

    def tuned(self) -> dict[str, float]:
        return {f"{what} {name}": 0.0 for name in beginnings() for what in ("mean", "seen")}


def beginnings() -> list[str]:
    """Of up to COUNTED - 1 segments: `+-` for a right solution and a verification that is wrong about it."""
    return ["".join(signs) for length in range(COUNTED) for signs in product("+-", repeat=length)]


def beginning(chain: Sequence[Link]) -> str:
    return "".join("+" if reward > 0 else "-" for _, _, reward in chain)


def advantages(chain: Sequence[Link], tuned: Tuned, enough: int) -> list[float]:
    found: list[float] = []
    solution: float | None = None
    for place, (_, candidate, reward) in enumerate(chain):
        name, emphasis = beginning(chain[:place]), 1.0
        baseline = tuned.get(f"mean {name}", 0.0) if tuned.get(f"seen {name}", 0.0) >= enough else 0.0
        if is_verification(candidate):
            emphasis = 2.0 if solution == 1 else 1.0
        else:
            emphasis = 2.0 if solution is not None and reward != solution else 1.0
            solution = reward
        cut = place > 0 and candidate.finish == "length"
        found.append(-1.0 if cut else (reward - baseline) * emphasis)
    return found
