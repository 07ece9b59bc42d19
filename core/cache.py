"""The user's cache folder, for what can be made again: converted models, files of tasks."""

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from core.artifacts import make_folder


def root() -> Path:
    """RATCHET_CACHE, else $XDG_CACHE_HOME/ratchet, else ~/.cache/ratchet."""
    above = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("RATCHET_CACHE") or Path(above) / "ratchet").absolute()


@contextmanager
def making(folder: Path) -> Generator[None]:
    """Of several processes that want to make the folder, only one is in the block at a time."""
    make_folder(folder.parent)
    with (folder.parent / f".{folder.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
