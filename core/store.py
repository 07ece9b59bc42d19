"""The run's memory on disk: one SQLite file, one writer, any number of readers.

Every record has an id of its own, so that writing it again changes nothing. A write returns when it is on disk
(WAL, synchronous=FULL): what was acknowledged survives a crash. Payloads are `core.codec` bytes.

    votes      parent: prompt id      a Vote
    groups     parent: place          a Scored
    examples   parent: group id       an Example
    outcomes   parent: prompt id      an Outcome without what the three tables above hold; id: the place
    versions   parent: parent's name  a Published; id: policy@vN
    decisions  parent: policy@vN      a Decision
    facts      replaceable: small JSON values by name (lineage, ledger, windows drawn, measurements)
    events     the run's history, one JSON line each
"""

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from core.codec import decode, encode
from core.errors import StoreError
from core.messages import Event, Example, Imitate, Message, Outcome, Prefer, Published, Reinforce, Scored

SCHEMA = 1
TABLES = ("votes", "groups", "examples", "outcomes", "versions", "decisions")
FILE = "run.sqlite"

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
    rest = outcome.model_copy(update={"scored": (), "votes": (), "imitate": (), "prefer": (), "reinforce": ()})
    return [
        *(message("votes", vote.id, vote.prompt_id, vote) for vote in outcome.votes),
        *(message("groups", scored.group.id, place, scored) for scored in outcome.scored),
        *(message("examples", example.id, example.group_id, example) for example in outcome.examples),
        message("outcomes", place, outcome.prompt_id, rest),
    ]


class RunStore:
    """The writer. One a run directory; calls may come from any thread, one at a time."""

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / FILE
        self._lock = threading.Lock()  # sqlite3 crashes when it is closed under a running statement
        self._closed = False
        try:
            self._db = _open(self._path, read_only=False)
            self._db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;")
            _create(self._db)
            _check_schema(self._db, self._path)
        except sqlite3.Error as error:
            raise StoreError(f"{self._path} cannot be opened ({error}); restore it from a backup") from None

    def write(self, records: Iterable[Record]) -> int:
        """Write all or none; returns how many were new. On disk when it returns.

        Raises: StoreError, and then nothing was written."""
        with self._lock:
            if self._closed:
                raise StoreError(f"{self._path} is closed; nothing was written")
            before = self._db.total_changes
            try:
                with self._db:
                    for record in records:
                        self._insert(record)
            except sqlite3.Error as error:
                raise StoreError(f"{self._path} refused a write ({error}); nothing of it was kept") from None
            return self._db.total_changes - before

    def close(self) -> None:
        """After the write that is under way; idempotent."""
        with self._lock:
            self._closed = True
            self._db.close()

    def _insert(self, record: Record) -> None:
        if record.table == "events":
            body = json.loads(record.payload)
            self._db.execute(
                "INSERT INTO events (at, actor, kind, detail) VALUES (?, ?, ?, ?)",
                (body["at"], body["actor"], body["kind"], json.dumps(body["detail"])),
            )
        elif record.table == "facts":
            self._db.execute(
                "INSERT INTO facts (id, value) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET value = excluded.value",
                (record.id, record.payload.decode()),
            )
        elif record.table in TABLES:
            self._db.execute(
                f"INSERT OR IGNORE INTO {record.table} (id, parent, payload) VALUES (?, ?, ?)",
                (record.id, record.parent, record.payload),
            )
        else:
            raise StoreError(f"no table {record.table!r}; expected one of {', '.join((*TABLES, 'facts', 'events'))}")


class RunReader:
    """Reads a run, running or stopped, without disturbing its writer."""

    def __init__(self, run_dir: Path) -> None:
        path = run_dir / FILE
        if not path.is_file():
            raise StoreError(f"{run_dir} holds no {FILE}: it is no run directory")
        try:
            self._db = _open(path, read_only=True)
            _check_schema(self._db, path)
        except sqlite3.Error as error:
            raise StoreError(f"{path} cannot be read ({error}); restore it from a backup") from None

    def all(self, table: str, kind: type[M]) -> Iterator[M]:
        """Every record of a table, oldest first."""
        for (payload,) in self._db.execute(f"SELECT payload FROM {_known(table)} ORDER BY seq"):
            yield decode(kind, payload)

    def children(self, table: str, kind: type[M], parent: str) -> list[M]:
        rows = self._db.execute(f"SELECT payload FROM {_known(table)} WHERE parent = ? ORDER BY seq", (parent,))
        return [decode(kind, payload) for (payload,) in rows]

    def outcomes(self) -> Iterator[Outcome]:
        """Every delivered outcome as it came, oldest first; without the votes."""
        for rest in self.all("outcomes", Outcome):
            scored = self.children("groups", Scored, str(rest.place))
            examples = [e for s in scored for e in self.children("examples", Example, s.group.id)]
            yield rest.model_copy(
                update={
                    "scored": tuple(scored),
                    "imitate": tuple(e for e in examples if isinstance(e, Imitate)),
                    "prefer": tuple(e for e in examples if isinstance(e, Prefer)),
                    "reinforce": tuple(e for e in examples if isinstance(e, Reinforce)),
                }
            )

    def get(self, table: str, kind: type[M], id: str) -> M | None:
        row = self._db.execute(f"SELECT payload FROM {_known(table)} WHERE id = ?", (id,)).fetchone()
        return decode(kind, row[0]) if row else None

    def count(self, table: str) -> int:
        return int(self._db.execute(f"SELECT count(*) FROM {_known(table)}").fetchone()[0])

    def fact(self, name: str, default: Any = None) -> Any:
        row = self._db.execute("SELECT value FROM facts WHERE id = ?", (name,)).fetchone()
        return json.loads(row[0]) if row else default

    def facts(self, prefix: str) -> dict[str, Any]:
        rows = self._db.execute("SELECT id, value FROM facts WHERE id >= ? AND id < ?", (prefix, prefix + "\U0010ffff"))
        return {id: json.loads(value) for id, value in rows}

    def events(self, *kinds: str, after: int = 0, newest: int | None = None) -> list[Event]:
        """Events oldest first; only these kinds if any are named, only the newest so many if asked."""
        where = f"AND kind IN ({','.join('?' * len(kinds))})" if kinds else ""
        rows = self._db.execute(
            f"SELECT at, actor, kind, detail FROM events WHERE seq > ? {where} ORDER BY seq DESC LIMIT ?",
            (after, *kinds, -1 if newest is None else newest),
        ).fetchall()
        return [Event(at=at, actor=who, kind=kind, detail=json.loads(detail)) for at, who, kind, detail in rows[::-1]]

    def versions(self) -> list[Published]:
        return list(self.all("versions", Published))

    def close(self) -> None:
        self._db.close()


def _open(path: Path, *, read_only: bool) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
    return sqlite3.connect(uri, uri=True, timeout=30, check_same_thread=False)


def _create(db: sqlite3.Connection) -> None:
    with db:
        for table in TABLES:
            db.execute(
                f"CREATE TABLE IF NOT EXISTS {table} (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE,"
                " parent TEXT NOT NULL, payload BLOB NOT NULL)"
            )
            db.execute(f"CREATE INDEX IF NOT EXISTS {table}_by_parent ON {table} (parent)")
        db.execute("CREATE TABLE IF NOT EXISTS facts (id TEXT PRIMARY KEY, value TEXT NOT NULL)")
        db.execute(
            "CREATE TABLE IF NOT EXISTS events (seq INTEGER PRIMARY KEY, at REAL NOT NULL, actor TEXT NOT NULL,"
            " kind TEXT NOT NULL, detail TEXT NOT NULL)"
        )
        if db.execute("PRAGMA user_version").fetchone()[0] == 0:
            db.execute(f"PRAGMA user_version = {SCHEMA}")


def _check_schema(db: sqlite3.Connection, path: Path) -> None:
    found = db.execute("PRAGMA user_version").fetchone()[0]
    if found != SCHEMA:
        raise StoreError(f"{path} has schema {found}, this program reads {SCHEMA}; use the Ratchet that wrote it")


def _known(table: str) -> str:
    if table not in TABLES:
        raise StoreError(f"no table {table!r}; expected one of {', '.join(TABLES)}")
    return table
