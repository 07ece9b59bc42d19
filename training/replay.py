"""What the trainer draws from: explored prompts as they are delivered, made into windows of new prompts and replay.

Pure bookkeeping, no torch and no ray. `add` takes deliveries in any order and any number of times; `draw` is the one
place where staleness is checked; what a version made that was rejected can be withdrawn at any time.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from core.messages import Example, Imitate, Outcome, Prefer, Reinforce, Window

Added = Literal["accepted", "duplicate", "filtered", "failed", "stale"]


@dataclass(frozen=True)
class Explored:
    """One prompt that was delivered without failure; `version` is the oldest policy version that sampled for it."""

    place: int
    version: int
    group_ids: tuple[str, ...]
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Withdrawn:
    """What a quarantine took out of the waiting prompts. Pass len(places) to Throttle.quarantine."""

    places: tuple[int, ...] = ()
    group_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReplayCounts:
    """A snapshot for status and metrics. All but the waiting ones only grow."""

    prompts_waiting: int
    """Delivered and not yet drawn."""
    examples_waiting: int
    windows_drawn: int
    duplicates: int
    stale_examples: int
    """Dropped at the draw of the window they were new in, because their policy was too old."""
    quarantined_prompts: int


@dataclass
class Replay:
    """Windows of `groups_per_window` new prompts each, in order of delivery, numbered 1, 2, 3 ...

    Laws: a prompt (its place in the source) is new in at most one window; a window's new part holds exactly
    groups_per_window prompts, with or without examples; nothing quarantined is ever drawn again.
    """

    groups_per_window: int
    replay_windows: int
    """A window's examples are those of this many of the newest windows, the new one included."""
    max_lag: int
    """Published versions that an example may be behind the newest one when its window is drawn."""
    _waiting: dict[int, Explored] = field(default_factory=dict[int, Explored])
    _drawn: dict[int, tuple[Explored, ...]] = field(default_factory=dict[int, tuple[Explored, ...]])
    _windows_drawn: int = 0
    _places: set[int] = field(default_factory=set[int])
    _versions: set[int] = field(default_factory=set[int])
    _bad_versions: set[int] = field(default_factory=set[int])
    _bad_windows: set[int] = field(default_factory=set[int])
    _group_ids: set[str] = field(default_factory=set[str])
    _duplicates: int = 0
    _stale: int = 0
    _quarantined: int = 0

    def add(self, outcome: Outcome) -> Added:
        """Hold a delivered prompt, unless it is held already: by its place in the source or by a group's id.

        accepted, filtered: it counts towards the next window, with or without examples. failed: the place goes back.
        duplicate: nothing changed. stale: a quarantined version made it, so its place goes back; tell the Throttle
        `accept` and `quarantine(1)`."""
        if outcome.failure is not None:
            return "failed"
        explored = _explored(outcome)
        if outcome.place in self._places or not self._group_ids.isdisjoint(explored.group_ids):
            self._duplicates += 1
            return "duplicate"
        if explored.version in self._bad_versions:
            self._quarantined += 1
            return "stale"
        self._hold(explored)
        self._waiting[explored.place] = explored
        return "accepted" if explored.examples else "filtered"

    def publish(self, version: int) -> None:
        """Staleness is counted in published versions that were not withdrawn; this is one more."""
        self._versions.add(version)

    def lag(self, version: int, newest: int) -> int:
        """Published versions that `version` is behind `newest`; 0 for one that is as new or newer."""
        return sum(version < v <= newest for v in (self._versions | {newest}) - self._bad_versions)

    def ready(self) -> bool:
        return len(self._waiting) >= self.groups_per_window

    def draw(self, newest: int) -> Window | None:
        """The next window, or None while its new part is not full. `newest`: the version in the explore slot.

        An example of the new part whose policy is more than max_lag versions behind `newest` is dropped and counted;
        its prompt counts all the same, so that a draw never waits for better ones. An example that stands twice in
        the window, by its tokens, is kept once, the newest. Examples come newest window first."""
        if not self.ready():
            return None
        places = list(self._waiting)[: self.groups_per_window]
        new = tuple(self._fresh(self._waiting.pop(place), newest) for place in places)
        self._windows_drawn += 1
        self._drawn[self._windows_drawn] = new
        window = self._window(self._windows_drawn)
        self._forget()
        return window

    def again(self, number: int) -> Window | None:
        """A window drawn before, for a trainer that died over it; None when it was not drawn or is forgotten."""
        return self._window(number) if number in self._drawn else None

    def drawn_places(self, number: int) -> tuple[int, ...]:
        """The places new in that window, to be stored with it: `restore` wants them. Raises: LookupError."""
        if number not in self._drawn:
            raise LookupError(f"window {number} is not held (held: {sorted(self._drawn)})")
        return tuple(explored.place for explored in self._drawn[number])

    def replace(self, group_id: str, examples: Sequence[Example]) -> bool:
        """A group was settled again, with a late vote: these are its examples now, for every window drawn from here.

        False when the group is not held (withdrawn, or older than any replay): nothing to do then."""
        for place, explored in self._waiting.items():
            if group_id in explored.group_ids:
                self._waiting[place] = _resettled(explored, group_id, examples)
                return True
        for number, window in self._drawn.items():
            if any(group_id in explored.group_ids for explored in window):
                self._drawn[number] = tuple(
                    _resettled(e, group_id, examples) if group_id in e.group_ids else e for e in window
                )
                return True
        return False

    def quarantine(self, version: int) -> Withdrawn:
        """That version was rejected: nothing that it sampled is drawn or replayed again. Returns what was waiting,
        to be collected anew. Calling it again is harmless; version 0, the base, cannot be rejected."""
        if version == 0:
            raise ValueError("version 0 is the base model and cannot be quarantined")
        self._bad_versions.add(version)
        bad = [explored for explored in self._waiting.values() if explored.version == version]
        for explored in bad:
            del self._waiting[explored.place]
            self._places.discard(explored.place)
            self._group_ids.difference_update(explored.group_ids)
        self._quarantined += len(bad)
        return Withdrawn(tuple(e.place for e in bad), tuple(g for e in bad for g in e.group_ids))

    def quarantine_window(self, number: int) -> None:
        """That window is replayed no more, and an older one takes its part."""
        self._bad_windows.add(number)

    def counts(self) -> ReplayCounts:
        return ReplayCounts(
            prompts_waiting=len(self._waiting),
            examples_waiting=sum(len(explored.examples) for explored in self._waiting.values()),
            windows_drawn=self._windows_drawn,
            duplicates=self._duplicates,
            stale_examples=self._stale,
            quarantined_prompts=self._quarantined,
        )

    def restore(
        self,
        outcomes: Iterable[Outcome],
        drawn: Mapping[int, Sequence[int]],
        quarantined: Iterable[int] = (),
        quarantined_windows: Iterable[int] = (),
        versions: Iterable[int] = (),
        newest_at_draw: Mapping[int, int] | None = None,
    ) -> None:
        """After a restart, on an empty replay: what the store kept. `outcomes` in order of delivery (a late vote's new
        outcome of a place replaces the older one), `drawn`: window number -> `drawn_places`, `versions`: published.

        With `newest_at_draw` (window number -> the `newest` of its draw) stale examples are dropped as they were."""
        if self._places or self._windows_drawn:
            raise ValueError("restore needs an empty replay; make a new one")
        self._versions, self._bad_versions = set(versions), set(quarantined)
        self._bad_windows = set(quarantined_windows)
        held: dict[int, Explored] = {}
        for outcome in outcomes:
            if outcome.failure is None:
                held[outcome.place] = _explored(outcome)
        newest_at_draw = newest_at_draw or {}
        for number in sorted(drawn):
            new = tuple(held.pop(place) for place in drawn[number] if place in held)
            for explored in new:
                self._hold(explored)
            if number in newest_at_draw:
                new = tuple(self._fresh(explored, newest_at_draw[number]) for explored in new)
            self._drawn[number] = new
        self._windows_drawn = max(drawn, default=0)
        self._waiting = {place: e for place, e in held.items() if e.version not in self._bad_versions}
        for explored in self._waiting.values():
            self._hold(explored)
        self._forget()

    def _hold(self, explored: Explored) -> None:
        self._places.add(explored.place)
        self._group_ids.update(explored.group_ids)

    def _fresh(self, explored: Explored, newest: int) -> Explored:
        fresh = tuple(e for e in explored.examples if self.lag(e.policy.version, newest) <= self.max_lag)
        self._stale += len(explored.examples) - len(fresh)
        return replace(explored, examples=fresh)

    def _window(self, number: int) -> Window:
        kept: dict[object, Example] = {}
        for replayed in self._replayed(number, self.replay_windows):
            for explored in self._drawn[replayed]:
                for example in explored.examples:
                    if example.policy.version not in self._bad_versions:
                        kept.setdefault(_tokens_of(example), example)
        examples = list(kept.values())
        return Window(
            number=number,
            group_ids=tuple(g for explored in self._drawn[number] for g in explored.group_ids),
            imitate=tuple(e for e in examples if isinstance(e, Imitate)),
            prefer=tuple(e for e in examples if isinstance(e, Prefer)),
            reinforce=tuple(e for e in examples if isinstance(e, Reinforce)),
        )

    def _replayed(self, number: int, windows: int) -> list[int]:
        good = [n for n in sorted(self._drawn, reverse=True) if n <= number and n not in self._bad_windows]
        return good[:windows]

    def _forget(self) -> None:
        """Windows that no draw can need again, even when all those still unweighed are quarantined."""
        keep = self._replayed(self._windows_drawn, self.replay_windows + self.max_lag + 1)
        self._drawn = {n: window for n, window in self._drawn.items() if n in keep or n == self._windows_drawn}


def _explored(outcome: Outcome) -> Explored:
    """An example that stands twice in the delivery, by its id, is kept once."""
    examples = {example.id: example for example in outcome.examples}.values()
    versions = [scored.group.policy.version for scored in outcome.scored if scored.group.candidates]
    versions += [example.policy.version for example in examples]
    groups = [scored.group.id for scored in outcome.scored] + [example.group_id for example in examples]
    return Explored(outcome.place, min(versions, default=0), tuple(dict.fromkeys(groups)), tuple(examples))


def _resettled(explored: Explored, group_id: str, examples: Sequence[Example]) -> Explored:
    others = tuple(e for e in explored.examples if e.group_id != group_id)
    return replace(explored, examples=(*others, *examples))


def _tokens_of(example: Example) -> object:
    """Equal for two examples that would teach the same. Reinforce is never merged: equal samples each had a reward."""
    match example:
        case Imitate():
            return (example.adapter, example.context_ids, example.completion_ids)
        case Prefer():
            return (example.adapter, example.context_ids, example.chosen_ids, example.rejected_ids)
        case _:
            return example.id
