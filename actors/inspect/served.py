"""What users got in a run that ended, by its report questions, and how right its verdicts were."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from core.messages import Decision
from core.store.facts import FinalMeasured, Measured
from core.store.writer import RunReader
from training.gate.statistics import paired_difference


def served_hits(folder: Path) -> dict[int, list[bool]]:
    """Hits of the base and of every promoted version that was measured, in order, on the same report questions."""
    reader = RunReader(folder)
    promoted = {d.candidate.version for d in reader.all("decisions", Decision) if d.verdict == "promote"}
    measured = {int(version): found.hits for version, found in reader.read_all(Measured).items()}
    final = {found.version: found.hits for found in reader.read_all(FinalMeasured).values()}
    reader.close()
    bits = final | measured
    shared = min((len(hits) for hits in bits.values()), default=0)  # all got the same questions, in one order
    return {v: [bit == "1" for bit in bits[v][:shared]] for v in sorted({0, *promoted}) if v in bits}


def measured_hits(folder: Path) -> dict[int, list[bool]]:
    """Hits of every version that was measured, on the same report questions."""
    reader = RunReader(folder)
    measured = reader.read_all(Measured)
    reader.close()
    return {int(version): [bit == "1" for bit in found.hits] for version, found in measured.items()}


@dataclass(frozen=True)
class Judged:
    """A candidate with its verdict."""

    version: int
    promoted: bool
    against: int
    """The version that was served when it was weighed."""
    served: int
    """The version that was served until the next verdict; after a rollback, the one that took its place."""


def history(folder: Path) -> list[Judged]:
    """All candidates with a verdict of their own, in the order of the verdicts."""
    reader = RunReader(folder)
    happened = reader.events("decided", "rolled_back")
    reader.close()
    served, judged = 0, list[Judged]()
    for event in happened:
        if event.kind == "rolled_back":
            served = int(event.detail["serve"])
            judged[-1:] = [replace(each, served=served) for each in judged[-1:]]
            continue
        version, promoted = int(event.detail["version"]), event.detail["verdict"] == "promote"
        judged.append(Judged(version, promoted, served, version if promoted else served))
        served = judged[-1].served
    return judged


class Verdicts(NamedTuple):
    """How right the verdicts of a run were, by the report questions: what is better or worse than the version served
    when it was weighed, by the lower 95% paired bound. One in twenty equal candidates counts as each by chance."""

    candidates: int
    """Candidates with a verdict of their own; without those dropped with their parent."""
    promoted: int
    worse: int
    """Candidates that were worse; likewise `better`. Only of those that were measured."""
    worse_served: int
    better: int
    better_missed: int
    """Better candidates that were rejected or held."""


def verdicts(folder: Path) -> Verdicts:
    measured = measured_hits(folder)
    candidates = promoted = worse = worse_served = better = better_missed = 0
    for judged in history(folder):
        gain, loss = _gain_and_loss(measured.get(judged.version), measured.get(judged.against))
        candidates, promoted = candidates + 1, promoted + judged.promoted
        worse, worse_served = worse + loss, worse_served + (loss and judged.promoted)
        better, better_missed = better + gain, better_missed + (gain and not judged.promoted)
    return Verdicts(candidates, promoted, worse, worse_served, better, better_missed)


class Mistakes(NamedTuple):
    """Verdicts that the report questions contradict as measured, without regard to chance."""

    false_promotions: int
    """Promotions of a version whose accuracy is below that of the version served before."""
    missed_promotions: int
    """Rejected or held versions whose accuracy is above it."""


def mistakes(judged: Sequence[Judged], accuracy: Mapping[int, float]) -> Mistakes:
    """Only of versions that were measured."""
    false = missed = 0
    for each in judged:
        if each.version not in accuracy or each.against not in accuracy:
            continue
        gain = accuracy[each.version] - accuracy[each.against]
        false, missed = false + (each.promoted and gain < 0), missed + (not each.promoted and gain > 0)
    return Mistakes(false, missed)


def served_over_tokens(
    judged: Sequence[Judged], tokens: Mapping[int, int], accuracy: Mapping[int, float]
) -> list[tuple[int, float]]:
    """Sampled tokens, and the accuracy of the version that is served from there on. The base is served from 0 tokens
    on. Versions that were not measured are left out."""
    served = [(0, 0), *((tokens.get(each.version, 0), each.served) for each in judged)]
    return [(spent, accuracy[version]) for spent, version in served if version in accuracy]


def _gain_and_loss(candidate: Sequence[bool] | None, served: Sequence[bool] | None) -> tuple[bool, bool]:
    """Whether the candidate is better, and whether it is worse, than the served version; neither if not measured."""
    if candidate is None or served is None:
        return False, False
    n = min(len(candidate), len(served))
    ours, theirs = candidate[:n], served[:n]
    return paired_difference(ours, theirs)[1] > 0, paired_difference(theirs, ours)[1] > 0


def worst_drop(hits: Mapping[int, Sequence[bool]]) -> tuple[float, float]:
    """The largest drop from the best earlier version on the same questions: by the lower 95% paired bound, and as
    measured. Each is 0 if there is no drop."""
    bound, seen, best = 0.0, 0.0, min(hits, default=0)
    for version in sorted(hits):
        if sum(hits[version]) > sum(hits[best]):
            best = version
        elif version != best:
            mean, least = paired_difference(hits[best], hits[version])
            bound, seen = max(bound, least), max(seen, mean)
    return bound, seen
