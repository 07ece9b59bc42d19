"""Makes the directories of runs that ended, for tests of what drills conclude from them."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from core.messages import BASE, Decision, PolicyRef
from core.store.facts import FinalMeasured, Measured
from core.store.records import event, message
from core.store.writer import RunStore


def hits(right: int, of: int = 400) -> str:
    return "1" * right + "0" * (of - right)


def run_directory(
    folder: Path,
    verdicts: dict[int, str],
    measured: dict[int, str],
    final: dict[int, str],
    rolled_back: Mapping[int, int] = MappingProxyType({}),
) -> Path:
    """A run that ended. `rolled_back`: version -> the one served from then on."""
    folder.mkdir(parents=True)
    store = RunStore(folder)
    for version, verdict in verdicts.items():
        candidate = PolicyRef(version=version)
        decision = Decision.model_validate(
            dict(verdict=verdict, candidate=candidate, champion=BASE, reason="", probes=1, certified=False)
        )
        decided = event(float(version), "versions", "decided", version=version, verdict=verdict)
        store.write([message("decisions", str(candidate), str(BASE), decision), decided])
        if version in rolled_back:
            store.write([event(version + 0.5, "versions", "rolled_back", version=version, serve=rolled_back[version])])
    rates = {"accuracy": 0.0, "low": 0.0, "high": 0.0, "n": 0}
    found = [Measured(version=v, hits=bits, **rates).record(v) for v, bits in measured.items()]
    store.write([*found, *(FinalMeasured(version=v, hits=bits, **rates).record(v) for v, bits in final.items())])
    store.close()
    versions = [{"verdict": "base", "accuracy": 0.5}, *({"verdict": v, "accuracy": None} for v in verdicts.values())]
    report = {"accuracy_start": 0.5, "accuracy_end": 0.1, "wall_s": 9.0, "versions": versions}
    (folder / "report.json").write_text(json.dumps(report))
    return folder
