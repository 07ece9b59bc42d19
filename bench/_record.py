"""What every benchmark's record says beside its figures: date, commit, settings and machine."""

import argparse
import hashlib
import json
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from actors.inspect.surroundings import ROOT, commit, load_average, machine
from core.config import load

PACKAGES = ("ray", "torch", "transformers")


class Surroundings:
    """Made before the benchmark starts; `found` is called after it. Neither holds a name or a path of the machine."""

    NAMES = ("commit", "date", "config_digest", "machine", "load_average", *PACKAGES)

    def __init__(self, module: ModuleType, options: argparse.Namespace) -> None:
        self._digest = config_digest(module, options)  # before the benchmark changes its options
        self._date = datetime.now(UTC).isoformat(timespec="seconds")
        self._load = load_average()

    def found(self) -> dict[str, Any]:
        values = commit(), self._date, self._digest, machine(), {"start": self._load, "end": load_average()}
        return dict(zip(self.NAMES, (*values, *map(version, PACKAGES)), strict=True))


def config_digest(module: ModuleType, options: argparse.Namespace) -> str:
    """Digest of the options and of the config that they lead to. Folders do not change it."""
    given = {name: value for name, value in vars(options).items() if not isinstance(value, Path)}
    settings = [*getattr(module, "SETTINGS", ()), *given.get("overrides", ())]
    config = load(given.get("config", "configs/tiny.yaml"), settings).model_dump_json()
    text = json.dumps([module.__name__, given, config.replace(f"{ROOT}/", "")], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
