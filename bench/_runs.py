"""Results of a drill's finished runs, kept in one file."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Records:
    """Results of a drill's finished runs, one line each, so that a long drill can be spread over several machines.

    A line is used only for exactly the same settings: its key contains their digest."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
        self._found: dict[str, dict[str, Any]] = {line["run"]: line["found"] for line in lines}

    def get(self, name: str, settings: Sequence[str]) -> dict[str, Any] | None:
        return self._found.get(_key(name, settings))

    def add(self, name: str, settings: Sequence[str], found: dict[str, Any]) -> None:
        self._found[_key(name, settings)] = found
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps({"run": _key(name, settings), "found": found}) + "\n")


def _key(name: str, settings: Sequence[str]) -> str:
    return f"{name}-{hashlib.sha256(chr(10).join(settings).encode()).hexdigest()[:8]}"
