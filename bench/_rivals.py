"""Runs other people's programs in an environment of their own, `.venv-rivals`, which is made at the first use."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from actors.inspect.surroundings import ROOT
from core.errors import RatchetError

FOLDER, LOCK = ROOT / ".venv-rivals", ROOT / "locks" / "rivals.txt"
SCRIPTS = Path(__file__).parent / "rivals"


def answer(script: str, given: Any) -> Any:
    """What `bench/rivals/SCRIPT.py` answers to this JSON on its standard input. Raises: RatchetError with its end."""
    done = subprocess.run(
        [str(python()), str(SCRIPTS / f"{script}.py")], input=json.dumps(given), capture_output=True, text=True
    )
    if done.returncode:
        raise RatchetError(f"bench/rivals/{script}.py failed: {done.stderr[-500:]}")
    return json.loads(done.stdout)


def python() -> Path:
    """The interpreter of the rivals. Raises: RatchetError if they cannot be installed."""
    own, stamp = FOLDER / "bin" / "python", FOLDER / ".installed"
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text() == digest:
        return own
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(FOLDER)],
        [str(own), "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", str(LOCK)],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RatchetError(f"the rivals could not be installed: {done.stderr[-500:]}")
    stamp.write_text(digest)
    return own
