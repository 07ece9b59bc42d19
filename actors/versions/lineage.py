"""Which version stands in which slot, as a plain state machine: no Ray, no waiting, no clock.

    published --all replicas proved it--> proven --gate--> promoted | rejected | held
        └──────── a replica could not prove it ────────────────┘
    promoted --watch, or by hand--> rolled_back            any that was proven --by hand--> promoted

Only the gate and people move `serve`. `explore` is the newest proven version that was not rejected, so a slow verdict
never starves learning. A rejection takes every undecided descendant with it, and training goes on from the champion;
so does a rollback, which also takes the held ones.

While serving is held nothing is activated. Verdicts go on, and what they would have activated waits: at the release
the version shown to be better takes effect, else the one promoted last, unless it was rolled back meanwhile.
"""

from dataclasses import dataclass, field
from typing import Literal, cast

from core.config import BackoffConfig
from core.errors import VersionError
from core.messages import BASE, Decision, PolicyRef, Published, Slots
from core.store.facts import DueRollback, Hold, LineageFact, Waiting

State = Literal["published", "proven", "promoted", "rejected", "held", "rolled_back"]

PARENT_REJECTED = "its parent was rejected"
PARENT_ROLLED_BACK = "its parent was rolled back"
FELL = (PARENT_REJECTED, PARENT_ROLLED_BACK)
"""Reasons of versions without a verdict of their own."""
NOT_PROVEN = "not proven: "


@dataclass(frozen=True)
class WindowVerdict:
    """A window whose candidate is decided, for the buffer."""

    window: int
    version: int
    rejected: bool
    discarded: bool = False
    """It fell with its parent, without a verdict of its own."""


@dataclass
class Lineage:
    base: Published | None = None
    published: dict[int, Published] = field(default_factory=dict[int, Published])
    states: dict[int, State] = field(default_factory=dict[int, State])
    decisions: dict[int, Decision] = field(default_factory=dict[int, Decision])
    reporting: set[int] = field(default_factory=set[int])
    serve: PolicyRef = BASE
    champion: PolicyRef = BASE
    epoch: int = 0
    next_version: int = 1
    fallen: int = 0
    """The newest version published when a rejection last sent training back to the champion."""
    without_gain: int = 0
    """Decided candidates in a row that did not become the champion."""
    rejections: int = 0
    """In a row, since the last promotion."""
    activated: set[int] = field(default_factory=set[int])
    """Versions that have answered users: a promotion made during a hold is none of them yet."""
    champions: list[int] = field(default_factory=list[int])
    """Earlier champions, oldest first, to go back to."""
    withdrawn: set[int] = field(default_factory=set[int])
    """Versions whose samples are quarantined: nothing is explored with them, or trained from them, again."""
    by_hand: set[int] = field(default_factory=set[int])
    """Promoted by a person, whatever the gate said."""
    held: Hold | None = None
    waiting: Waiting | None = None
    due: DueRollback | None = None

    # --- what others ask ---

    @property
    def explore(self) -> PolicyRef:
        usable = [v for v, s in self.states.items() if s in ("proven", "promoted", "held") and v not in self.withdrawn]
        return PolicyRef(version=max(usable)) if usable and max(usable) > self.champion.version else self.champion

    @property
    def parent(self) -> Published:
        """What the trainer continues from: the newest version, or the champion when a rejection came after it."""
        usable = [v for v in self.states if v not in self.withdrawn and v > self.fallen]
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
        return sum(decision.reason not in FELL for decision in self.decisions.values())

    def standing(self, version: int) -> str:
        """What a decided version's verdict rests on."""
        return "by hand" if version in self.by_hand else self.decisions[version].standing

    def slots(self) -> Slots:
        needed = {self.serve.version, self.champion.version, self.explore.version, *self.undecided, *self.reporting}
        return Slots(
            epoch=self.epoch,
            serve=self.serve,
            explore=self.explore,
            champion=self.champion,
            candidate=self.candidate,
            promoted=(BASE, *(self.published[v].ref for v in sorted(needed) if self._answers(v))),
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

    def propose(self, published: Published) -> list[WindowVerdict]:
        """Take a new version in; one whose parent was rejected meanwhile is rejected with it."""
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
        """All healthy replicas hold it. Says whether that was news."""
        if self.states.get(version) != "published":
            return False
        self.states[version] = "proven"
        self.epoch += 1
        return True

    def failed(self, version: int, why: str) -> list[WindowVerdict]:
        """A replica could not prove it: it will never answer anybody."""
        if self.states.get(version) not in ("published", "proven"):
            return []
        return self._reject(version, f"{NOT_PROVEN}{why}")

    def decide(self, decision: Decision) -> list[WindowVerdict]:
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
            self.rejections = 0
            self._activate(version, crowned=decision.new_champion)
        return [WindowVerdict(self.published[version].window, version, rejected=False)]

    def crown(self, version: int) -> None:
        """A promoted version is the champion from now on. Raises: VersionError for one that was not promoted, or that
        was withdrawn and promoted by hand: training goes on from the champion."""
        self._expect_promoted(version, "is crowned")
        if version in self.withdrawn:
            raise VersionError(
                f"v{version} was rejected or rolled back; promoted by hand it serves, and is no champion"
            )
        self.without_gain = 0
        self._activate(version, crowned=True, serve=False)
        self.epoch += 1

    # --- what people and the watch do ---

    def promote_by_hand(self, version: int, reason: str) -> list[WindowVerdict]:
        """Serve this version whatever the gate said; never the champion. Raises: VersionError for one that was not
        proven, and while serving is held."""
        if self.held is not None:
            raise VersionError(f"serving is held by {self.held.by} ({self.held.why}); `ratchet hold --off` comes first")
        if version == 0:
            raise VersionError("the base needs no promotion; `ratchet rollback` returns to what was good")
        state = self.states.get(version)
        if state is None or state == "published" or self._was_not_proven(version):
            raise VersionError(f"v{version} is {state or 'unknown'}; only what replicas have proven can be promoted")
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
        """This version is not served any more: users get the champion, or the one before where it was that itself.
        Undecided and held descendants go with it. Allowed during a hold. Raises: VersionError when not promoted."""
        self._expect_promoted(version, "is rolled back")
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
            if self.waiting is not None:  # what it was shown to be better than is no reference any more
                self.waiting = self.waiting.model_copy(update={"crowned": False})
        if self.serve.version == version:
            self.serve = self.champion
            self.activated |= {self.serve.version} - {0}
        settled = [WindowVerdict(self.published[version].window, version, rejected=True)]
        for each in self._descendants(version, ("published", "proven", "held")):
            settled.append(self._fall_with_parent(each, PARENT_ROLLED_BACK))
        return settled

    def hold(self, held: Hold) -> None:
        """From now on nothing is activated. Raises: VersionError when it is held already."""
        if self.held is not None:
            raise VersionError(f"serving is held already, by {self.held.by} ({self.held.why})")
        self.held = held

    def release(self) -> tuple[list[WindowVerdict], Waiting | None, DueRollback | None]:
        """End the hold: a rollback that is due first, then what waited. Returns what that settled, and what took
        effect. Raises: VersionError when nothing is held."""
        if self.held is None:
            raise VersionError("serving is not held")
        self.held, due, self.due = None, self.due, None
        settled = self.roll_back(due.version) if due is not None else []
        waiting, self.waiting = self.waiting, None
        if waiting is not None:
            self._activate(waiting.version, waiting.crowned)
        self.epoch += 1
        return settled, waiting, due

    def learning_rate_scale(self, backoff: BackoffConfig) -> float:
        """What the learning rate of the next version is multiplied by."""
        return backoff.factor ** (self.rejections // backoff.after)

    def reported(self, version: int) -> None:
        """Nobody measures this version any more; replicas may unload it."""
        if version in self.reporting:
            self.reporting.remove(version)
            self.epoch += 1

    # --- to and from disk ---

    def snapshot(self) -> LineageFact:
        return LineageFact(
            states=dict(self.states),
            serve=self.serve.version,
            champion=self.champion.version,
            epoch=self.epoch,
            next_version=self.next_version,
            fallen=self.fallen,
            without_gain=self.without_gain,
            rejections=self.rejections,
            activated=tuple(sorted(self.activated)),
            champions=tuple(self.champions),
            withdrawn=tuple(sorted(self.withdrawn)),
            by_hand=tuple(sorted(self.by_hand)),
            held=self.held,
            waiting=self.waiting,
            due=self.due,
        )

    def restore(self, kept: LineageFact, published: list[Published], decisions: list[Decision]) -> None:
        self.published = {p.ref.version: p for p in published}
        self.decisions = {d.candidate.version: d for d in decisions}
        self.states = {v: cast(State, state) for v, state in kept.states.items() if v in self.published}
        for version, state in self.states.items():
            if state == "proven":
                self.states[version] = "published"  # every replica proves it anew
        self.serve, self.champion = PolicyRef(version=kept.serve), PolicyRef(version=kept.champion)
        self.epoch = kept.epoch + 1
        self.next_version = max([kept.next_version, *(v + 1 for v in self.published)])
        self.fallen, self.without_gain, self.rejections = kept.fallen, kept.without_gain, kept.rejections
        promoted, rejected = self._in_state("promoted"), self._in_state("rejected")
        first = [0] if self.champion != BASE else []
        self.activated = set(promoted if kept.activated is None else kept.activated)
        self.champions = list(first if kept.champions is None else kept.champions)
        self.withdrawn = set(rejected if kept.withdrawn is None else kept.withdrawn)
        self.by_hand = set(kept.by_hand)
        self.held, self.waiting, self.due = kept.held, kept.waiting, kept.due

    # --- inside ---

    def _in_state(self, wanted: State) -> list[int]:
        return [version for version, state in self.states.items() if state == wanted]

    def _activate(self, version: int, crowned: bool, serve: bool = True) -> None:
        """Users get this version, now or when the hold ends; one shown to be better is not replaced by a mere equal."""
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

    def _answers(self, version: int) -> bool:
        return self.states.get(version) == "promoted" and version in self.activated

    def _expect_promoted(self, version: int, what: str) -> None:
        if self.states.get(version) != "promoted":
            raise VersionError(f"v{version} is {self.states.get(version, 'unknown')}; only a promoted version {what}")

    def _was_not_proven(self, version: int) -> bool:
        """Also one that fell with its parent before any replica had it is tried: replicas prove before they serve."""
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
        settled = [WindowVerdict(self.published[version].window, version, rejected=True)]
        for each in self._descendants(version, ("published", "proven")):
            settled.append(self._fall_with_parent(each, PARENT_REJECTED))
        return settled

    def _fall_with_parent(self, version: int, reason: str) -> WindowVerdict:
        """A held version had its verdict, which stands; only its place is lost."""
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
