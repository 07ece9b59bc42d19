"""Runs other people's programs in an environment of their own, `.venv-rivals`, which is made at the first use.

What they need and we have (torch, vLLM, transformers, peft) they read from our environment, so both sides compute with
the same versions.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from site import getsitepackages
from typing import Any

from actors.inspect.surroundings import ROOT
from core.errors import RatchetError

FOLDER, LOCK = ROOT / ".venv-rivals", ROOT / "locks" / "rivals.txt"
SCRIPTS = Path(__file__).parent / "rivals"


def answer(script: str, given: Any) -> Any:
    """The last line of what `bench/rivals/SCRIPT.py` prints when it reads this JSON. Raises: RatchetError with the end
    of its errors."""
    done = subprocess.run(
        [str(python()), str(SCRIPTS / f"{script}.py")], input=json.dumps(given), capture_output=True, text=True
    )
    if done.returncode:
        raise RatchetError(f"bench/rivals/{script}.py failed: {done.stderr[-500:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def python() -> Path:
    """The interpreter of the rivals. Raises: RatchetError if they cannot be installed."""
    own, stamp = FOLDER / "bin" / "python", FOLDER / ".installed"
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text() == digest:
        return own
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(FOLDER)],
        [str(own), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "-r", str(LOCK)],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RatchetError(f"the rivals could not be installed: {done.stderr[-500:]}")
    (site,) = FOLDER.glob("lib/python*/site-packages")
    (site / "ours.pth").write_text("\n".join(getsitepackages()))
    stamp.write_text(digest)
    return own
