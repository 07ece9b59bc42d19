"""The state of every version, and the version in each slot: a plain state machine without Ray, waiting or clock.

    published --all replicas proved it--> proven --gate--> promoted | rejected | held
        └──────── a replica could not prove it ────────────────┘
    promoted --watch, or by hand--> rolled_back            any proven version --by hand--> promoted

Only the gate and people change `serve`. `explore` is the newest proven version that was not rejected, so a slow verdict
never stops learning. A rejection also rejects every undecided descendant, and training continues from the champion. A
rollback does the same, and also rolls back held descendants.

While serving is held no version is activated. Verdicts continue, and the version that they would have activated waits.
At the release the version that was shown to be better takes effect, else the one promoted last, unless it was rolled
back meanwhile.
"""

from dataclasses import dataclass

from actors.versions.lineage_state import FELL, NOT_PROVEN, PARENT_REJECTED, PARENT_ROLLED_BACK, LineageState, State
from core.config import BackoffConfig
from core.errors import VersionError
from core.messages import Decision, PolicyRef, Published
from core.store.facts import DueRollback, Hold, Waiting

__all__ = ["FELL", "PARENT_REJECTED", "PARENT_ROLLED_BACK", "Lineage", "State", "WindowVerdict"]


@dataclass(frozen=True)
class WindowVerdict:
    """Tells the buffer that the candidate of a window is decided."""

    window: int
    version: int
    rejected: bool
    discarded: bool = False
    """The version was rejected with its parent, without a verdict of its own."""


@dataclass
class Lineage(LineageState):
    """Decides what every event does to the states and slots."""

    # --- events ---

    def take_ref(self) -> PolicyRef:
        """A new version number."""
        ref = PolicyRef(version=self.next_version)
        self.next_version += 1
        return ref

    def propose(self, published: Published) -> list[WindowVerdict]:
        """Add a new version. If its parent was rejected or rolled back meanwhile, it is rejected too."""
        version = published.ref.version
        self.published[version] = published
        self.next_version = max(self.next_version, version + 1)
        self.states[version] = "published"
        self.epoch += 1
        if published.parent.version in self.withdrawn:
            rolled_back = self.states[published.parent.version] == "rolled_back"
            return self._reject(version, PARENT_ROLLED_BACK if rolled_back else PARENT_REJECTED)
        self.reporting.add(version)
        return []

    def proven(self, version: int) -> bool:
        """All healthy replicas have proven the version. Returns whether its state changed."""
        if self.states.get(version) != "published":
            return False
        self.states[version] = "proven"
        self.epoch += 1
        return True

    def failed(self, version: int, why: str) -> list[WindowVerdict]:
        """A replica could not prove the version: reject it."""
        if self.states.get(version) not in ("published", "proven"):
            return []
        return self._reject(version, f"{NOT_PROVEN}{why}")

    def decide(self, decision: Decision) -> list[WindowVerdict]:
        """Apply the gate's decision. Raises: VersionError if the version does not wait for one."""
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
            self.rejections = 0
            self._activate(version, crowned=decision.new_champion)
        return [WindowVerdict(self.published[version].window, version, rejected=False)]

    def crown(self, version: int) -> None:
        """Make a promoted version the champion. Raises: VersionError if it was not promoted; also if it was withdrawn
        and then promoted by hand, because training continues from the champion."""
        self._expect_promoted(version, "can become champion")
        if version in self.withdrawn:
            raise VersionError(
                f"v{version} was rejected or rolled back; promoted by hand it is served, but it cannot become champion"
            )
        self.without_gain = 0
        self._activate(version, crowned=True, serve=False)
        self.epoch += 1

    # --- actions of people and of the watch ---

    def promote_by_hand(self, version: int, reason: str) -> list[WindowVerdict]:
        """Serve this version regardless of the gate; it does not become champion. Raises: VersionError if it was not
        proven, or while serving is held."""
        if self.held is not None:
            raise VersionError(f"serving is held by {self.held.by} ({self.held.why}); run `ratchet hold --off` first")
        if version == 0:
            raise VersionError("the base cannot be promoted; `ratchet rollback` returns to the champion")
        state = self.states.get(version)
        if state is None or state == "published" or self._was_not_proven(version):
            raise VersionError(
                f"v{version} is {state or 'unknown'}; only a version that replicas have proven can be promoted"
            )
        undecided = state == "proven"
        self.states[version] = "promoted"
        self.by_hand.add(version)
        self.rejections = 0
        self.epoch += 1
        self._activate(version, crowned=False)
        if not undecided:
            return []
        self.decisions[version] = Decision(
            verdict="promote",
            candidate=PolicyRef(version=version),
            champion=self.champion,
            reason=reason,
            probes=0,
            certified=False,
            by="hand",
        )
        return [WindowVerdict(self.published[version].window, version, rejected=False)]

    def roll_back(self, version: int) -> list[WindowVerdict]:
        """Stop serving this version. Users get the champion; if this was the champion, the champion before it.
        Undecided and held descendants are withdrawn too. Allowed during a hold. Raises: VersionError if it is not
        promoted."""
        self._expect_promoted(version, "can be rolled back")
        self.epoch += 1
        self.rejections += 1
        self.without_gain += 1
        self.fallen = max(self.published)
        if self.waiting is not None and self.waiting.version == version:
            self.waiting = None
        if self.due is not None and self.due.version == version:
            self.due = None
        self.champions = [v for v in self.champions if v != version]
        self.by_hand.discard(version)
        self._withdraw(version, "rolled_back")
        if self.champion.version == version:
            self.champion = PolicyRef(version=self.champions.pop() if self.champions else 0)
            if self.waiting is not None:  # the champion that it was compared with is gone
                self.waiting = self.waiting.model_copy(update={"crowned": False})
        if self.serve.version == version:
            self.serve = self.champion
            self.activated |= {self.serve.version} - {0}
        verdicts = [WindowVerdict(self.published[version].window, version, rejected=True)]
        for each in self._descendants(version, ("published", "proven", "held")):
            verdicts.append(self._fall_with_parent(each, PARENT_ROLLED_BACK))
        return verdicts

    def hold(self, held: Hold) -> None:
        """Activate no version from now on. Raises: VersionError if serving is already held."""
        if self.held is not None:
            raise VersionError(
                f"serving is already held by {self.held.by} ({self.held.why}); `ratchet hold --off` ends that hold"
            )
        self.held = held

    def release(self) -> tuple[list[WindowVerdict], Waiting | None, DueRollback | None]:
        """End the hold: first carry out a due rollback, then activate the waiting version. Returns the verdicts of the
        rollback, the activated version and the rollback. Raises: VersionError if serving is not held."""
        if self.held is None:
            raise VersionError("serving is not held; `ratchet hold` starts a hold")
        self.held, due, self.due = None, self.due, None
        verdicts = self.roll_back(due.version) if due is not None else []
        waiting, self.waiting = self.waiting, None
        if waiting is not None:
            self._activate(waiting.version, waiting.crowned)
        self.epoch += 1
        return verdicts, waiting, due

    def learning_rate_scale(self, backoff: BackoffConfig) -> float:
        """Factor for the learning rate of the next version."""
        return backoff.factor ** (self.rejections // backoff.after)

    def reported(self, version: int) -> None:
        """The report on this version is finished; replicas may unload it."""
        if version in self.reporting:
            self.reporting.remove(version)
            self.epoch += 1

    # --- inside ---

    def _activate(self, version: int, crowned: bool, serve: bool = True) -> None:
        """Serve this version, now or when the hold ends. A waiting version that was shown to be better is replaced only
        by another such version."""
        if self.held is not None:
            if crowned or self.waiting is None or not self.waiting.crowned:
                self.waiting = Waiting(version=version, crowned=crowned)
            return
        if serve:
            self.serve = PolicyRef(version=version)
            self.activated.add(version)
        if crowned:
            self.champions.append(self.champion.version)
            self.champion = PolicyRef(version=version)
            self.without_gain = 0

    def _expect_promoted(self, version: int, action: str) -> None:
        if self.states.get(version) != "promoted":
            raise VersionError(f"v{version} is {self.states.get(version, 'unknown')}; only a promoted version {action}")

    def _was_not_proven(self, version: int) -> bool:
        """Whether a replica failed to prove it. A version rejected with its parent before any replica had it may be
        promoted: replicas prove it before they serve it."""
        return version in self.decisions and self.decisions[version].reason.startswith(NOT_PROVEN)

    def _withdraw(self, version: int, state: State) -> None:
        self.states[version] = state
        self.withdrawn.add(version)
        self.reporting.discard(version)

    def _reject(self, version: int, reason: str, decision: Decision | None = None) -> list[WindowVerdict]:
        self.epoch += 1
        self.fallen = max(self.published)
        if reason in FELL:
            return [self._fall_with_parent(version, reason)]
        self.without_gain += 1
        self.rejections += 1
        under_report = version in self.reporting and decision is not None
        self._withdraw(version, "rejected")
        if under_report:
            self.reporting.add(version)
        self.decisions[version] = decision or self._fallen(version, reason)
        verdicts = [WindowVerdict(self.published[version].window, version, rejected=True)]
        for each in self._descendants(version, ("published", "proven")):
            verdicts.append(self._fall_with_parent(each, PARENT_REJECTED))
        return verdicts

    def _fall_with_parent(self, version: int, reason: str) -> WindowVerdict:
        """Withdraw a version because of its parent. A held version keeps its own verdict."""
        decided = version in self.decisions
        self._withdraw(version, "rolled_back" if decided else "rejected")
        if not decided:
            self.decisions[version] = self._fallen(version, reason)
        return WindowVerdict(self.published[version].window, version, rejected=True, discarded=not decided)

    def _fallen(self, version: int, reason: str) -> Decision:
        return Decision(
            verdict="reject",
            candidate=PolicyRef(version=version),
            champion=self.champion,
            reason=reason,
            probes=0,
            certified=False,
        )

    def _descendants(self, version: int, states: tuple[State, ...]) -> list[int]:
        lost = {version}
        for later in sorted(self.published):
            if self.published[later].parent.version in lost and self.states[later] in states:
                lost.add(later)
        return sorted(lost - {version})
