"""Which version stands in which slot, as a plain state machine: no Ray, no waiting, no clock.

    published --all replicas proved it--> proven --gate--> promoted | rejected | held
        └──────── a replica could not prove it ────────────────┘

Only the gate moves `serve`. `explore` is the newest proven version that was not rejected, so a slow verdict never
starves learning. A rejection takes every undecided descendant with it, and training goes on from the champion.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from core.errors import VersionError
from core.messages import BASE, Decision, PolicyRef, Published, Slots

State = Literal["published", "proven", "promoted", "rejected", "held"]

PARENT_REJECTED = "its parent was rejected"


@dataclass(frozen=True)
class Settled:
    """A window whose candidate is decided, for the buffer."""

    window: int
    version: int
    rejected: bool
    discarded: bool = False
    """It fell with its parent, without a verdict of its own."""


@dataclass
class Lineage:
    base: Published | None = None
    published: dict[int, Published] = field(default_factory=dict)
    states: dict[int, State] = field(default_factory=dict)
    decisions: dict[int, Decision] = field(default_factory=dict)
    reporting: set[int] = field(default_factory=set)
    serve: PolicyRef = BASE
    champion: PolicyRef = BASE
    epoch: int = 0
    next_version: int = 1
    fallen: int = 0
    """The newest version published when a rejection last sent training back to the champion."""
    without_gain: int = 0
    """Decided candidates in a row that did not become the champion."""

    # --- what others ask ---

    @property
    def explore(self) -> PolicyRef:
        usable = [v for v, state in self.states.items() if state in ("proven", "promoted", "held")]
        return PolicyRef(version=max(usable)) if usable and max(usable) > self.champion.version else self.champion

    @property
    def parent(self) -> Published:
        """What the trainer continues from: the newest version, or the champion when a rejection came after it."""
        usable = [v for v, state in self.states.items() if state != "rejected" and v > self.fallen]
        return self.get(PolicyRef(version=max([*usable, self.champion.version])))

    @property
    def candidate(self) -> PolicyRef | None:
        """The oldest version that waits for the gate."""
        waiting = [v for v, state in self.states.items() if state == "proven"]
        return PolicyRef(version=min(waiting)) if waiting else None

    @property
    def undecided(self) -> list[int]:
        return sorted(v for v, state in self.states.items() if state in ("published", "proven"))

    @property
    def decided(self) -> int:
        """Candidates with a verdict of their own."""
        return sum(decision.reason != PARENT_REJECTED for decision in self.decisions.values())

    def slots(self) -> Slots:
        needed = {self.serve.version, self.champion.version, self.explore.version, *self.undecided, *self.reporting}
        return Slots(
            epoch=self.epoch,
            serve=self.serve,
            explore=self.explore,
            champion=self.champion,
            candidate=self.candidate,
            promoted=(BASE, *(self.published[v].ref for v in sorted(needed) if self.states.get(v) == "promoted")),
            loaded=tuple(self.published[v] for v in sorted(needed - {0})),
        )

    def get(self, ref: PolicyRef) -> Published:
        """Raises: VersionError for a version that was never published."""
        if ref.version == 0 and self.base is not None:
            return self.base
        if ref.version not in self.published:
            known = ", ".join(f"v{v}" for v in sorted(self.published)) or "none"
            raise VersionError(f"{ref} was never published (known: {known})")
        return self.published[ref.version]

    # --- what happens ---

    def take_ref(self) -> PolicyRef:
        """A version number that nobody had before."""
        ref = PolicyRef(version=self.next_version)
        self.next_version += 1
        return ref

    def propose(self, published: Published) -> list[Settled]:
        """Take a new version in; one whose parent was rejected meanwhile is rejected with it."""
        version = published.ref.version
        self.published[version] = published
        self.next_version = max(self.next_version, version + 1)
        self.states[version] = "published"
        self.epoch += 1
        if self.states.get(published.parent.version) == "rejected":
            return self._reject(version, PARENT_REJECTED)
        self.reporting.add(version)
        return []

    def proven(self, version: int) -> bool:
        """All healthy replicas hold it. Says whether that was news."""
        if self.states.get(version) != "published":
            return False
        self.states[version] = "proven"
        self.epoch += 1
        return True

    def failed(self, version: int, why: str) -> list[Settled]:
        """A replica could not prove it: it will never answer anybody."""
        if self.states.get(version) not in ("published", "proven"):
            return []
        return self._reject(version, f"not proven: {why}")

    def decide(self, decision: Decision) -> list[Settled]:
        """Apply the gate's word. Raises: VersionError when this version is not waiting for one."""
        version = decision.candidate.version
        if self.states.get(version) != "proven":
            raise VersionError(f"{decision.candidate} is {self.states.get(version, 'unknown')}, expected proven")
        if decision.verdict == "reject":
            return self._reject(version, decision.reason, decision)
        self.epoch += 1
        self.decisions[version] = decision
        self.without_gain = 0 if decision.new_champion else self.without_gain + 1
        if decision.verdict == "hold":
            self.states[version] = "held"
        else:
            self.states[version] = "promoted"
            self.serve = decision.candidate
            if decision.new_champion:
                self.champion = decision.candidate
        return [Settled(self.published[version].window, version, rejected=False)]

    def crown(self, version: int) -> None:
        """A promoted version is the champion from now on. Raises: VersionError for one that was not promoted."""
        if self.states.get(version) != "promoted":
            raise VersionError(
                f"v{version} is {self.states.get(version, 'unknown')}; only a promoted version is crowned"
            )
        self.champion = PolicyRef(version=version)
        self.without_gain = 0
        self.epoch += 1

    def reported(self, version: int) -> None:
        """Nobody measures this version any more; replicas may unload it."""
        if version in self.reporting:
            self.reporting.remove(version)
            self.epoch += 1

    # --- to and from disk ---

    def snapshot(self) -> dict[str, Any]:
        return {
            "states": {str(v): state for v, state in self.states.items()},
            "serve": self.serve.version,
            "champion": self.champion.version,
            "epoch": self.epoch,
            "next_version": self.next_version,
            "fallen": self.fallen,
            "without_gain": self.without_gain,
        }

    def restore(self, snapshot: dict[str, Any], published: list[Published], decisions: list[Decision]) -> None:
        self.published = {p.ref.version: p for p in published}
        self.decisions = {d.candidate.version: d for d in decisions}
        self.states = {int(v): state for v, state in snapshot["states"].items() if int(v) in self.published}
        for version, state in self.states.items():
            if state == "proven":
                self.states[version] = "published"  # every replica proves it anew
        self.serve = PolicyRef(version=snapshot["serve"])
        self.champion = PolicyRef(version=snapshot["champion"])
        self.epoch = snapshot["epoch"] + 1
        self.next_version = max([snapshot["next_version"], *(v + 1 for v in self.published)])
        self.fallen = snapshot["fallen"]
        self.without_gain = snapshot["without_gain"]

    def _reject(self, version: int, reason: str, decision: Decision | None = None) -> list[Settled]:
        self.epoch += 1
        self.fallen = max(self.published)
        if reason != PARENT_REJECTED:
            self.without_gain += 1
        settled: list[Settled] = []
        for each in [version, *self._undecided_descendants(version)]:
            self.states[each] = "rejected"
            judged = each == version
            if decision is None or not judged:
                self.reporting.discard(each)
            self.decisions[each] = decision if decision and judged else self._fall(each, reason if judged else "")
            discarded = self.decisions[each].reason == PARENT_REJECTED
            settled.append(Settled(self.published[each].window, each, rejected=True, discarded=discarded))
        return settled

    def _fall(self, version: int, reason: str) -> Decision:
        return Decision(
            verdict="reject",
            candidate=PolicyRef(version=version),
            champion=self.champion,
            reason=reason or PARENT_REJECTED,
            probes=0,
            certified=False,
        )

    def _undecided_descendants(self, version: int) -> list[int]:
        lost = {version}
        for later in self.undecided:
            if self.published[later].parent.version in lost:
                lost.add(later)
        return sorted(lost - {version})
