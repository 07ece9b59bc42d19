"""From an answer to the version that learned from it, and back: read from the run directory, running or stopped."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from actors.recollect import WINDOW
from core.errors import Missing, VersionError
from core.messages import Decision, Outcome, Response, Vote
from core.store import RunReader


def trace(reader: RunReader, response_id: str) -> dict[str, Any]:
    """A response, the votes on it, what was explored of its prompt, and the versions that learned from that.

    Raises: Missing."""
    response = reader.get("responses", Response, response_id)
    if response is None:
        raise Missing(f"no response {response_id!r} in this run; it is the `id` of an answer")
    found: dict[str, Any] = {
        "response": response.id,
        "answered_by": str(response.start),
        "key": response.key,
        "texts": list(response.texts),
        "votes": [],
        "explored": [],
    }
    if response.prompt is None:
        return found
    cast = reader.children("votes", Vote, response.prompt.id)
    found["votes"] = [_told(vote) for vote in cast if vote.response_id == response.id]
    for place in reader.ids("outcomes", response.prompt.id):
        outcome = reader.outcome(int(place))
        if outcome is not None:
            found["explored"].append(_explored(reader, outcome))
    return found


def voters(reader: RunReader, version: int) -> dict[str, int]:
    """Whose votes are in the ballots of a version's window: voter -> votes that counted. Raises: VersionError."""
    windows = {published.ref.version: published.window for published in reader.versions()}
    if version not in windows:
        there = ", ".join(f"v{v}" for v in sorted(windows)) or "none"
        raise VersionError(f"v{version} was never published (known: {there})")
    found: Counter[str] = Counter()
    for outcome in _of_window(reader, windows[version]):
        votes = reader.children("votes", Vote, outcome.prompt_id)
        found.update(vote.voter or "(no name)" for vote in votes if vote.by == "person" and vote.counted)
    return dict(found.most_common())


def _explored(reader: RunReader, outcome: Outcome) -> dict[str, Any]:
    windows = reader.facts(WINDOW)
    drawn = [int(name.removeprefix(WINDOW)) for name, body in windows.items() if outcome.place in body["places"]]
    return {
        "place": outcome.place,
        "groups": [scored.group.id for scored in outcome.scored],
        "winners": [scored.verdict.winner for scored in outcome.scored],
        "votes_of_people": outcome.revision,
        "examples": [example.id for example in outcome.examples],
        "windows": drawn,
        "versions": [_version(reader, p.ref.version) for p in reader.versions() if p.window in drawn],
    }


def _version(reader: RunReader, version: int) -> dict[str, Any]:
    decisions = {decision.candidate.version: decision for decision in reader.all("decisions", Decision)}
    decision = decisions.get(version)
    return {"version": f"v{version}", "verdict": decision.verdict if decision is not None else "undecided"}


def _of_window(reader: RunReader, window: int) -> Iterator[Outcome]:
    body = reader.fact(f"{WINDOW}{window}", {"places": []})
    for place in body["places"]:
        outcome = reader.get("outcomes", Outcome, str(place))
        if outcome is not None:
            yield outcome


def _told(vote: Vote) -> dict[str, Any]:
    said = {"answer": vote.answer, "correction": vote.correction}
    about = {"id": vote.id, "voter": vote.voter, "weight": vote.weight, "counted": vote.counted}
    return about | {name: value for name, value in said.items() if value is not None}
