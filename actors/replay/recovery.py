"""What the buffer finds again in the store when it starts: counts, what no window has drawn, and the windows that a
replay may need. Its size is that of the last windows, however long the run was.

A drawn window is written together with `COUNTS`: what was counted until then, and which places were known. Only what
was delivered after that is counted again. A run of an older program has no counts, and is counted from its beginning.
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors.replay.late_votes import FIRST, VOTED
from actors.versions.lineage import FELL
from core.config import LearningConfig
from core.messages import Decision, Outcome, Prompt
from core.store.writer import WINDOW, RunReader

SETTLED = "settled:"
COUNTS = "buffer"
PAUSED = "paused"
FROM_THE_BEGINNING: dict[str, Any] = {
    "window": 0,
    "next_place": 0,
    "open": [],
    "waiting": [],
    "accepted": 0,
    "filtered": 0,
    "failed": 0,
    "expired": 0,
    "tokens": 0,
    "stale": 0,
    "quarantined": 0,
}


@dataclass
class Recovered:
    counts: dict[str, Any]
    next_place: int
    open: list[int]
    """Places before that which nothing is known of: their leases ended with the buffer."""
    windows: dict[int, dict[str, Any]]
    """Those that a draw may need, the newest among them."""
    outcomes: list[Outcome]
    """Of these windows, and what no window has drawn, in order of delivery."""
    settled: dict[int, dict[str, Any]]
    unwritten: list[int]
    """Settled windows of which only the decision was stored."""
    bad_versions: set[int]
    versions: list[int]
    paused: dict[str, Any] | None
    voted: dict[str, dict[str, Any]] = field(default_factory=dict)
    firsts: list[dict[str, Any]] = field(default_factory=list)
    asked: list[Prompt] = field(default_factory=list[Prompt])


def recover(run_dir: Path, learning: LearningConfig) -> Recovered:
    with closing(RunReader(run_dir)) as reader:
        settled, unwritten = _settled(reader)
        withdrawn = reader.fact("lineage", {}).get("withdrawn", [])
        drawn = sorted((int(name.removeprefix(WINDOW)) for name in reader.fact_names(WINDOW)), reverse=True)
        counts = reader.fact(COUNTS, FROM_THE_BEGINNING)
        windows = _needed(reader, drawn, settled, learning.replay_windows + learning.max_lag + 1)
        late = [window for window in drawn if window > counts["window"]]
        new, counts, next_place, unknown = _since(reader, counts, drawn)
        taken = {place for window in late for place in _window(reader, windows, window)["places"]}
        waiting = [place for place in (*counts["waiting"], *new) if place not in taken]
        places = [*(place for number in sorted(windows) for place in windows[number]["places"]), *waiting]
        return Recovered(
            counts=counts,
            next_place=next_place,
            open=unknown,
            windows=windows,
            outcomes=[outcome for place in places if (outcome := reader.outcome(place)) is not None],
            settled=settled,
            unwritten=unwritten,
            bad_versions={body["version"] for body in settled.values() if body["rejected"]} | set(withdrawn),
            versions=[published.ref.version for published in reader.versions()],
            paused=reader.fact(PAUSED),
            voted={name.removeprefix(VOTED): body for name, body in reader.facts(VOTED).items()},
            firsts=list(reader.facts(FIRST).values()),
            asked=reader.asked_in_vain(),
        )


def _settled(reader: RunReader) -> tuple[dict[int, dict[str, Any]], list[int]]:
    """What the buffer was told, and what it was to be told: a decision is stored before."""
    told = {int(name.removeprefix(SETTLED)): body for name, body in reader.facts(SETTLED).items()}
    window_of = {published.ref.version: published.window for published in reader.versions()}
    withdrawn = set(reader.fact("lineage", {}).get("withdrawn", []))
    settled = dict(told)
    for decision in reader.all("decisions", Decision):
        version = decision.candidate.version
        if version in window_of:
            rejected = decision.verdict == "reject" or version in withdrawn
            body = {"version": version, "rejected": rejected, "discarded": decision.reason in FELL}
            before = told.get(window_of[version])
            if before is None or (rejected and not before["rejected"]):
                settled[window_of[version]] = body if before is None else {**before, "rejected": True}
    return settled, [window for window, body in settled.items() if told.get(window) != body]


def _needed(
    reader: RunReader, drawn: list[int], settled: dict[int, dict[str, Any]], good: int
) -> dict[int, dict[str, Any]]:
    """The newest window, and so many of the newest that were not rejected."""
    needed: dict[int, dict[str, Any]] = {}
    for window in drawn:
        rejected = settled.get(window, {"rejected": False})["rejected"]
        if window == drawn[0] or (not rejected and good > 0):
            needed[window] = reader.fact(f"{WINDOW}{window}")
        good -= not rejected
        if good <= 0:
            break
    return needed


def _window(reader: RunReader, held: dict[int, dict[str, Any]], number: int) -> dict[str, Any]:
    return held[number] if number in held else reader.fact(f"{WINDOW}{number}")


def _since(
    reader: RunReader, counts: dict[str, Any], drawn: list[int]
) -> tuple[list[int], dict[str, Any], int, list[int]]:
    """What was stored and not yet counted, in order: its usable places, the counts with it, the next place, and the
    places before that which nothing is known of."""
    counts, new, met = dict(counts), list[int](), set[int]()
    next_place = counts["next_place"]
    for outcome in _uncounted(reader, counts, drawn):
        met.add(outcome.place)
        next_place = max(next_place, outcome.place + 1)
        counts["tokens"] += outcome.tokens
        counts[_result(reader, outcome)] += 1
        if outcome.failure is None:
            new.append(outcome.place)
    leased = (*counts["open"], *range(counts["next_place"], next_place))
    unknown = [place for place in leased if place not in met]
    return new, counts, next_place, unknown


def _uncounted(reader: RunReader, counts: dict[str, Any], drawn: list[int]) -> Iterator[Outcome]:
    """Places that were open when the window was drawn; then all that was leased, and so stored, after that."""
    for place in counts["open"]:
        outcome = reader.get("outcomes", Outcome, str(place))
        if outcome is not None:
            yield outcome
    window = reader.fact(f"{WINDOW}{counts['window']}") if counts["window"] in drawn else None
    for outcome in reader.briefs(after_place=window["places"][0] if window else None):
        if outcome.place >= counts["next_place"]:
            yield outcome


def _result(reader: RunReader, outcome: Outcome) -> str:
    if outcome.failure is not None:
        return "failed"
    groups = outcome.group_ids if outcome.group_ids is not None else reader.ids("groups", str(outcome.place))
    return "accepted" if any(reader.ids("examples", group) for group in groups) else "filtered"
