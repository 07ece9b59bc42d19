"""What is known of the versions: their states, the slots, and how both are kept on disk. No decision is made here."""

from dataclasses import dataclass, field
from typing import Literal, cast

from core.errors import VersionError
from core.messages import BASE, Decision, PolicyRef, Published, Slots
from core.store.facts import DueRollback, Hold, LineageFact, Waiting

State = Literal["published", "proven", "promoted", "rejected", "held", "rolled_back"]

PARENT_REJECTED = "its parent was rejected"
PARENT_ROLLED_BACK = "its parent was rolled back"
FELL = (PARENT_REJECTED, PARENT_ROLLED_BACK)
"""Reasons for rejecting a version because of its parent, without a verdict of its own."""
NOT_PROVEN = "not proven: "


@dataclass
class LineageState:
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
    """The newest version at the last rejection or rollback, after which training went back to the champion."""
    without_gain: int = 0
    """Decided candidates in a row that did not become champion."""
    rejections: int = 0
    """Rejections and rollbacks in a row, since the last promotion."""
    activated: set[int] = field(default_factory=set[int])
    """Versions that have answered users. A version promoted during a hold is not yet among them."""
    champions: list[int] = field(default_factory=list[int])
    """Earlier champions, oldest first, for rollbacks."""
    withdrawn: set[int] = field(default_factory=set[int])
    """Versions whose samples are quarantined. They are never explored with or trained from again."""
    by_hand: set[int] = field(default_factory=set[int])
    """Versions promoted by a person, regardless of the gate."""
    held: Hold | None = None
    waiting: Waiting | None = None
    due: DueRollback | None = None

    # --- queries ---

    @property
    def explore(self) -> PolicyRef:
        usable = [v for v, s in self.states.items() if s in ("proven", "promoted", "held") and v not in self.withdrawn]
        return PolicyRef(version=max(usable)) if usable and max(usable) > self.champion.version else self.champion

    @property
    def parent(self) -> Published:
        """The version to continue training from: the newest, or the champion if a rejection came later."""
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
        """The number of candidates with a verdict of their own."""
        return sum(decision.reason not in FELL for decision in self.decisions.values())

    def standing(self, version: int) -> str:
        """The evidence behind a decided version's verdict: `by hand`, or the standing of its decision."""
        return "by hand" if version in self.by_hand else self.decisions[version].standing

    @property
    def best_held(self) -> int | None:
        """The held version with the greatest lead over today's champion, the newest of equals. It stays loaded, so that
        an admin can try it."""
        held = [each for each in self.decisions.values() if self.states.get(each.candidate.version) == "held"]
        rivals = [each for each in held if each.champion == self.champion]
        leads = [(each.candidate_rate - each.champion_rate, each.candidate.version) for each in rivals]
        return max(leads)[1] if leads else None

    def slots(self) -> Slots:
        needed = {self.serve.version, self.champion.version, self.explore.version, *self.undecided, *self.reporting}
        if self.best_held is not None:
            needed.add(self.best_held)
        return Slots(
            epoch=self.epoch,
            serve=self.serve,
            explore=self.explore,
            champion=self.champion,
            candidate=self.candidate,
            promoted=(BASE, *(self.published[v].ref for v in sorted(needed) if self._answers(v))),
            trial=tuple(self.published[v].ref for v in sorted(needed) if self._on_trial(v)),
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
                self.states[version] = "published"  # every replica proves it again
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

    def _answers(self, version: int) -> bool:
        return self.states.get(version) == "promoted" and version in self.activated

    def _on_trial(self, version: int) -> bool:
        return self.states.get(version) in ("proven", "held")
