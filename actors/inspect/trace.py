"""Traces any id to the versions that learned from it, and a version to its voters. Reads the run directory, running or
stopped."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from actors.inspect.timeline import timeline
from core.codec import sample_vote_id
from core.errors import Missing, VersionError
from core.messages import Decision, Example, Feedback, Outcome, Prompt, Response, Scored, Vote
from core.store.writer import RunReader

PLACE = "place:"


@dataclass(frozen=True)
class Found:
    """The kind of an id, its prompt, and the places where the prompt was explored."""

    kind: str
    prompt_id: str | None
    places: tuple[int, ...] = ()
    response: Response | None = None


def trace(reader: RunReader, id: str) -> dict[str, object]:
    """The kind of an id, the votes on its prompt, its explorations, the versions that learned from them, and `life`:
    all steps in order of time, with the actor that recorded each. The id may be that of an answer, feedback, a vote, a
    prompt, a group, a candidate, an example or a lease, or a place such as `place:17`.

    Raises: Missing."""
    found = find(reader, id)
    result: dict[str, object] = {"id": id, "is": found.kind, "prompt": found.prompt_id}
    if (response := found.response) is not None:
        about = {"response": response.id, "answered_by": str(response.start), "key": response.key}
        result |= about | {"texts": list(response.texts)}
    result |= {"votes": [], "explored": [], "life": []}
    if found.prompt_id is None:
        return result
    cast = reader.children("votes", Vote, found.prompt_id)
    result["votes"] = [
        _vote(v) for v in cast if v.by != "sample" and (response is None or v.response_id == response.id)
    ]
    outcomes = [outcome for place in found.places if (outcome := reader.outcome(place)) is not None]
    result["explored"] = [_explored(reader, outcome) for outcome in outcomes]
    responses = [response] if response is not None else reader.children("responses", Response, found.prompt_id)
    result["life"] = timeline(reader, found.prompt_id, found.places, responses)
    return result


def find(reader: RunReader, id: str) -> Found:
    """Raises: Missing."""
    if (response := reader.get("responses", Response, id)) is not None:
        return _asked(reader, "response", response)
    if (feedback := _feedback(reader, id)) is not None:
        response = reader.get("responses", Response, feedback.response_id)
        return _asked(reader, "feedback", response) if response is not None else Found("feedback", None)
    if (vote := reader.get("votes", Vote, id)) is not None:
        return _of_prompt(reader, "vote", vote.prompt_id)
    if reader.ids("outcomes", id) or reader.ids("responses", id) or reader.get("asked", Prompt, id):
        return _of_prompt(reader, "prompt", id)
    if (outcome := reader.get("outcomes", Outcome, id.removeprefix(PLACE))) is not None and id.startswith(PLACE):
        return Found("place", outcome.prompt_id, (outcome.place,))
    if (found := _sampled(reader, id) or _leased(reader, id) or _unvoted(reader, id)) is not None:
        return found
    raise Missing(
        f"nothing in this run has the id {id!r}; expected the id of an answer, feedback, a vote, a prompt, a group, a "
        "candidate, an example or a lease, or a place such as place:17"
    )


def _asked(reader: RunReader, kind: str, response: Response) -> Found:
    if response.prompt is None:
        return Found(kind, None, response=response)
    return Found(kind, response.prompt.id, _places(reader, response.prompt.id), response)


def _of_prompt(reader: RunReader, kind: str, prompt_id: str) -> Found:
    return Found(kind, prompt_id, _places(reader, prompt_id))


def _places(reader: RunReader, prompt_id: str) -> tuple[int, ...]:
    return tuple(int(place) for place in reader.ids("outcomes", prompt_id))


def _feedback(reader: RunReader, id: str) -> Feedback | None:
    """Feedback by its full id, which starts with the key's name, or by the id that the client gave."""
    known = reader.get("feedback", Feedback, id)
    return known or next((each for each in reader.all("feedback", Feedback) if each.id.endswith(f"/{id}")), None)


def _sampled(reader: RunReader, id: str) -> Found | None:
    """A group, an example, or a candidate that cast a vote."""
    if (scored := reader.get("groups", Scored, id)) is not None:
        return _in_group(reader, "group", scored)
    if (example := reader.get("examples", Example, id)) is not None:
        scored = reader.get("groups", Scored, example.group_id)
        return _in_group(reader, "example", scored) if scored is not None else None
    vote = reader.get("votes", Vote, sample_vote_id(id))
    return None if vote is None else _candidate(reader, id, _groups_at(reader, _places(reader, vote.prompt_id)))


def _unvoted(reader: RunReader, id: str) -> Found | None:
    """A candidate without a vote of its own, such as a text by a person or one of an older run. Searches all groups."""
    return _candidate(reader, id, reader.all("groups", Scored))


def _leased(reader: RunReader, id: str) -> Found | None:
    outcomes = [outcome for outcome in reader.briefs() if outcome.lease_id == id]
    places = tuple(outcome.place for outcome in outcomes)
    if len({outcome.prompt_id for outcome in outcomes}) > 1:
        some = ", ".join(f"{PLACE}{place}" for place in places)
        raise Missing(f"lease {id!r} covers several prompts; trace one of them: {some}")
    return Found("lease", outcomes[0].prompt_id, places) if outcomes else None


def _candidate(reader: RunReader, id: str, groups: Iterable[Scored]) -> Found | None:
    for scored in groups:
        if any(candidate.id == id for candidate in scored.group.candidates):
            return _in_group(reader, "candidate", scored)
    return None


def _groups_at(reader: RunReader, places: Iterable[int]) -> Iterator[Scored]:
    for place in places:
        yield from reader.children("groups", Scored, str(place))


def _in_group(reader: RunReader, kind: str, scored: Scored) -> Found:
    group, places = scored.group, _places(reader, scored.group.prompt.id)
    held = tuple(p for p in places if any(each.group.id == group.id for each in _groups_at(reader, [p])))
    return Found(kind, group.prompt.id, held)


def voters(reader: RunReader, version: int) -> dict[str, int]:
    """Voter -> number of counted votes in the ballots of a version's window. Raises: VersionError."""
    windows = {published.ref.version: published.window for published in reader.versions()}
    if version not in windows:
        there = ", ".join(f"v{v}" for v in sorted(windows)) or "none"
        raise VersionError(f"v{version} was never published (known: {there})")
    found: Counter[str] = Counter()
    for outcome in _of_window(reader, windows[version]):
        votes = reader.children("votes", Vote, outcome.prompt_id)
        found.update(vote.voter or "(no name)" for vote in votes if vote.by == "person" and vote.counted)
    return dict(found.most_common())


def _explored(reader: RunReader, outcome: Outcome) -> dict[str, object]:
    drawn = [number for number, places in reader.windows().items() if outcome.place in places]
    return {
        "place": outcome.place,
        "groups": [scored.group.id for scored in outcome.scored],
        "winners": [scored.verdict.winner for scored in outcome.scored],
        "votes_of_people": outcome.revision,
        "examples": [example.id for example in outcome.examples],
        "windows": drawn,
        "versions": [_version(reader, p.ref.version) for p in reader.versions() if p.window in drawn],
    }


def _version(reader: RunReader, version: int) -> dict[str, object]:
    decisions = {decision.candidate.version: decision for decision in reader.all("decisions", Decision)}
    decision = decisions.get(version)
    return {"version": f"v{version}", "verdict": decision.verdict if decision is not None else "undecided"}


def _of_window(reader: RunReader, window: int) -> Iterator[Outcome]:
    for place in reader.windows().get(window, []):
        outcome = reader.get("outcomes", Outcome, str(place))
        if outcome is not None:
            yield outcome


def _vote(vote: Vote) -> dict[str, object]:
    said = {"answer": vote.answer, "correction": vote.correction}
    about: dict[str, object] = {"id": vote.id, "voter": vote.voter, "weight": vote.weight, "counted": vote.counted}
    return about | {name: value for name, value in said.items() if value is not None}
