"""What replicas said last, and what follows from it: which version is proven, and which nobody can serve."""

from typing import cast

from actors.runtime.ports import ReplicaStatus
from core.clock import Clock
from core.messages import BASE, PolicyRef, ReplicaReport

FRESH_S = 30.0
"""A replica that has not been heard of for so long does not hold up a promotion."""
GONE_S = 300.0
"""One that has not been heard of for so long was removed: until then it counts at the epoch that it reported last, as
staging a version may take it that long."""


class Replicas:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._listening_since = clock.monotonic()
        self._reports: dict[str, tuple[ReplicaReport, float]] = {}

    def listen(self) -> None:
        """From now on replicas can report."""
        self._listening_since = self._clock.monotonic()

    def take(self, report: ReplicaReport) -> None:
        now = self._clock.monotonic()
        self._reports = {name: (r, at) for name, (r, at) in self._reports.items() if now - at < GONE_S}
        self._reports[report.replica] = (report, now)

    def why_failed(self, ref: PolicyRef) -> str | None:
        """Why some replica cannot prove it."""
        return next((r.failed[str(ref)] for r, _ in self._reports.values() if str(ref) in r.failed), None)

    def all_hold(self, ref: PolicyRef, epoch: int) -> bool:
        """Whether all that prove versions first hold it, of the replicas heard of lately or at this epoch."""
        now = self._clock.monotonic()
        fresh = [r for r, at in self._reports.values() if now - at < FRESH_S or r.epoch >= epoch]
        weighing = [r for r in fresh if r.pool != "serving"]
        return bool(weighing) and all(ref in r.proven for r in weighing)

    def why_unservable(self, ref: PolicyRef) -> str | None:
        """Why nobody can serve it; None while a replica that was heard of lately does, or might."""
        now = self._clock.monotonic()
        fresh = [r for r, at in self._reports.values() if now - at < FRESH_S and r.pool != "shadow"]
        settling = now - self._listening_since < FRESH_S  # who serves it may not have reported yet
        if ref == BASE or settling or any(ref in r.proven for r in fresh):
            return None
        return next((r.failed[str(ref)] for r in fresh if str(ref) in r.failed), None)

    def status(self) -> dict[str, ReplicaStatus]:
        now = self._clock.monotonic()
        return {name: _status(r, now - at) for name, (r, at) in self._reports.items() if now - at < FRESH_S}


def _status(report: ReplicaReport, age_s: float) -> ReplicaStatus:
    reached: ReplicaStatus = {
        "serving": report.serving.version,
        "proven": [ref.version for ref in report.proven],
        "epoch": report.epoch,
        "failed": report.failed,
        "age_s": age_s,
    }
    return cast(ReplicaStatus, {**reached, **report.counters})
