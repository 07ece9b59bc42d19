"""Reads rows of JSONL and Parquet files."""

import json
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from core.errors import ConfigError

FileRow = tuple[str, dict[str, Any]]
"""Position of the row (`pool.jsonl:17`) and its fields."""


def rows(
    path: Path, columns: Sequence[str], setting: str, reports: list[str], optional: Sequence[str] = ()
) -> Iterator[FileRow]:
    """All rows of the file, with these columns and those of `optional` that it has. Errors in single lines are appended
    to `reports`.

    Raises: ConfigError that names `setting` or the file, if the file cannot be read."""
    if not path.is_file():
        raise ConfigError(f"{setting}: there is no file {path}")
    match path.suffix:
        case ".jsonl":
            return _jsonl(path, reports)
        case ".parquet":
            return _parquet(path, columns, optional)
        case _:
            raise ConfigError(f"{setting}: {path} ends in {path.suffix!r}; expected .jsonl or .parquet")


def _jsonl(path: Path, reports: list[str]) -> Iterator[FileRow]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            where = f"{path}:{number}"
            if not line.strip():
                continue
            try:
                fields = json.loads(line)
            except (ValueError, RecursionError) as error:
                reports.append(f"{where}: not JSON: {error}")
                continue
            if isinstance(fields, dict):
                yield where, cast(dict[str, Any], fields)
            else:
                reports.append(f"{where}: {type(fields).__name__}, expected an object with named fields")


def _parquet(path: Path, columns: Sequence[str], optional: Sequence[str]) -> Iterator[FileRow]:
    parquet: Any = import_module("pyarrow.parquet")  # no type stubs; slow to import, and not needed for JSONL
    try:
        with parquet.ParquetFile(path) as file:
            present: list[str] = file.schema_arrow.names
            missing = [column for column in columns if column not in present]
            if missing:
                raise ConfigError(f"{path} has no column {missing[0]!r} (there are: {', '.join(present)})")
            number = 0
            read = [*columns, *(column for column in optional if column in present)]
            for batch in file.iter_batches(columns=read):
                for fields in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", fields
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path} is not a Parquet file: {error}") from None
