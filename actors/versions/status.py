"""The status of versions, for people and for other parts."""

from actors.runtime.statuses import HoldStatus, VersionsStatus
from actors.versions.lineage import Lineage
from actors.versions.register import Register
from actors.versions.replicas import Replicas


def versions_status(register: Register, replicas: Replicas) -> VersionsStatus:
    lineage, slots = register.lineage, register.lineage.slots()
    return {
        "owed": register.unwritten,
        "slots": {
            "serve": slots.serve.version,
            "explore": slots.explore.version,
            "champion": slots.champion.version,
            "candidate": slots.candidate.version if slots.candidate else None,
        },
        "epoch": slots.epoch,
        "states": {str(v): state for v, state in sorted(lineage.states.items())},
        "decided": lineage.decided,
        "without_gain": lineage.without_gain,
        "standing": _standing(lineage),
        "rejections": lineage.rejections,
        "learning_rate_scale": lineage.learning_rate_scale(register.backoff),
        "held": _held(lineage),
        "waiting": lineage.waiting.version if lineage.waiting else None,
        "reporting": sorted(set(lineage.reporting) - set(lineage.undecided)),
        "replicas": replicas.status(),
    }


def _standing(lineage: Lineage) -> str:
    """The evidence behind the served version: `base`, or its standing."""
    serve = lineage.serve.version
    return "base" if serve == 0 else lineage.standing(serve)


def _held(lineage: Lineage) -> HoldStatus | None:
    held = lineage.held
    return None if held is None else {"by": held.by, "why": held.why, "at": held.at}
