"""Reads the buffer's state from the store at its start: counts, outcomes that no window has drawn, and the windows that
a replay may need. The work is bounded by the last windows, and does not grow with the run.

A drawn window is stored together with `BufferCounts`: the counts so far, and the known places. Only later deliveries
are counted again. A run of an older program has no such counts, so everything is counted.
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
    TunedFact,
    WindowDecided,
    WindowDrawn,
)
from core.store.reader import RunReader


@dataclass
class Recovered:
    counts: BufferCounts
    next_place: int
    open: list[int]
    """Places below `next_place` without an outcome: their leases ended with the buffer."""
    windows: dict[int, WindowDrawn]
    """The windows that a draw may need, including the newest."""
    outcomes: list[Outcome]
    """Outcomes of these windows, and outcomes that no window has drawn, in order of delivery."""
    decided: dict[int, WindowDecided]
    unwritten: list[int]
    """Decided windows whose `WindowDecided` fact is missing in the store or out of date."""
    bad_versions: set[int]
    versions: list[int]
    paused: Paused | None
    voted: dict[str, PromptVoted]
    first_votes: list[FirstVote]
    asked: list[Prompt]
    tuned: TunedFact | None = None


@dataclass
class Recount:
    """`BufferCounts`, brought up to date with later outcomes."""

    counts: BufferCounts
    new: list[int]
    """Places of usable outcomes that the stored counts lack, in order."""
    next_place: int
    unknown: list[int]
    """Places below `next_place` without an outcome."""


def recover(run_dir: Path, learning: LearningConfig) -> Recovered:
    with closing(RunReader(run_dir)) as reader:
        decided, unwritten = _decided(reader)
        drawn = sorted(map(int, reader.keys(WindowDrawn)), reverse=True)
        windows = _needed(reader, drawn, decided, learning.replay_windows + learning.max_lag + 1)
        before = reader.read(BufferCounts) or BufferCounts()
        found = _recount(reader, before, drawn)
        rejected = {fact.version for fact in decided.values() if fact.rejected}
        return Recovered(
            counts=found.counts,
            next_place=found.next_place,
            open=found.unknown,
            windows=windows,
            outcomes=_outcomes(reader, windows, _waiting(reader, before, found.new, drawn, windows)),
            decided=decided,
            unwritten=unwritten,
            bad_versions=rejected | _withdrawn(reader),
            versions=[published.ref.version for published in reader.versions()],
            paused=reader.read(Paused),
            voted=reader.read_all(PromptVoted),
            first_votes=list(reader.read_all(FirstVote).values()),
            asked=reader.unexplored_requests(),
            tuned=reader.read(TunedFact),
        )


def _withdrawn(reader: RunReader) -> set[int]:
    lineage = reader.read(LineageFact)
    return set(lineage.withdrawn or ()) if lineage is not None else set()


# --- windows ---


def _decided(reader: RunReader) -> tuple[dict[int, WindowDecided], list[int]]:
    """The decided windows, and the numbers of those whose stored fact is missing or out of date. Versions stores a
    decision before it tells the buffer, so a decision may exist without the buffer's fact."""
    known = {int(window): fact for window, fact in reader.read_all(WindowDecided).items()}
    window_of = {published.ref.version: published.window for published in reader.versions()}
    withdrawn = _withdrawn(reader)
    decided = dict(known)
    for decision in reader.all("decisions", Decision):
        window = window_of.get(decision.candidate.version)
        if window is not None:
            decided[window] = _as_decided(decision, withdrawn, known.get(window), decided.get(window))
    return decided, [window for window, fact in decided.items() if known.get(window) != fact]


def _as_decided(
    decision: Decision, withdrawn: set[int], known: WindowDecided | None, decided: WindowDecided | None
) -> WindowDecided:
    version = decision.candidate.version
    rejected = decision.verdict == "reject" or version in withdrawn
    if known is None:
        return WindowDecided(version=version, rejected=rejected, discarded=decision.reason in FELL)
    if rejected and not known.rejected:
        return known.model_copy(update={"rejected": True})
    return decided or known


def _needed(
    reader: RunReader, drawn: Sequence[int], decided: Mapping[int, WindowDecided], good: int
) -> dict[int, WindowDrawn]:
    """The newest window, and the newest `good` windows that were not rejected."""
    needed: dict[int, WindowDrawn] = {}
    for window in drawn:
        rejected = window in decided and decided[window].rejected
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
        raise StoreError(f"window {number} is listed in the store but cannot be read; restore the run from a backup")
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
    """Add the outcomes that the stored counts lack."""
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
    """Outcomes of places that were open when the counts were stored; then outcomes of places that were leased
    later."""
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
