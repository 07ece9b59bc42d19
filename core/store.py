"""The run's memory on disk: one SQLite file, one writer, any number of readers.

Every record has an id of its own, so that writing it again changes nothing. A write returns when it is on disk
(WAL, synchronous=FULL): what was acknowledged survives a crash, of the process and of the machine. A write that is
refused was not acknowledged; after a disk that failed to sync, it may be found all the same. Payloads are `core.codec`
bytes.

    votes      parent: prompt id      a Vote
    groups     parent: place          a Scored
    examples   parent: group id       an Example
    outcomes   parent: prompt id      an Outcome without what the three tables above hold; id: the place
    resettled  parent: place          an Outcome's examples with late votes, the newest stands; id: place:revision
    versions   parent: parent's name  a Published; id: policy@vN
    decisions  parent: policy@vN      a Decision
    responses  parent: prompt id      a Response to a user
    feedback   parent: key            a Feedback on a response
    asked      parent: its origin     a Prompt that somebody asked, to be explored
    facts      replaceable: small JSON values by name (lineage, ledger, windows drawn, measurements)
    events     the run's history, one JSON line each
"""

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from core.codec import decode, encode
from core.errors import ArtifactError, StorageFull, StoreError
from core.messages import (
    Event,
    Example,
    Imitate,
    Message,
    Outcome,
    Prefer,
    Prompt,
    Published,
    Reinforce,
    Scored,
    Vote,
)
from core.store_file import (
    FILE,
    READABLE,
    TABLES,
    check_schema,
    is_full,
    is_harmless,
    known,
    open_file,
    prepare,
    refuse_loss,
    schema_of,
    way_out,
)

M = TypeVar("M", bound=Message)


class Record(NamedTuple):
    """One row to write. In `facts` the newest value of an id stands; elsewhere the first."""

    table: str
    id: str
    parent: str
    payload: bytes


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


@dataclass
class Forgotten:
    """Rows that were thrown away."""

    groups: int = 0
    examples: int = 0
    votes: int = 0


class RunStore:
    """The writer. One a run directory; calls may come from any thread, one at a time."""

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / FILE
        self._lock = threading.Lock()  # sqlite3 crashes when it is closed under a running statement
        self._closed = False
        refuse_loss(run_dir)
        self._db: sqlite3.Connection | None = self._connect()

    def write(self, records: Iterable[Record]) -> int:
        """Write all or none; returns how many were new. On disk when it returns.

        Raises: StoreError, and then nothing was acknowledged; StorageFull, and then nothing was written."""
        with self._lock:
            db = self._ready()
            before = db.total_changes
            try:
                with db:
                    for record in records:
                        _insert(db, record)
            except sqlite3.Error as error:
                raise self._refusal(error) from None
            return db.total_changes - before

    def forget(self, places: Sequence[int], failure: str | None = None) -> Forgotten:
        """Throw away groups, examples and sample votes of these places. The outcomes stay, so that no place is used
        twice; with `failure` they say from now on that nothing came of them. Votes of people stay.

        The room is used again by what is written later: the file does not shrink, nor does it grow."""
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
        """Rows by table and id, all or none; returns how many there were. On disk when it returns."""
        with self._lock:
            db = self._ready()
            before = db.total_changes
            try:
                with db:
                    for table, some in ids.items():
                        name = table if table == "facts" else known(table)
                        db.executemany(f"DELETE FROM {name} WHERE id = ?", [(id,) for id in some])
            except sqlite3.Error as error:
                raise self._refusal(error) from None
            return db.total_changes - before

    def forget_responses(self, keep: int) -> int:
        """Throw away all but the newest so many answers of users, and what was asked and is explored by now; votes and
        feedback stay."""
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
        """After the write that is under way; idempotent."""
        with self._lock:
            self._closed = True
            self._let_go()

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
        """After a failed write or sync the connection's picture of the file is not trusted: the next write takes a
        new one, which reads from the log what is really there."""
        if not is_harmless(error):
            self._let_go()
        if is_full(error, self._path.parent):
            return StorageFull(f"{self._path}: no room on the disk ({error}); nothing was written; free some")
        return StoreError(f"{self._path} refused a write ({error}); nothing of it was acknowledged")

    def _let_go(self) -> None:
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()
            self._db = None


def _insert(db: sqlite3.Connection, record: Record) -> None:
    if record.table == "events":
        body = json.loads(record.payload)
        db.execute(
            "INSERT INTO events (at, actor, kind, detail) VALUES (?, ?, ?, ?)",
            (body["at"], body["actor"], body["kind"], json.dumps(body["detail"])),
        )
    elif record.table == "facts":
        db.execute(
            "INSERT INTO facts (id, value) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET value = excluded.value",
            (record.id, record.payload.decode()),
        )
    elif record.table in TABLES:
        db.execute(
            f"INSERT OR IGNORE INTO {record.table} (id, parent, payload) VALUES (?, ?, ?)",
            (record.id, record.parent, record.payload),
        )
    else:
        raise StoreError(f"no table {record.table!r}; expected one of {', '.join((*TABLES, 'facts', 'events'))}")


def _forget_place(db: sqlite3.Connection, place: int, gone: Forgotten) -> None:
    groups = db.execute("SELECT id, payload FROM groups WHERE parent = ?", (str(place),)).fetchall()
    for id, payload in groups:
        gone.votes += _forget_votes(db, payload)
        gone.examples += db.execute("DELETE FROM examples WHERE parent = ?", (id,)).rowcount
    gone.groups += db.execute("DELETE FROM groups WHERE parent = ?", (str(place),)).rowcount
    db.execute("DELETE FROM resettled WHERE parent = ?", (str(place),))


def _forget_votes(db: sqlite3.Connection, payload: bytes) -> int:
    """Those that samples of this group cast; the prompt may have others, of people and of another epoch."""
    scored = _readable(Scored, payload)
    if scored is None:  # nobody can tell any more whose votes they are
        return 0
    candidates = {candidate.id for candidate in scored.group.candidates}
    cast = db.execute("SELECT id, payload FROM votes WHERE parent = ?", (scored.group.prompt.id,)).fetchall()
    votes = [(id, _readable(Vote, body)) for id, body in cast]
    mine = [(id,) for id, vote in votes if vote and vote.by == "sample" and vote.candidate_id in candidates]
    db.executemany("DELETE FROM votes WHERE id = ?", mine)
    return len(mine)


def _mark_failed(db: sqlite3.Connection, place: int, failure: str) -> None:
    row = db.execute("SELECT payload FROM outcomes WHERE id = ?", (str(place),)).fetchone()
    outcome = _readable(Outcome, row[0]) if row else None
    if outcome is not None:
        marked = encode(outcome.model_copy(update={"failure": failure}))
        db.execute("UPDATE outcomes SET payload = ? WHERE id = ?", (marked, str(place)))


def _readable(kind: type[M], payload: bytes) -> M | None:
    """None for a damaged record: pruning goes past it, reading names it."""
    try:
        return decode(kind, payload)
    except ArtifactError:
        return None


class RunReader:
    """Reads a run, running or stopped, without disturbing its writer. Raises: StoreError for what cannot be read."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._path = run_dir / FILE
        if not self._path.is_file():
            raise StoreError(f"{run_dir} holds no {FILE}: it is no run directory")
        try:
            self._db = open_file(self._path, read_only=True)
            check_schema(self._db, self._path, READABLE)
            self._schema = schema_of(self._db)
        except sqlite3.Error as error:
            raise StoreError(f"{self._path} cannot be read ({error}); {way_out(error)}") from None

    def all(self, table: str, kind: type[M]) -> Iterator[M]:
        """Every record of a table, oldest first."""
        for id, payload in self._rows(f"SELECT id, payload FROM {known(table)} ORDER BY seq"):
            yield self._decoded(kind, table, id, payload)

    def children(self, table: str, kind: type[M], parent: str) -> list[M]:
        rows = self._rows(f"SELECT id, payload FROM {known(table)} WHERE parent = ? ORDER BY seq", parent)
        return [self._decoded(kind, table, id, payload) for id, payload in rows]

    def page(self, table: str, kind: type[M], parent: str, after: int, limit: int) -> list[tuple[int, M]]:
        """So many of a parent's records that were written after number `after`, each with its number."""
        query = f"SELECT seq, id, payload FROM {known(table)} WHERE parent = ? AND seq > ? ORDER BY seq LIMIT ?"
        rows = list(self._rows(query, parent, after, limit)) if self._schema >= 3 else []
        return [(int(seq), self._decoded(kind, table, id, payload)) for seq, id, payload in rows]

    def asked_in_vain(self) -> list[Prompt]:
        """What somebody asked, and nobody has explored yet, oldest first."""
        explored = "SELECT 1 FROM outcomes WHERE outcomes.parent = asked.id"
        query = f"SELECT id, payload FROM asked WHERE NOT EXISTS ({explored}) ORDER BY seq"
        rows = list(self._rows(query)) if self._schema >= 3 else []
        return [self._decoded(Prompt, "asked", id, payload) for id, payload in rows]

    def ids(self, table: str, parent: str | None = None) -> list[str]:
        """Of every record of a table, or of one parent's, oldest first."""
        where, values = ("", ()) if parent is None else ("WHERE parent = ?", (parent,))
        rows = self._rows(f"SELECT id FROM {known(table)} {where} ORDER BY seq", *values)
        return [str(id) for (id,) in rows]

    def which(self, table: str, ids: Sequence[str]) -> set[str]:
        """Those of these ids that the table holds."""
        query = f"SELECT id FROM {known(table)} WHERE id IN (SELECT value FROM json_each(?))"
        return {str(id) for (id,) in self._rows(query, json.dumps(list(ids)))}

    def outcomes(self) -> Iterator[Outcome]:
        """Every delivered outcome as it came, oldest first; without the votes, and what was forgotten is not there."""
        for rest in self.all("outcomes", Outcome):
            yield self._whole(rest)

    def outcome(self, place: int) -> Outcome | None:
        """One delivered outcome as it stands: with the examples of its newest settling. Without the votes."""
        rest = self.get("outcomes", Outcome, str(place))
        if rest is None:
            return None
        whole = self._whole(rest)
        again = self.children("resettled", Outcome, str(place)) if self._schema >= 2 else []
        if not again or not whole.scored:  # what was forgotten is not there
            return whole
        newest = max(again, key=lambda settled: settled.revision)
        names = ("imitate", "prefer", "reinforce", "drops", "revision")
        return whole.model_copy(update={name: getattr(newest, name) for name in names})

    def briefs(self, after_place: int | None = None) -> Iterator[Outcome]:
        """Outcomes without groups, votes and examples, oldest first; only those stored after that of a place."""
        after = next(self._rows("SELECT seq FROM outcomes WHERE id = ?", str(after_place)), (0,))[0]
        for id, payload in list(self._rows("SELECT id, payload FROM outcomes WHERE seq > ? ORDER BY seq", after)):
            yield self._decoded(Outcome, "outcomes", id, payload)

    def _whole(self, rest: Outcome) -> Outcome:
        kept = self.children("groups", Scored, str(rest.place))
        if rest.group_ids is not None:  # a place explored twice, the second time in vain, has other groups too
            kept = [scored for scored in kept if scored.group.id in rest.group_ids]
        examples = [e for s in kept for e in self.children("examples", Example, s.group.id)]
        return rest.model_copy(
            update={
                "scored": tuple(kept),
                "imitate": tuple(e for e in examples if isinstance(e, Imitate)),
                "prefer": tuple(e for e in examples if isinstance(e, Prefer)),
                "reinforce": tuple(e for e in examples if isinstance(e, Reinforce)),
            }
        )

    def places_held(self) -> set[int]:
        """Places whose groups were not forgotten."""
        return {self._int(place) for (place,) in self._rows("SELECT DISTINCT parent FROM groups")}

    def get(self, table: str, kind: type[M], id: str) -> M | None:
        rows = list(self._rows(f"SELECT payload FROM {known(table)} WHERE id = ?", id))
        return self._decoded(kind, table, id, rows[0][0]) if rows else None

    def count(self, table: str) -> int:
        return sum(int(n) for (n,) in self._rows(f"SELECT count(*) FROM {known(table)}"))

    def fact(self, name: str, default: Any = None) -> Any:
        rows = list(self._rows("SELECT value FROM facts WHERE id = ?", name))
        return self._json("fact", name, rows[0][0]) if rows else default

    def fact_names(self, prefix: str) -> list[str]:
        end = prefix + "\U0010ffff"
        return [str(id) for (id,) in self._rows("SELECT id FROM facts WHERE id >= ? AND id < ?", prefix, end)]

    def facts(self, prefix: str) -> dict[str, Any]:
        rows = self._rows("SELECT id, value FROM facts WHERE id >= ? AND id < ?", prefix, prefix + "\U0010ffff")
        return {id: self._json("fact", id, value) for id, value in rows}

    def events(self, *kinds: str, after: int = 0, newest: int | None = None) -> list[Event]:
        """Events oldest first; only these kinds if any are named, only the newest so many if asked."""
        return [event for _, event in self.numbered_events(*kinds, after=after, newest=newest)]

    def numbered_events(self, *kinds: str, after: int = 0, newest: int | None = None) -> list[tuple[int, Event]]:
        """The same, each with its number in the run's history: 1 for the first."""
        where = f"AND kind IN ({','.join('?' * len(kinds))})" if kinds else ""
        rows = list(
            self._rows(
                f"SELECT seq, at, actor, kind, detail FROM events WHERE seq > ? {where} ORDER BY seq DESC LIMIT ?",
                after,
                *kinds,
                -1 if newest is None else newest,
            )
        )
        return [(row[0], self._event(*row)) for row in rows[::-1]]

    def newest_event(self) -> int:
        """The number of the event written last; 0 before the first."""
        return next(self._rows("SELECT coalesce(max(seq), 0) FROM events"))[0]

    def versions(self) -> list[Published]:
        return [here(published, self._run_dir) for published in self.all("versions", Published)]

    def close(self) -> None:
        self._db.close()

    def _rows(self, query: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        try:
            for row in self._db.execute(query, values):  # noqa: UP028  # `yield from` would close it after the file
                yield row
        except sqlite3.Error as error:
            raise StoreError(f"{self._path} cannot be read ({error}); {way_out(error)}") from None

    def _decoded(self, kind: type[M], table: str, id: object, payload: Any) -> M:
        try:
            if not isinstance(payload, bytes):
                raise ArtifactError(f"it holds {type(payload).__name__}, expected bytes")
            return decode(kind, payload)
        except ArtifactError as error:
            raise self._damaged(table, id, error) from None

    def _json(self, what: str, name: object, text: Any) -> Any:
        try:
            return json.loads(text)
        except (TypeError, ValueError, RecursionError) as error:
            raise self._damaged(what, name, error) from None

    def _event(self, seq: int, at: Any, actor: Any, kind: Any, detail: Any) -> Event:
        try:
            return Event(at=at, actor=actor, kind=kind, detail=self._json("events", seq, detail))
        except ValueError as error:
            raise self._damaged("events", seq, error) from None

    def _int(self, place: Any) -> int:
        try:
            return int(place)
        except (TypeError, ValueError) as error:
            raise self._damaged("groups", place, error) from None

    def _damaged(self, what: str, name: object, error: Exception) -> StoreError:
        return StoreError(f"{self._path}: {what} {name!r} is damaged ({error}); restore it from a backup")


def here(published: Published, run_dir: Path) -> Published:
    """A version of a run directory that was moved or restored lies in it, whatever path was written down."""
    folder = (run_dir / "versions" / Path(published.path).name).absolute()
    if folder.is_dir() and Path(published.path).parent.name == "versions":
        return published.model_copy(update={"path": str(folder)})
    return published
