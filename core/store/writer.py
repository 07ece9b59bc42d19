"""The store of a run: one SQLite file, one writer, any number of readers.

Every record has its own id, so that writing it again changes nothing. A write returns when it is on disk (WAL,
synchronous=FULL): acknowledged records survive a crash of the process and of the machine. A refused write is not
acknowledged, but if the disk failed to sync, its records may still be found later. Payloads are `core.codec` bytes.

    votes      parent: prompt id      a Vote
    groups     parent: place          a Scored
    examples   parent: group id       an Example
    outcomes   parent: prompt id      an Outcome without the content of the three tables above; id: the place
    resettled  parent: place          an Outcome's examples with late votes, newest counts; id: place:revision
    versions   parent: parent's name  a Published; id: policy@vN
    decisions  parent: policy@vN      a Decision
    responses  parent: prompt id      a Response to a user
    feedback   parent: key            a Feedback on a response
    asked      parent: its origin     a Prompt that a person asked, to be explored
    facts      replaceable: small JSON values by name (core.store.facts)
    events     the run's history, one Event each
"""

import json
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from core.codec import decode, encode, sample_vote_id
from core.errors import ArtifactError, StorageFull, StoreError
from core.messages import Message, Outcome, Scored, Vote
from core.store.reader import RunReader, here
from core.store.records import Record, Row, event, fact, message, outcome_records, resettled_record
from core.store.schema import (
    FILE,
    TABLES,
    is_full,
    is_harmless,
    known,
    open_file,
    prepare,
    refuse_loss,
    way_out,
)

__all__ = [
    "FILE",
    "Forgotten",
    "Record",
    "Row",
    "RunReader",
    "RunStore",
    "event",
    "fact",
    "here",
    "message",
    "outcome_records",
    "resettled_record",
]

M = TypeVar("M", bound=Message)


@dataclass
class Forgotten:
    """Numbers of deleted rows."""

    groups: int = 0
    examples: int = 0
    votes: int = 0


class RunStore:
    """The one writer of a run directory. Any thread may call; calls run one at a time."""

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / FILE
        self._lock = threading.Lock()  # sqlite3 crashes if it is closed during a statement
        self._closed = False
        refuse_loss(run_dir)
        self._db: sqlite3.Connection | None = self._connect()

    def write(self, records: Iterable[Row]) -> int:
        """Write all or none, and return how many were new. They are on disk when it returns.

        Raises: StoreError: nothing was acknowledged; StorageFull: nothing was written."""
        with self._lock:
            db = self._ready()
            before = db.total_changes
            try:
                with db:
                    _insert(db, records)
            except sqlite3.Error as error:
                raise self._refusal(error) from None
            return db.total_changes - before

    def forget(self, places: Sequence[int], failure: str | None = None) -> Forgotten:
        """Delete groups, examples and sample votes of these places. Votes of people stay. Outcomes stay too, so that no
        place is used twice; `failure`, if given, marks them as failed.

        Later writes reuse the free pages: the file neither shrinks nor grows."""
        gone = Forgotten()
        with self._lock:
            db = self._ready()
            try:
                with db:
                    for place in places:
                        _forget_place(db, place, gone)
                        if failure is not None:
                            _mark_failed(db, place, failure)
            except sqlite3.Error as error:
                raise self._refusal(error) from None
        return gone

    def remove(self, ids: Mapping[str, Sequence[str]]) -> int:
        """Delete rows by table and id, all or none, and return how many existed. On disk when it returns."""
        with self._lock:
            db = self._ready()
            before = db.total_changes
            try:
                with db:
                    for table, row_ids in ids.items():
                        name = table if table == "facts" else known(table)
                        db.executemany(f"DELETE FROM {name} WHERE id = ?", [(id,) for id in row_ids])
            except sqlite3.Error as error:
                raise self._refusal(error) from None
            return db.total_changes - before

    def forget_responses(self, keep: int) -> int:
        """Delete all but the `keep` newest responses to users, and people's prompts that are explored by now. Votes
        and feedback stay."""
        with self._lock:
            db = self._ready()
            try:
                with db:
                    last = "SELECT seq FROM responses ORDER BY seq DESC LIMIT 1 OFFSET ?"
                    explored = "EXISTS (SELECT 1 FROM outcomes WHERE outcomes.parent = asked.id)"
                    db.execute(f"DELETE FROM asked WHERE {explored}")
                    return db.execute(f"DELETE FROM responses WHERE seq <= ({last})", (keep,)).rowcount
            except sqlite3.Error as error:
                raise self._refusal(error) from None

    def close(self) -> None:
        """Close after the current write; idempotent."""
        with self._lock:
            self._closed = True
            self._disconnect()

    def _ready(self) -> sqlite3.Connection:
        if self._closed:
            raise StoreError(f"{self._path} is closed; nothing was written")
        if self._db is None:
            self._db = self._connect()
        return self._db

    def _connect(self) -> sqlite3.Connection:
        db: sqlite3.Connection | None = None
        try:
            db = open_file(self._path, read_only=False)
            prepare(db, self._path)
            return db
        except StoreError:
            if db is not None:
                db.close()
            raise
        except sqlite3.Error as error:
            if db is not None:
                db.close()
            if is_full(error, self._path.parent):
                raise StorageFull(f"no room on the disk to open {self._path} ({error}); free some") from None
            raise StoreError(f"{self._path} cannot be opened ({error}); {way_out(error)}") from None

    def _refusal(self, error: sqlite3.Error) -> StoreError:
        """The error to raise. After a failed write or sync the connection's cached pages are not trusted: the next
        write opens a new connection, which reads the log again."""
        if not is_harmless(error):
            self._disconnect()
        if is_full(error, self._path.parent):
            return StorageFull(f"{self._path}: no room on the disk ({error}); nothing was written; free some")
        return StoreError(f"{self._path} refused a write ({error}); nothing of it was acknowledged")

    def _disconnect(self) -> None:
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()
            self._db = None


def _insert(db: sqlite3.Connection, records: Iterable[Row]) -> None:
    """Insert the records grouped by table, in their order within a table."""
    rows: defaultdict[str, list[Row]] = defaultdict(list)
    for record in records:
        rows[record[0]].append(record)
    for table, of_table in rows.items():
        if table == "events":
            db.executemany("INSERT INTO events (at, actor, kind, detail) VALUES (?, ?, ?, ?)", map(_columns, of_table))
        elif table == "facts":
            db.executemany(
                "INSERT INTO facts (id, value) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET value = excluded.value",
                [(id, payload.decode()) for _, id, _, payload in of_table],
            )
        elif table in TABLES:
            db.executemany(
                f"INSERT OR IGNORE INTO {table} (id, parent, payload) VALUES (?, ?, ?)", [row[1:] for row in of_table]
            )
        else:
            raise StoreError(f"no table {table!r}; expected one of {', '.join((*TABLES, 'facts', 'events'))}")


def _columns(event: Row) -> tuple[float, str, str, str]:
    body = json.loads(event[3])
    return body["at"], body["actor"], body["kind"], json.dumps(body["detail"])


def _forget_place(db: sqlite3.Connection, place: int, gone: Forgotten) -> None:
    groups = db.execute("SELECT id, payload FROM groups WHERE parent = ?", (str(place),)).fetchall()
    for id, payload in groups:
        gone.votes += _forget_votes(db, payload)
        gone.examples += db.execute("DELETE FROM examples WHERE parent = ?", (id,)).rowcount
    gone.groups += db.execute("DELETE FROM groups WHERE parent = ?", (str(place),)).rowcount
    db.execute("DELETE FROM resettled WHERE parent = ?", (str(place),))


def _forget_votes(db: sqlite3.Connection, payload: bytes) -> int:
    """Delete the votes of this group's samples. The prompt may have other votes: of people, and of another epoch."""
    scored = _readable(Scored, payload)
    if scored is None:  # damaged: its votes cannot be identified
        return 0
    candidates = {candidate.id for candidate in scored.group.candidates}
    named = {sample_vote_id(candidate) for candidate in candidates}
    cast = {id for (id,) in db.execute("SELECT id FROM votes WHERE parent = ?", (scored.group.prompt.id,))}
    of_group = (cast & named) | {id for id in cast - named if _is_of_sample(db, id, candidates)}
    db.executemany("DELETE FROM votes WHERE id = ?", [(id,) for id in of_group])
    return len(of_group)


def _is_of_sample(db: sqlite3.Connection, id: str, candidates: set[str]) -> bool:
    """Whether one of the candidates cast this vote. In older runs the vote's id does not contain the candidate's."""
    vote = _readable(Vote, db.execute("SELECT payload FROM votes WHERE id = ?", (id,)).fetchone()[0])
    return vote is not None and vote.by == "sample" and vote.candidate_id in candidates


def _mark_failed(db: sqlite3.Connection, place: int, failure: str) -> None:
    row = db.execute("SELECT payload FROM outcomes WHERE id = ?", (str(place),)).fetchone()
    outcome = _readable(Outcome, row[0]) if row else None
    if outcome is not None:
        marked = encode(outcome.model_copy(update={"failure": failure}))
        db.execute("UPDATE outcomes SET payload = ? WHERE id = ?", (marked, str(place)))


def _readable(kind: type[M], payload: bytes) -> M | None:
    """None for a damaged record: pruning skips it; readers report it."""
    try:
        return decode(kind, payload)
    except ArtifactError:
        return None
