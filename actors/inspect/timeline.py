"""The history of one prompt, from the request to the versions that learned from its samples: every step with its time
and the actor that recorded it, read from the run directory."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from core.messages import Outcome, Response, Vote
from core.store.writer import RunReader

Step = dict[str, Any]
"""`at`: seconds since the epoch, or None if no time was stored. `by`: the actor. `what`: the kind of step. Further keys
depend on the kind."""


def timeline(reader: RunReader, prompt_id: str, places: Sequence[int], responses: Iterable[Response]) -> list[Step]:
    """All steps in order of time. A step without a time stands next to a step of the same place, see `_in_order`."""
    outcomes = [outcome for place in places if (outcome := reader.outcome(place)) is not None]
    mine = {outcome.place for outcome in outcomes}
    windows = {number for number, drawn in reader.windows().items() if mine.intersection(drawn)}
    versions = {published.ref.version for published in reader.versions() if published.window in windows}
    votes = [vote for vote in reader.children("votes", Vote, prompt_id) if vote.by != "sample"]
    steps = [
        *(_answered(response) for response in responses),
        *(_voted(vote) for vote in votes),
        *(step for outcome in outcomes for step in _explored(reader, outcome)),
        *_history(reader, windows, versions),
        *_served(reader, versions),
    ]
    return _in_order(steps)


def _answered(response: Response) -> Step:
    about = {"response": response.id, "version": response.start.version, "key": response.key}
    return {"at": response.at, "by": "feedback", "what": "answered", **about}


def _voted(vote: Vote) -> Step:
    about = {"id": vote.id, "voter": vote.voter, "kind": vote.by, "counted": vote.counted, "response": vote.response_id}
    said = {"answer": vote.answer, "correction": vote.correction, "candidate": vote.candidate_id}
    given = {name: value for name, value in (about | said).items() if value is not None}
    return {"at": vote.cast_at or None, "by": "buffer", "what": "voted", **given}


def _explored(reader: RunReader, outcome: Outcome) -> Iterator[Step]:
    """The lease and the exploration of one place. A lease has no time: it is stored only with its outcome."""
    place = {"place": outcome.place}
    yield {"at": None, "by": "buffer", "what": "leased", **place, "lease": outcome.lease_id}
    groups = [
        {
            "group": scored.group.id,
            "by": scored.group.by,
            "version": scored.group.policy.version,
            "candidates": len(scored.group.candidates),
            "winner": scored.verdict.winner,
            "share": scored.verdict.share,
        }
        for scored in outcome.scored
    ]
    found = {"failure": outcome.failure} if outcome.failure is not None else {"groups": groups, "drops": outcome.drops}
    yield {"at": _settled_at(reader, outcome), "by": "collector", "what": "explored", **place, **found}
    for again in reader.children("resettled", Outcome, str(outcome.place)):
        about = {"votes_of_people": again.revision, "examples": len(again.examples), "drops": again.drops}
        yield {"at": again.settled_at or None, "by": "buffer", "what": "settled again", **place, **about}


def _settled_at(reader: RunReader, outcome: Outcome) -> float | None:
    """When the prompt was settled. Older runs stored no such time; there the votes of its samples have it."""
    if outcome.settled_at:
        return outcome.settled_at
    sampled = {candidate.id for scored in outcome.scored for candidate in scored.group.candidates}
    cast = (v.cast_at for v in reader.children("votes", Vote, outcome.prompt_id) if v.candidate_id in sampled)
    return min((at for at in cast if at), default=None)


def _history(reader: RunReader, windows: set[int], versions: set[int]) -> Iterator[Step]:
    """All events about these windows and versions."""
    for event in reader.events():
        of = event.detail
        named = {of.get("version"), *of.get("fell", ()), *_several(of.get("versions"))}
        drawn = {of.get("window"), *_several(of.get("windows"))}
        if named & versions or drawn & windows:
            yield {"at": event.at, "by": event.actor, "what": event.kind, **of}


def _several(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else ()


def _served(reader: RunReader, versions: set[int]) -> Iterator[Step]:
    """The first answer of each version that is still in the store."""
    wanted = set(versions)
    for response in reader.all("responses", Response) if wanted else ():
        if response.start.version in wanted:
            wanted.discard(response.start.version)
            yield {**_answered(response), "what": "answered first"}
        if not wanted:
            return


def _in_order(steps: Sequence[Step]) -> list[Step]:
    """Sort by time. A step without a time goes before the next step of the same place that has one, else to the end."""
    known = {step["place"]: step["at"] for step in reversed(steps) if step.get("place") is not None and step["at"]}
    never = float("inf")
    return sorted(steps, key=lambda step: step["at"] or known.get(step.get("place"), never))
