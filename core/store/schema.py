"""The file behind core.store.writer: how it is opened, made and brought up to date, and what SQLite's refusals mean."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from core.artifacts import says_full
from core.errors import StoreError

SCHEMA = 4
READABLE = 1
"""The oldest schema that a reader, which changes nothing, understands as it is."""
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
"""Fact in each file of a run that an older program divided among several stores."""
WAL_BYTES = 64 * 2**20
"""What a long reader made the log grow to is cut down to this again."""
LOG_PAGES = 4000
"""Moved from the log into the file at once, 16 MB: pages that change again and again are then moved once."""
CACHE_KB = 32 * 1024
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_HARMLESS = (*_BUSY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CONSTRAINT)
"""Refusals after which a connection is as good as before."""


def refuse_loss(run_dir: Path) -> None:
    """An empty file where versions were trained is no new run. Raises: StoreError."""
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
            "of Ratchet has no shards: export the run with the version that made it, or begin another run directory"
        )


def uri_of(path: Path, *, read_only: bool) -> str:
    return f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"


def open_file(path: Path, *, read_only: bool) -> sqlite3.Connection:
    return sqlite3.connect(uri_of(path, read_only=read_only), uri=True, timeout=30, check_same_thread=False)


def prepare(db: sqlite3.Connection, path: Path) -> None:
    """Create or bring up to date, in one transaction. A file that is not ours, or newer, is left as it is."""
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
    _settle_log(db, path)


def _settle_log(db: sqlite3.Connection, path: Path) -> None:
    """Move the log into the file, synced. A process that died before its sync, or whose sync failed, left records that
    can be read and are not on disk; writing one of them again would change nothing, and so would sync nothing."""
    busy, *_ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise StoreError(f"{path} cannot be taken over while another process reads from its log; try again")


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
    """Short payloads carry a check, which an older program cannot read; those that stand there stay as they are."""


def _index_events(db: sqlite3.Connection) -> None:
    """A run of weeks has hundreds of thousands of events, and readers ask for one kind."""
    db.execute("CREATE INDEX IF NOT EXISTS events_by_kind ON events (kind)")


MIGRATIONS: dict[int, Callable[[sqlite3.Connection], None]] = {1: _to_2, 2: _to_3, 3: _to_4}
"""Schema -> what makes it the next one."""


def schema_of(db: sqlite3.Connection, name: str = "main") -> int:
    """`name`: by which the file is attached."""
    return int(db.execute(f"PRAGMA {name}.user_version").fetchone()[0])


def check_schema(db: sqlite3.Connection, path: Path, oldest: int, name: str = "main") -> None:
    found = schema_of(db, name)
    if found > SCHEMA:
        raise StoreError(f"{path} has schema {found}, this program knows {SCHEMA}; use the Ratchet that wrote it")
    tables = {name for (name,) in db.execute(f"SELECT name FROM {name}.sqlite_master WHERE type = 'table'")}
    if found < 0 or tables - {*TABLES, "facts", "events"} or (found > 0 and not tables):
        raise StoreError(f"{path} is no run of Ratchet (tables: {sorted(tables)}); restore it from a backup")
    if found < oldest:
        raise StoreError(
            f"{path} has schema {found}, too old to be read as it is; `./run up --dir` brings it up to date"
        )


def _code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def is_harmless(error: sqlite3.Error) -> bool:
    """Whether the connection is as good as before."""
    return _code(error) in _HARMLESS


def way_out(error: sqlite3.Error) -> str:
    return "another process holds it; try again" if _code(error) in _BUSY else "restore it from a backup"


def is_full(error: sqlite3.Error, folder: Path) -> bool:
    """SQLite tells a full disk from a broken one when it writes, not when it syncs, and never for a quota: so try."""
    if _code(error) == sqlite3.SQLITE_FULL:
        return True
    probe = folder / f".room.{os.getpid()}"
    try:
        with probe.open("wb", buffering=0) as file:
            file.write(bytes(4096))
            os.fsync(file.fileno())
    except OSError as refusal:
        return says_full(refusal)
    finally:
        with suppress(OSError):
            probe.unlink()
    return False


def known(table: str) -> str:
    if table not in TABLES:
        raise StoreError(f"no table {table!r}; expected one of {', '.join(TABLES)}")
    return table
