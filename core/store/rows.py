"""Rows of a run's file, decoded: the part of the reader that knows SQLite."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

from core.codec import decode
from core.errors import ArtifactError, StoreError
from core.messages import Event, Message
from core.store.facts import Answers, Fact
from core.store.schema import FILE, READABLE, check_schema, open_file, refuse_divided, schema_of, way_out

M = TypeVar("M", bound=Message)
F = TypeVar("F", bound=Fact | Answers)


class Rows:
    """Queries one file, and names the row that is damaged. Raises: StoreError for unreadable data."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._path = run_dir / FILE
        if not self._path.is_file():
            raise StoreError(f"{run_dir} holds no {FILE}: it is not a run directory")
        try:
            with ExitStack() as opened:
                self._db = open_file(self._path, read_only=True)
                opened.callback(self._db.close)
                check_schema(self._db, self._path, READABLE)
                self._schema = schema_of(self._db)
                refuse_divided(self._db, self._path)
                opened.pop_all()
        except sqlite3.Error as error:
            raise StoreError(f"{self._path} cannot be read ({error}); {way_out(error)}") from None

    def close(self) -> None:
        self._db.close()

    def _rows(self, query: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        try:
            for row in self._db.execute(query, values):  # noqa: UP028  # `yield from` closes the cursor after the file
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

    def _fact(self, kind: type[F], name: str, value: str) -> F | None:
        try:
            return None if value == "null" else kind.model_validate_json(value)
        except ValueError as error:
            raise self._damaged("fact", name, error) from None

    def _event(self, seq: int, at: Any, actor: Any, kind: Any, detail: Any) -> Event:
        try:
            return Event(at=at, actor=actor, kind=kind, detail=json.loads(detail))
        except (TypeError, ValueError, RecursionError) as error:
            raise self._damaged("events", seq, error) from None

    def _int(self, place: Any) -> int:
        try:
            return int(place)
        except (TypeError, ValueError) as error:
            raise self._damaged("groups", place, error) from None

    def _damaged(self, table: str, name: object, error: Exception) -> StoreError:
        return StoreError(f"{self._path}: {table} {name!r} is damaged ({error}); restore it from a backup")
