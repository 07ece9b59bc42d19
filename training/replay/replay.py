"""What the trainer draws from: explored prompts as they are delivered, made into windows of new prompts and replay.

Pure bookkeeping, no torch and no ray. `add` takes deliveries in any order and any number of times; `draw` is the one
place where staleness is checked; what a version made that was rejected can be withdrawn at any time.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from core.messages import Example, Imitate, Outcome, Prefer, Reinforce, Window
from training.replay.interval_set import IntervalSet

Added = Literal["accepted", "duplicate", "filtered", "failed", "stale"]


@dataclass(frozen=True)
class Explored:
    """One prompt that was delivered without failure; `version` is the oldest policy version that sampled for it."""

    place: int
    version: int
    group_ids: tuple[str, ...]
    examples: tuple[Example, ...]
    prompt_id: str = ""
    revision: int = 0
    """Votes of people that it was settled with."""


@dataclass(frozen=True)
class Withdrawn:
    """What a quarantine took out of the waiting prompts. Pass len(places) to Backpressure.quarantine."""

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
    written_share: float = 1.0
    """Part of a window's examples that people may have written, at most; the newest are kept."""
    _waiting: dict[int, Explored] = field(default_factory=dict[int, Explored])
    _examples_waiting: int = 0
    _drawn: dict[int, tuple[Explored, ...]] = field(default_factory=dict[int, tuple[Explored, ...]])
    _windows_drawn: int = 0
    _oldest: dict[int, int] = field(default_factory=dict[int, int])
    """Window held -> the oldest version whose examples were fresh when it was drawn."""
    _places: IntervalSet = field(default_factory=IntervalSet)
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
        duplicate: nothing changed. stale: a quarantined version made it, so its place goes back; tell the Backpressure
        `accept` and `quarantine(1)`."""
        return "failed" if outcome.failure is not None else self.take(_explored(outcome))

    def take(self, explored: Explored) -> Added:
        """As `add`, what was delivered without failure."""
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
        """Staleness is counted in published versions that were not withdrawn; this is one more."""
        self._versions.add(version)

    def lag(self, version: int, newest: int) -> int:
        """Published versions that `version` is behind `newest`; 0 for one that is as new or newer."""
        return sum(version < v <= newest for v in (self._versions | {newest}) - self._bad_versions)

    def oldest_fresh(self, newest: int) -> int:
        """The oldest version that is no more than max_lag behind `newest`."""
        good = sorted(v for v in (self._versions | {newest}) - self._bad_versions if v <= newest)
        return good[-self.max_lag - 1] if len(good) > self.max_lag else 0

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
        """A window drawn before, for a trainer that died over it; None when it was not drawn or is forgotten."""
        return self._window(number) if number in self._drawn else None

    def drawn_places(self, number: int) -> tuple[int, ...]:
        """The places new in that window, to be stored with it: `restore` wants them. Raises: LookupError."""
        if number not in self._drawn:
            raise LookupError(f"window {number} is not held (held: {sorted(self._drawn)})")
        return tuple(explored.place for explored in self._drawn[number])

    def replace(self, outcome: Outcome) -> bool:
        """A held prompt was settled again, with late votes: these are its examples now, for every window drawn from
        here. What was too old when its window was drawn stays out.

        False when its place is not held (withdrawn, or older than any replay), or settled with as many votes already:
        nothing to do then."""
        for place, old in self._waiting.items():
            if place == outcome.place and old.revision < outcome.revision:
                self._waiting[place] = new = self._resettled(old, outcome)
                self._examples_waiting += len(new.examples) - len(old.examples)
                return True
        for number, window in self._drawn.items():
            for index, old in enumerate(window):
                if old.place == outcome.place and old.revision < outcome.revision:
                    new = self._fresh(self._resettled(old, outcome), self._oldest[number])
                    self._drawn[number] = (*window[:index], new, *window[index + 1 :])
                    return True
        return False

    def held(self) -> list[Explored]:
        """Every prompt whose examples a window may still take: drawn ones, oldest first, then those waiting."""
        return [*(e for number in sorted(self._drawn) for e in self._drawn[number]), *self._waiting.values()]

    def holds(self, place: int) -> bool:
        return place in self._waiting or any(e.place == place for window in self._drawn.values() for e in window)

    @property
    def windows_drawn(self) -> int:
        return self._windows_drawn

    def is_drawn(self, number: int) -> bool:
        """Whether `again` has it."""
        return number in self._drawn

    def waiting_places(self) -> tuple[int, ...]:
        """In order of delivery."""
        return tuple(self._waiting)

    def quarantine(self, version: int) -> Withdrawn:
        """That version was rejected: nothing that it sampled is drawn or replayed again. Returns what was waiting,
        to be collected anew. Calling it again is harmless; version 0, the base, cannot be rejected."""
        if version == 0:
            raise ValueError("version 0 is the base model and cannot be quarantined")
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
        """That window is replayed no more, and an older one takes its part."""
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
        """After a restart, on an empty replay: what the store kept. `outcomes` in order of delivery; those that no
        draw can need again may be missing, and their places then stand in `used`. `drawn`: window number ->
        `drawn_places`, the newest window among them. `versions`: published.

        Stale examples are dropped as they were: below `oldest_at_draw` (window number -> `oldest_fresh` at its draw),
        or by `newest_at_draw` (window number -> the `newest` of its draw) where that is not known."""
        if self._places or self._windows_drawn:
            raise ValueError("restore needs an empty replay; make a new one")
        self._versions, self._bad_versions = set(versions), set(quarantined)
        self._bad_windows = set(quarantined_windows)
        self._places = IntervalSet() if used is None else used
        held: dict[int, Explored] = {}
        for explored in (_explored(outcome) for outcome in outcomes if outcome.failure is None):
            if explored.place in held and held[explored.place].version in self._bad_versions:
                del held[explored.place]  # withdrawn, and collected anew: it stands where the second one does
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
        """After `restore`: counts that only grow go on from here."""
        self._stale, self._quarantined = stale_examples, quarantined_prompts

    def _hold(self, explored: Explored) -> None:
        self._places.add(explored.place)
        self._group_ids.update(explored.group_ids)

    def _fresh(self, explored: Explored, oldest: int) -> Explored:
        fresh = tuple(e for e in explored.examples if e.policy.version >= oldest)
        self._stale += len(explored.examples) - len(fresh)
        return replace(explored, examples=fresh)

    def _resettled(self, old: Explored, outcome: Outcome) -> Explored:
        new = _explored(outcome)
        group_ids = tuple(dict.fromkeys((*old.group_ids, *new.group_ids)))
        self._group_ids.update(group_ids)
        return replace(old, group_ids=group_ids, examples=new.examples, revision=new.revision)

    def _window(self, number: int) -> Window:
        kept: dict[object, Example] = {}
        for replayed in self._replayed(number, self.replay_windows):
            for explored in self._drawn[replayed]:
                for example in explored.examples:
                    if example.policy.version not in self._bad_versions:
                        kept.setdefault(_tokens_of(example), example)
        examples = self._within_share(list(kept.values()))
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

    def _within_share(self, examples: Sequence[Example]) -> list[Example]:
        written = sum(example.by == "person" for example in examples)
        if self.written_share < 1:
            own = len(examples) - written
            written = min(written, int(self.written_share / (1 - self.written_share) * own + 1e-9))
        kept: list[Example] = []
        for example in examples:
            written -= example.by == "person"
            if example.by == "sample" or written >= 0:
                kept.append(example)
        return kept

    def _forget(self) -> None:
        """Windows that no draw can need again, even when all those still unweighed are quarantined."""
        keep = {*self._replayed(self._windows_drawn, self.replay_windows + self.max_lag + 1), self._windows_drawn}
        for number in self._drawn.keys() - keep:
            for explored in self._drawn.pop(number):
                self._group_ids.difference_update(explored.group_ids)
            del self._oldest[number]


def _examples_of(explored: Iterable[Explored]) -> int:
    return sum(len(each.examples) for each in explored)


def _explored(outcome: Outcome) -> Explored:
    """An example that stands twice in the delivery, by its id, is kept once."""
    return Explored(
        place=outcome.place,
        version=outcome.version,
        group_ids=outcome.named_ids,
        examples=tuple({example.id: example for example in outcome.examples}.values()),
        prompt_id=outcome.prompt_id,
        revision=outcome.revision,
    )


def _tokens_of(example: Example) -> object:
    """Equal for two examples that would teach the same. Reinforce is never merged: equal samples each had a reward."""
    match example:
        case Imitate():
            return (example.adapter, example.context_ids, example.completion_ids)
        case Prefer():
            return (example.adapter, example.context_ids, example.chosen_ids, example.rejected_ids)
        case _:
            return example.id
