"""Runs of a fixed number of versions, as child processes."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def finished(folder: Path, config: str, versions: int, seed: int, settings: Sequence[str]) -> dict[str, Any]:
    """The report of `ratchet up --versions N` in `folder`. A finished run is not repeated; an interrupted run resumes.

    Raises: CalledProcessError."""
    if not (folder / "report.json").is_file():
        command = [sys.executable, "-m", "actors.cli", "up", "--config", config, "--versions", str(versions)]
        command += ["--seed", str(seed), "--port", "0", "--dir", str(folder), *settings]
        subprocess.run(command, check=True, stdout=sys.stderr)
    return json.loads((folder / "report.json").read_text())
