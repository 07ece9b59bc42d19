"""What the buffer finds in the store when it starts: counts, outcomes that no window has drawn, and the windows that a
replay may need. That is as much as the last windows hold, however long the run was.

A drawn window is written together with `BufferCounts`: what was counted until then, and which places were known. Only
what was delivered after that is counted again. A run of an older program has no counts, and is counted from its
beginning.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from actors.versions.lineage import FELL
from core.config import LearningConfig
from core.errors import StoreError
from core.messages import Decision, Outcome, Prompt
from core.store.facts import (
    BufferCounts,
    FirstVote,
    LineageFact,
    Paused,
    PromptVoted,
    WindowDecided,
    WindowDrawn,
)
from core.store.reader import RunReader


@dataclass
class Recovered:
    counts: BufferCounts
    next_place: int
    open: list[int]
    """Places before that of which nothing is known: their leases ended with the buffer."""
    windows: dict[int, WindowDrawn]
    """Those that a draw may need, the newest among them."""
    outcomes: list[Outcome]
    """Of these windows, and those that no window has drawn, in order of delivery."""
    settled: dict[int, WindowDecided]
    unwritten: list[int]
    """Settled windows of which only the decision was stored."""
    bad_versions: set[int]
    versions: list[int]
    paused: Paused | None
    voted: dict[str, PromptVoted]
    first_votes: list[FirstVote]
    asked: list[Prompt]


@dataclass
class Recount:
    """`BufferCounts`, and what was stored after them."""

    counts: BufferCounts
    new: list[int]
    """Places of usable outcomes that were not counted yet, in order."""
    next_place: int
    unknown: list[int]
    """Places before that of which nothing is known."""


def recover(run_dir: Path, learning: LearningConfig) -> Recovered:
    with closing(RunReader(run_dir)) as reader:
        settled, unwritten = _settled(reader)
        drawn = sorted(map(int, reader.keys(WindowDrawn)), reverse=True)
        windows = _needed(reader, drawn, settled, learning.replay_windows + learning.max_lag + 1)
        before = reader.read(BufferCounts) or BufferCounts()
        found = _recount(reader, before, drawn)
        rejected = {fact.version for fact in settled.values() if fact.rejected}
        return Recovered(
            counts=found.counts,
            next_place=found.next_place,
            open=found.unknown,
            windows=windows,
            outcomes=_outcomes(reader, windows, _waiting(reader, before, found.new, drawn, windows)),
            settled=settled,
            unwritten=unwritten,
            bad_versions=rejected | _withdrawn(reader),
            versions=[published.ref.version for published in reader.versions()],
            paused=reader.read(Paused),
            voted=reader.read_all(PromptVoted),
            first_votes=list(reader.read_all(FirstVote).values()),
            asked=reader.asked_in_vain(),
        )


def _withdrawn(reader: RunReader) -> set[int]:
    lineage = reader.read(LineageFact)
    return set(lineage.withdrawn or ()) if lineage is not None else set()


# --- windows ---


def _settled(reader: RunReader) -> tuple[dict[int, WindowDecided], list[int]]:
    """What the buffer was told, and what it was to be told: a decision is stored before that. And the windows of which
    it was not told all."""
    told = {int(window): fact for window, fact in reader.read_all(WindowDecided).items()}
    window_of = {published.ref.version: published.window for published in reader.versions()}
    withdrawn = _withdrawn(reader)
    settled = dict(told)
    for decision in reader.all("decisions", Decision):
        window = window_of.get(decision.candidate.version)
        if window is not None:
            settled[window] = _decided(decision, withdrawn, told.get(window), settled.get(window))
    return settled, [window for window, fact in settled.items() if told.get(window) != fact]


def _decided(
    decision: Decision, withdrawn: set[int], told: WindowDecided | None, settled: WindowDecided | None
) -> WindowDecided:
    version = decision.candidate.version
    rejected = decision.verdict == "reject" or version in withdrawn
    if told is None:
        return WindowDecided(version=version, rejected=rejected, discarded=decision.reason in FELL)
    if rejected and not told.rejected:
        return told.model_copy(update={"rejected": True})
    return settled or told


def _needed(
    reader: RunReader, drawn: Sequence[int], settled: Mapping[int, WindowDecided], good: int
) -> dict[int, WindowDrawn]:
    """The newest window, and so many of the newest that were not rejected."""
    needed: dict[int, WindowDrawn] = {}
    for window in drawn:
        rejected = window in settled and settled[window].rejected
        if window == drawn[0] or (not rejected and good > 0):
            needed[window] = _window(reader, window)
        good -= not rejected
        if good <= 0:
            break
    return needed


def _window(reader: RunReader, number: int) -> WindowDrawn:
    """Raises: StoreError."""
    found = reader.read(WindowDrawn, number)
    if found is None:
        raise StoreError(f"window {number} is listed in the store and cannot be read; restore it from a backup")
    return found


def _waiting(
    reader: RunReader,
    before: BufferCounts,
    new: Sequence[int],
    drawn: Sequence[int],
    windows: Mapping[int, WindowDrawn],
) -> list[int]:
    """Places of outcomes that no window has drawn."""
    late = [number for number in drawn if number > before.window]
    places = {place for number in late for place in (windows.get(number) or _window(reader, number)).places}
    return [place for place in (*before.waiting, *new) if place not in places]


def _outcomes(reader: RunReader, windows: Mapping[int, WindowDrawn], waiting: Sequence[int]) -> list[Outcome]:
    places = [*(place for number in sorted(windows) for place in windows[number].places), *waiting]
    return [outcome for place in places if (outcome := reader.outcome(place)) is not None]


# --- counts ---


def _recount(reader: RunReader, before: BufferCounts, drawn: Sequence[int]) -> Recount:
    """Count what was stored and not counted yet."""
    grown, new, met = Counter[str](), list[int](), set[int]()
    for outcome in _uncounted(reader, before, drawn):
        met.add(outcome.place)
        grown["tokens"] += outcome.tokens
        grown[_result(reader, outcome)] += 1
        if outcome.failure is None:
            new.append(outcome.place)
    next_place = max((before.next_place, *(place + 1 for place in met)))
    unknown = [place for place in (*before.open, *range(before.next_place, next_place)) if place not in met]
    counts = before.model_copy(update={name: getattr(before, name) + n for name, n in grown.items()})
    return Recount(counts, new, next_place, unknown)


def _uncounted(reader: RunReader, counts: BufferCounts, drawn: Sequence[int]) -> Iterator[Outcome]:
    """Outcomes of places that were open when the window was drawn; then of all that were leased, and so stored, after
    that."""
    for place in counts.open:
        outcome = reader.get("outcomes", Outcome, str(place))
        if outcome is not None:
            yield outcome
    window = _window(reader, counts.window) if counts.window in drawn else None
    for outcome in reader.briefs(after_place=window.places[0] if window is not None else None):
        if outcome.place >= counts.next_place:
            yield outcome


def _result(reader: RunReader, outcome: Outcome) -> str:
    if outcome.failure is not None:
        return "failed"
    groups = outcome.group_ids if outcome.group_ids is not None else reader.ids("groups", str(outcome.place))
    return "accepted" if any(reader.ids("examples", group) for group in groups) else "filtered"
