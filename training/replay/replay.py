"""The replay: holds delivered prompts and makes them into windows of new and replayed examples for the trainer.

`add` accepts deliveries in any order and any number of times. Only `draw` checks staleness. The prompts of a rejected
version can be withdrawn at any time.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from core.messages import Example, Outcome, Window
from training.replay.interval_set import IntervalSet

Added = Literal["accepted", "duplicate", "filtered", "failed", "stale"]


@dataclass(frozen=True)
class Explored:
    """A prompt that was delivered without failure. `version` is the oldest policy version that sampled for it."""

    place: int
    version: int
    group_ids: tuple[str, ...]
    examples: tuple[Example, ...]
    prompt_id: str = ""
    revision: int = 0
    """Number of people's votes with which the prompt was settled."""
    measured: Mapping[str, float] = field(default_factory=dict[str, float])
    """Numbers for the method's tuner."""


@dataclass(frozen=True)
class Withdrawn:
    """The waiting prompts that a quarantine removed. Pass len(places) to Backpressure.quarantine."""

    places: tuple[int, ...] = ()
    group_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReplayCounts:
    """A snapshot for status and metrics. All counts except the waiting ones only grow."""

    prompts_waiting: int
    """Prompts delivered and not yet drawn."""
    examples_waiting: int
    windows_drawn: int
    duplicates: int
    stale_examples: int
    """Examples dropped when their window was drawn, because their policy version was too old."""
    quarantined_prompts: int


@dataclass
class Replay:
    """Windows of `groups_per_window` new prompts each, in order of delivery, numbered 1, 2, 3 ...

    Laws: a prompt (its place in the source) is new in at most one window. The new part of a window has exactly
    groups_per_window prompts, with or without examples. Quarantined examples are never drawn again.
    """

    groups_per_window: int
    replay_windows: int
    """A window takes the examples of this many of the newest windows, including itself."""
    max_lag: int
    """How many published versions an example may be behind the newest version when its window is drawn."""
    written_share: float = 1.0
    """Largest part of a window's examples that people may have written. The newest are kept."""
    _waiting: dict[int, Explored] = field(default_factory=dict[int, Explored])
    _examples_waiting: int = 0
    _drawn: dict[int, tuple[Explored, ...]] = field(default_factory=dict[int, tuple[Explored, ...]])
    _windows_drawn: int = 0
    _oldest: dict[int, int] = field(default_factory=dict[int, int])
    """Held window -> the oldest version whose examples were fresh when the window was drawn."""
    _places: IntervalSet = field(default_factory=IntervalSet)
    _versions: set[int] = field(default_factory=set[int])
    _bad_versions: set[int] = field(default_factory=set[int])
    _bad_windows: set[int] = field(default_factory=set[int])
    _group_ids: set[str] = field(default_factory=set[str])
    _duplicates: int = 0
    _stale: int = 0
    _quarantined: int = 0

    def add(self, outcome: Outcome) -> Added:
        """Add a delivered prompt. It is a duplicate if its place in the source or one of its group ids is known.

        Returns accepted or filtered: the prompt counts toward the next window, with or without examples. failed: the
        place is free again. duplicate: nothing changed. stale: a quarantined version sampled it, so the place is free
        again; call `accept` and `quarantine(1)` of the Backpressure."""
        return "failed" if outcome.failure is not None else self.take(_explored(outcome))

    def take(self, explored: Explored) -> Added:
        """As `add`, for a prompt that was delivered without failure."""
        if explored.place in self._places or not self._group_ids.isdisjoint(explored.group_ids):
            self._duplicates += 1
            return "duplicate"
        if explored.version in self._bad_versions:
            self._quarantined += 1
            return "stale"
        self._hold(explored)
        self._waiting[explored.place] = explored
        self._examples_waiting += len(explored.examples)
        return "accepted" if explored.examples else "filtered"

    def publish(self, version: int) -> None:
        """Register a published version. Lag is counted in published versions that were not rejected."""
        self._versions.add(version)

    def lag(self, version: int, newest: int) -> int:
        """Number of published versions that `version` is behind `newest`; 0 if it is as new or newer."""
        return sum(version < v <= newest for v in (self._versions | {newest}) - self._bad_versions)

    def oldest_fresh(self, newest: int) -> int:
        """The oldest version that is no more than max_lag behind `newest`."""
        good = sorted(v for v in (self._versions | {newest}) - self._bad_versions if v <= newest)
        return good[-self.max_lag - 1] if len(good) > self.max_lag else 0

    def ready(self) -> bool:
        return len(self._waiting) >= self.groups_per_window

    def draw(self, newest: int) -> Window | None:
        """The next window, or None if too few new prompts wait. `newest`: the version in the explore slot.

        Examples of the new part that are more than max_lag versions behind `newest` are dropped and counted. Their
        prompts still count, so a draw never waits for fresher ones. Of examples with equal tokens, the newest is kept.
        Examples of the newest window come first."""
        if not self.ready():
            return None
        places = list(self._waiting)[: self.groups_per_window]
        oldest = self.oldest_fresh(newest)
        taken = [self._waiting.pop(place) for place in places]
        self._examples_waiting -= _examples_of(taken)
        new = tuple(self._fresh(explored, oldest) for explored in taken)
        self._windows_drawn += 1
        self._drawn[self._windows_drawn] = new
        self._oldest[self._windows_drawn] = oldest
        window = self._window(self._windows_drawn)
        self._forget()
        return window

    def again(self, number: int) -> Window | None:
        """A window drawn before, for a trainer that died while training on it. None if not drawn or no longer held."""
        return self._window(number) if number in self._drawn else None

    def drawn_places(self, number: int) -> tuple[int, ...]:
        """The places that are new in that window. Store them with it, for `restore`. Raises: LookupError."""
        if number not in self._drawn:
            raise LookupError(f"window {number} is not held; expected one of {sorted(self._drawn)}; draw it first")
        return tuple(explored.place for explored in self._drawn[number])

    def replace(self, outcome: Outcome) -> bool:
        """Replace the examples of a held prompt that was settled again with late votes. Windows drawn from now on use
        the new examples. Examples that were too old when their window was drawn stay out.

        Returns False, and changes nothing, if the place is not held (withdrawn, or too old for replay) or was already
        settled with as many votes."""
        for place, old in self._waiting.items():
            if place == outcome.place and old.revision < outcome.revision:
                self._waiting[place] = new = _resettled(old, _explored(outcome))
                self._group_ids.update(new.group_ids)
                self._examples_waiting += len(new.examples) - len(old.examples)
                return True
        for number, window in self._drawn.items():
            for index, old in enumerate(window):
                if old.place == outcome.place and old.revision < outcome.revision:
                    new = self._fresh(_resettled(old, _explored(outcome)), self._oldest[number])
                    self._group_ids.update(new.group_ids)
                    self._drawn[number] = (*window[:index], new, *window[index + 1 :])
                    return True
        return False

    def new_in(self, number: int) -> tuple[Explored, ...]:
        """The prompts that are new in a held window."""
        return self._drawn[number]

    def held(self) -> list[Explored]:
        """All prompts whose examples a window may still use: drawn ones, oldest first, then waiting ones."""
        return [*(e for number in sorted(self._drawn) for e in self._drawn[number]), *self._waiting.values()]

    @property
    def windows_drawn(self) -> int:
        return self._windows_drawn

    def is_drawn(self, number: int) -> bool:
        """Whether `again` can return this window."""
        return number in self._drawn

    def waiting_places(self) -> tuple[int, ...]:
        """Places of the waiting prompts, in order of delivery."""
        return tuple(self._waiting)

    def quarantine(self, version: int) -> Withdrawn:
        """A version was rejected: none of its samples is drawn or replayed again. Returns the removed waiting prompts,
        which must be collected again. Idempotent. Raises: ValueError for version 0, the base model."""
        if version == 0:
            raise ValueError("version 0 is the base model and cannot be quarantined; pass a version from 1 on")
        self._bad_versions.add(version)
        bad = [explored for explored in self._waiting.values() if explored.version == version]
        self._examples_waiting -= _examples_of(bad)
        for explored in bad:
            del self._waiting[explored.place]
            self._places.discard(explored.place)
            self._group_ids.difference_update(explored.group_ids)
        self._quarantined += len(bad)
        return Withdrawn(tuple(e.place for e in bad), tuple(g for e in bad for g in e.group_ids))

    def quarantine_window(self, number: int) -> None:
        """Stop replaying a window. An older window is replayed in its place."""
        self._bad_windows.add(number)

    def counts(self) -> ReplayCounts:
        return ReplayCounts(
            prompts_waiting=len(self._waiting),
            examples_waiting=self._examples_waiting,
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
        oldest_at_draw: Mapping[int, int] | None = None,
        used: IntervalSet | None = None,
    ) -> None:
        """Fill an empty replay from the store after a restart. `outcomes`: in order of delivery. Outcomes that no draw
        needs again may be missing; `used` then has their places. `drawn`: window number -> `drawn_places`, at least of
        the newest window. `versions`: the published versions.

        The same stale examples are dropped as before the restart: those below `oldest_at_draw` (window number ->
        `oldest_fresh` at its draw) or, for windows without it, `newest_at_draw` (window number -> `newest` at its
        draw). Raises: ValueError if the replay is not empty."""
        if self._places or self._windows_drawn:
            raise ValueError(f"restore needs an empty replay, this one has {len(self._places)} places; make a new one")
        self._versions, self._bad_versions = set(versions), set(quarantined)
        self._bad_windows = set(quarantined_windows)
        self._places = IntervalSet() if used is None else used
        held: dict[int, Explored] = {}
        for explored in (_explored(outcome) for outcome in outcomes if outcome.failure is None):
            if explored.place in held and held[explored.place].version in self._bad_versions:
                del held[explored.place]  # withdrawn and collected again: keep the position of the second delivery
            held[explored.place] = explored
        oldest = {number: self.oldest_fresh(newest) for number, newest in (newest_at_draw or {}).items()}
        oldest |= oldest_at_draw or {}
        for number in sorted(drawn):
            new = tuple(held.pop(place) for place in drawn[number] if place in held)
            for explored in new:
                self._hold(explored)
            self._oldest[number] = oldest.get(number, 0)
            self._drawn[number] = tuple(self._fresh(explored, self._oldest[number]) for explored in new)
        self._windows_drawn = max(drawn, default=0)
        self._waiting = {place: e for place, e in held.items() if e.version not in self._bad_versions}
        self._examples_waiting = _examples_of(self._waiting.values())
        for explored in self._waiting.values():
            self._hold(explored)
        self._forget()

    def recount(self, stale_examples: int, quarantined_prompts: int) -> None:
        """Set the counts that only grow. Call it after `restore`."""
        self._stale, self._quarantined = stale_examples, quarantined_prompts

    def _hold(self, explored: Explored) -> None:
        self._places.add(explored.place)
        self._group_ids.update(explored.group_ids)

    def _fresh(self, explored: Explored, oldest: int) -> Explored:
        fresh = tuple(e for e in explored.examples if e.fixed or e.policy.version >= oldest)
        self._stale += len(explored.examples) - len(fresh)
        return replace(explored, examples=fresh)

    def _window(self, number: int) -> Window:
        kept: dict[object, Example] = {}
        for replayed in self._replayed(number, self.replay_windows):
            for explored in self._drawn[replayed]:
                for example in explored.examples:
                    if example.policy.version not in self._bad_versions:
                        kept.setdefault(_tokens_of(example), example)
        examples = _within_share(list(kept.values()), self.written_share)
        return Window(
            number=number,
            group_ids=tuple(g for explored in self._drawn[number] for g in explored.group_ids),
            examples=tuple(examples),
        )

    def _replayed(self, number: int, windows: int) -> list[int]:
        good = [n for n in sorted(self._drawn, reverse=True) if n <= number and n not in self._bad_windows]
        return good[:windows]

    def _forget(self) -> None:
        """Drop windows that no draw can need again, even if all windows without a verdict are quarantined."""
        keep = {*self._replayed(self._windows_drawn, self.replay_windows + self.max_lag + 1), self._windows_drawn}
        for number in self._drawn.keys() - keep:
            for explored in self._drawn.pop(number):
                self._group_ids.difference_update(explored.group_ids)
            del self._oldest[number]


def _within_share(examples: Sequence[Example], written_share: float) -> list[Example]:
    written = sum(example.by == "person" for example in examples)
    if written_share < 1:
        own = len(examples) - written
        written = min(written, int(written_share / (1 - written_share) * own + 1e-9))
    kept: list[Example] = []
    for example in examples:
        written -= example.by == "person"
        if example.by == "sample" or written >= 0:
            kept.append(example)
    return kept


def _resettled(old: Explored, new: Explored) -> Explored:
    group_ids = tuple(dict.fromkeys((*old.group_ids, *new.group_ids)))
    return replace(old, group_ids=group_ids, examples=new.examples, revision=new.revision)


def _examples_of(explored: Iterable[Explored]) -> int:
    return sum(len(each.examples) for each in explored)


def _explored(outcome: Outcome) -> Explored:
    """Of examples with the same id in one delivery, one is kept."""
    return Explored(
        place=outcome.place,
        version=outcome.version,
        group_ids=outcome.named_ids,
        examples=tuple({example.id: example for example in outcome.examples}.values()),
        prompt_id=outcome.prompt_id,
        revision=outcome.revision,
        measured=outcome.measured,
    )


def _tokens_of(example: Example) -> object:
    """A key that is equal for examples that teach the same. Those with advantages or columns are never merged: each has
    its own reward."""
    if any(row.columns or any(span.advantage for span in row.spans) for row in example.rows):
        return example.id
    return (example.adapter, *((row.token_ids, row.spans) for row in example.rows))
