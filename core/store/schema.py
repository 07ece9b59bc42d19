"""The SQLite file of a run: opening, creation, migrations, and the meaning of SQLite's errors."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from core.artifacts import says_full
from core.errors import StoreError
from core.shipped import PROGRAM

SCHEMA = 4
READABLE = 1
"""The oldest schema that a reader, which migrates nothing, understands."""
TABLES = (
    "votes",
    "groups",
    "examples",
    "outcomes",
    "resettled",
    "versions",
    "decisions",
    "responses",
    "feedback",
    "asked",
)
FILE = "run.sqlite"
SHARD = "shard"
"""Name of a fact in each file of a run that an older program divided among several stores."""
WAL_BYTES = 64 * 2**20
"""The write-ahead log is truncated to this size after a long read made it grow."""
LOG_PAGES = 4000
"""Pages per checkpoint (16 MB): a page that changes repeatedly is then moved to the file once."""
CACHE_KB = 32 * 1024
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_HARMLESS = (*_BUSY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CONSTRAINT)
"""Errors after which the connection is still usable."""


def refuse_loss(run_dir: Path) -> None:
    """Raises: StoreError if the file is empty or missing although versions were trained: this is not a new run."""
    file, trained = run_dir / FILE, [path.name for path in run_dir.glob("versions/v*") if path.name != "v0000"]
    if file.exists() and file.stat().st_size > 0:
        return
    if trained:
        raise StoreError(f"{file} is empty or gone, but there are {len(trained)} versions; restore it from a backup")


def refuse_divided(db: sqlite3.Connection, path: Path) -> None:
    """Raises: StoreError for a run of several shards."""
    if db.execute("SELECT 1 FROM facts WHERE id = ?", (SHARD,)).fetchone() is not None:
        raise StoreError(
            f"{path} is one of several files of a run with run.shards above 1, expected one file a run; this version "
            "of Ratchet has no shards: export the run with the version that made it, or start a new run directory"
        )


def uri_of(path: Path, *, read_only: bool) -> str:
    return f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"


def open_file(path: Path, *, read_only: bool) -> sqlite3.Connection:
    return sqlite3.connect(uri_of(path, read_only=read_only), uri=True, timeout=30, check_same_thread=False)


def prepare(db: sqlite3.Connection, path: Path) -> None:
    """Create or migrate the tables in one transaction. Foreign and newer files are refused unchanged."""
    check_schema(db, path, 0)
    if schema_of(db) > 0:
        refuse_divided(db, path)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute(f"PRAGMA journal_size_limit={WAL_BYTES}")
    db.execute(f"PRAGMA wal_autocheckpoint={LOG_PAGES}")
    db.execute(f"PRAGMA cache_size=-{CACHE_KB}")
    with db:
        db.execute("BEGIN IMMEDIATE")
        found = schema_of(db)
        if found == 0:
            _create(db)
        for older in range(found or SCHEMA, SCHEMA):
            MIGRATIONS[older](db)
        if found != SCHEMA:
            db.execute(f"PRAGMA user_version = {SCHEMA}")
    _checkpoint_log(db, path)


def _checkpoint_log(db: sqlite3.Connection, path: Path) -> None:
    """Move the log into the file, synced.

    If a process died before its sync, or its sync failed, the log holds records that can be read but are not on disk.
    Writing such a record again changes nothing and would therefore sync nothing."""
    busy, *_ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise StoreError(f"{path} cannot be opened for writing while another process reads its log; try again")


def _create(db: sqlite3.Connection) -> None:
    for table in TABLES:
        _create_table(db, table)
    db.execute("CREATE TABLE IF NOT EXISTS facts (id TEXT PRIMARY KEY, value TEXT NOT NULL)")
    db.execute(
        "CREATE TABLE IF NOT EXISTS events (seq INTEGER PRIMARY KEY, at REAL NOT NULL, actor TEXT NOT NULL,"
        " kind TEXT NOT NULL, detail TEXT NOT NULL)"
    )
    _index_events(db)


def _create_table(db: sqlite3.Connection, table: str) -> None:
    db.execute(
        f"CREATE TABLE IF NOT EXISTS {table} (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE,"
        " parent TEXT NOT NULL, payload BLOB NOT NULL)"
    )
    db.execute(f"CREATE INDEX IF NOT EXISTS {table}_by_parent ON {table} (parent)")


def _to_2(db: sqlite3.Connection) -> None:
    _create_table(db, "resettled")
    _index_events(db)


def _to_3(db: sqlite3.Connection) -> None:
    for table in ("responses", "feedback", "asked"):
        _create_table(db, table)


def _to_4(db: sqlite3.Connection) -> None:
    """Short payloads carry a checksum, which older programs cannot read. Stored payloads stay unchanged."""


def _index_events(db: sqlite3.Connection) -> None:
    """Readers ask for one kind of event, and a run of weeks has hundreds of thousands of events."""
    db.execute("CREATE INDEX IF NOT EXISTS events_by_kind ON events (kind)")


MIGRATIONS: dict[int, Callable[[sqlite3.Connection], None]] = {1: _to_2, 2: _to_3, 3: _to_4}
"""Schema -> its migration to the next one."""


def schema_of(db: sqlite3.Connection, name: str = "main") -> int:
    """The schema of an open file; `name` is the name under which it is attached."""
    return int(db.execute(f"PRAGMA {name}.user_version").fetchone()[0])


def check_schema(db: sqlite3.Connection, path: Path, oldest: int, name: str = "main") -> None:
    """Raises: StoreError for a foreign file, and for a schema that is newer than ours or older than `oldest`."""
    found = schema_of(db, name)
    if found > SCHEMA:
        raise StoreError(f"{path} has schema {found}, this program knows {SCHEMA}; use the Ratchet that wrote it")
    tables = {name for (name,) in db.execute(f"SELECT name FROM {name}.sqlite_master WHERE type = 'table'")}
    if found < 0 or tables - {*TABLES, "facts", "events"} or (found > 0 and not tables):
        raise StoreError(f"{path} is not a run of Ratchet (tables: {sorted(tables)}); restore it from a backup")
    if found < oldest:
        raise StoreError(f"{path} has schema {found}, which is too old to read; `{PROGRAM} up --dir` migrates it")


def _code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def is_harmless(error: sqlite3.Error) -> bool:
    """Whether the connection is still usable."""
    return _code(error) in _HARMLESS


def way_out(error: sqlite3.Error) -> str:
    """The remedy to put in a message."""
    return "another process holds it; try again" if _code(error) in _BUSY else "restore it from a backup"


def is_full(error: sqlite3.Error, folder: Path) -> bool:
    """Whether the disk is full. SQLite reports it for writes, but not for syncs and never for a quota, so this tries to
    write a file."""
    if _code(error) == sqlite3.SQLITE_FULL:
        return True
    probe = folder / f".room.{os.getpid()}"
    try:
        with probe.open("wb", buffering=0) as file:
            file.write(bytes(4096))
            os.fsync(file.fileno())
    except OSError as failure:
        return says_full(failure)
    finally:
        with suppress(OSError):
            probe.unlink()
    return False


def known(table: str) -> str:
    """The name itself, safe to put into a query. Raises: StoreError for an unknown table."""
    if table not in TABLES:
        raise StoreError(f"no table {table!r}; expected one of {', '.join(TABLES)}")
    return table
