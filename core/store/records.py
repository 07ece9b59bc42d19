"""Records, the rows of the store, and the conversion of messages to records."""

import json
from typing import Any, NamedTuple

from core.codec import encode
from core.messages import Event, Message, Outcome

Row = tuple[str, str, str, bytes]
"""Table, id, parent, payload."""


class Record(NamedTuple):
    """A `Row` with names. For an id that is written twice, `facts` keeps the newest payload, other tables the first."""

    table: str
    id: str
    parent: str
    payload: bytes


def as_row(record: Row) -> Row:
    """The form between actors: Ray takes 35 times as long to pickle our class as to pickle a tuple."""
    table, id, parent, payload = record
    return (table, id, parent, payload)


def event(at: float, actor: str, kind: str, **detail: Any) -> Record:
    """An event of the run's history; `detail` must be JSON."""
    body = Event(at=at, actor=actor, kind=kind, detail=detail)
    return Record("events", "", "", body.model_dump_json().encode())


def fact(name: str, value: Any) -> Record:
    """A fact without its type (`core.store.facts`); tests write old and damaged ones with it."""
    return Record("facts", name, "", json.dumps(value).encode())


def message(table: str, id: str, parent: str, body: Message) -> Record:
    return Record(table, id, parent, encode(body))


def outcome_records(outcome: Outcome) -> list[Record]:
    """An outcome as rows: votes, groups and examples in their tables, the rest in `outcomes`."""
    place = str(outcome.place)
    brief = _without_parts(outcome, group_ids=tuple(scored.group.id for scored in outcome.scored))
    return [
        *(message("votes", vote.id, vote.prompt_id, vote) for vote in outcome.votes),
        *(message("groups", scored.group.id, place, scored) for scored in outcome.scored),
        *(message("examples", example.id, example.group_id, example) for example in outcome.examples),
        message("outcomes", place, outcome.prompt_id, brief),
    ]


def resettled_record(outcome: Outcome) -> Record:
    """A prompt that was settled again. The row holds its examples in full, because weights may differ under the same
    id; its groups are in the store already."""
    body = outcome.model_copy(update={"scored": (), "votes": ()})
    return message("resettled", f"{outcome.place}:{outcome.revision}", str(outcome.place), body)


def _without_parts(outcome: Outcome, **update: Any) -> Outcome:
    empty: dict[str, Any] = {"scored": (), "votes": (), "examples": ()}
    return outcome.model_copy(update=empty | update)
