"""Runs of a fixed number of versions as child processes, their reports, and the accuracy of served versions."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from core.messages import Decision
from core.store.facts import FinalMeasured, Measured
from core.store.writer import RunReader
from training.gate.statistics import paired_difference


def finished(folder: Path, config: str, versions: int, seed: int, settings: Sequence[str]) -> dict[str, Any]:
    """The report of `ratchet up --versions N` in `folder`. A finished run is not repeated; an interrupted run resumes.

    Raises: CalledProcessError."""
    if not (folder / "report.json").is_file():
        command = [sys.executable, "-m", "actors.cli", "up", "--config", config, "--versions", str(versions)]
        command += ["--seed", str(seed), "--port", "0", "--dir", str(folder), *settings]
        subprocess.run(command, check=True, stdout=sys.stderr)
    return json.loads((folder / "report.json").read_text())


class Records:
    """Results of a drill's finished runs, one line each, so that a long drill can be spread over several machines.

    A line is used only for exactly the same settings: its key contains their digest."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
        self._found: dict[str, dict[str, Any]] = {line["run"]: line["found"] for line in lines}

    def get(self, name: str, settings: Sequence[str]) -> dict[str, Any] | None:
        return self._found.get(_key(name, settings))

    def add(self, name: str, settings: Sequence[str], found: dict[str, Any]) -> None:
        self._found[_key(name, settings)] = found
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps({"run": _key(name, settings), "found": found}) + "\n")


def _key(name: str, settings: Sequence[str]) -> str:
    return f"{name}-{hashlib.sha256(chr(10).join(settings).encode()).hexdigest()[:8]}"


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
    reader = RunReader(folder)
    measured = {int(v): [bit == "1" for bit in found.hits] for v, found in reader.read_all(Measured).items()}
    happened = reader.events("decided", "rolled_back")
    reader.close()
    served = candidates = promoted = worse = worse_served = better = better_missed = 0
    for event in happened:
        if event.kind == "rolled_back":
            served = int(event.detail["serve"])
            continue
        version, promotes = int(event.detail["version"]), event.detail["verdict"] == "promote"
        gain, loss = _gain_and_loss(measured.get(version), measured.get(served))
        candidates, promoted = candidates + 1, promoted + promotes
        worse, worse_served = worse + loss, worse_served + (loss and promotes)
        better, better_missed = better + gain, better_missed + (gain and not promotes)
        served = version if promotes else served
    return Verdicts(candidates, promoted, worse, worse_served, better, better_missed)


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
