"""The latest report of each replica: which versions are proven, and which no replica can serve."""

from typing import cast

from actors.runtime.statuses import ReplicaStatus
from core.clock import Clock
from core.messages import BASE, PolicyRef, ReplicaReport

FRESH_S = 30.0
"""A replica without a report for this long does not block a proof."""
GONE_S = 300.0
"""A replica without a report for this long counts as removed. Until then it counts at the epoch that it reported last,
because staging a version may take this long."""


class Replicas:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._listening_since = clock.monotonic()
        self._reports: dict[str, tuple[ReplicaReport, float]] = {}

    def listen(self) -> None:
        """Replicas can report from now on."""
        self._listening_since = self._clock.monotonic()

    def take(self, report: ReplicaReport) -> None:
        now = self._clock.monotonic()
        self._reports = {name: (r, at) for name, (r, at) in self._reports.items() if now - at < GONE_S}
        self._reports[report.replica] = (report, now)

    def why_failed(self, ref: PolicyRef) -> str | None:
        """The reason why a replica cannot prove the version; None if none reported one."""
        return next((r.failed[str(ref)] for r, _ in self._reports.values() if str(ref) in r.failed), None)

    def all_hold(self, ref: PolicyRef, epoch: int) -> bool:
        """Whether every replica that proves versions first (all pools but `serving`) has proven it. Only replicas with
        a recent report, or at this epoch, count."""
        now = self._clock.monotonic()
        fresh = [r for r, at in self._reports.values() if now - at < FRESH_S or r.epoch >= epoch]
        weighing = [r for r in fresh if r.pool != "serving"]
        return bool(weighing) and all(ref in r.proven for r in weighing)

    def arrived(self, ref: PolicyRef) -> float | None:
        """The smallest arrival coefficient of the version in any replica; None if no proof was conclusive."""
        return min((r.arrived[str(ref)] for r, _ in self._reports.values() if str(ref) in r.arrived), default=None)

    def why_unservable(self, ref: PolicyRef) -> str | None:
        """The reason why no replica can serve the version; None while a replica with a recent report can, or might."""
        now = self._clock.monotonic()
        fresh = [r for r, at in self._reports.values() if now - at < FRESH_S and r.pool != "shadow"]
        starting = now - self._listening_since < FRESH_S  # a replica that serves it may not have reported yet
        if ref == BASE or starting or any(ref in r.proven for r in fresh):
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
