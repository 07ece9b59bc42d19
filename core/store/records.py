"""What is written: one record a row, and how messages become records."""

import json
from typing import Any, NamedTuple

from core.codec import encode
from core.messages import Event, Message, Outcome

Row = tuple[str, str, str, bytes]


"""Table, id, parent, payload."""


class Record(NamedTuple):
    """A `Row` to write, as which it travels. In `facts` the newest value of an id stands; elsewhere the first."""

    table: str
    id: str
    parent: str
    payload: bytes


def as_row(record: Record) -> Row:
    """As it travels between actors: for Ray a class of ours costs 35 times as much to pickle as a tuple."""
    return (record.table, record.id, record.parent, record.payload)


def event(at: float, actor: str, kind: str, **detail: Any) -> Record:
    """A line of history as a record; `detail` must be JSON."""
    body = Event(at=at, actor=actor, kind=kind, detail=detail)
    return Record("events", "", "", body.model_dump_json().encode())


def fact(name: str, value: Any) -> Record:
    return Record("facts", name, "", json.dumps(value).encode())


def message(table: str, id: str, parent: str, body: Message) -> Record:
    return Record(table, id, parent, encode(body))


def outcome_records(outcome: Outcome) -> list[Record]:
    """An outcome as rows, each thing in the table of its kind."""
    place = str(outcome.place)
    rest = _without_parts(outcome, group_ids=tuple(scored.group.id for scored in outcome.scored))
    return [
        *(message("votes", vote.id, vote.prompt_id, vote) for vote in outcome.votes),
        *(message("groups", scored.group.id, place, scored) for scored in outcome.scored),
        *(message("examples", example.id, example.group_id, example) for example in outcome.examples),
        message("outcomes", place, outcome.prompt_id, rest),
    ]


def resettled_record(outcome: Outcome) -> Record:
    """A prompt settled again: its examples whole, since an id may weigh otherwise now. Groups are kept already."""
    body = outcome.model_copy(update={"scored": (), "votes": ()})
    return message("resettled", f"{outcome.place}:{outcome.revision}", str(outcome.place), body)


def _without_parts(outcome: Outcome, **update: Any) -> Outcome:
    empty: dict[str, Any] = {"scored": (), "votes": (), "imitate": (), "prefer": (), "reinforce": ()}
    return outcome.model_copy(update=empty | update)
