"""The run directory: its creation, its lock, and how commands find it."""

import fcntl
import json
import os
import time
from pathlib import Path
from typing import IO

from core.artifacts import make_folder, sync
from core.config import Config, dump
from core.errors import ConfigError, RunInUse
from core.shipped import PROGRAM

RUNS = Path("runs")
LATEST = RUNS / "latest"
CONFIG_FILE = "config.yaml"
LIVE_FILE = "live.json"
"""URL and process id of the run while it runs."""


class RunDir:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None

    @classmethod
    def open(cls, config: Config) -> "RunDir":
        """Create or open the directory that the config names, or a new one, and lock it. Raises: RunInUse;
        ConfigError."""
        path = Path(config.run.dir) if config.run.dir else RUNS / time.strftime("%Y%m%d-%H%M%S")
        try:
            make_folder(path.absolute())
        except OSError as error:
            raise ConfigError(f"run.dir={path} cannot be created ({error}); choose another with --dir") from None
        run = cls(path.absolute())
        run._take_lock()
        run._write_config(dump(config))
        (run.path / "logs").mkdir(exist_ok=True)
        run._point_latest()
        return run

    def announce(self, **live: object) -> None:
        """Write down how the run can be reached."""
        (self.path / LIVE_FILE).write_text(json.dumps({"pid": os.getpid(), **live}))

    def close(self) -> None:
        (self.path / LIVE_FILE).unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _write_config(self, text: str) -> None:
        """After a crash the file is the old one or the new one, never a part."""
        aside = self.path / f".{CONFIG_FILE}"
        aside.write_text(text)
        sync(aside)
        aside.replace(self.path / CONFIG_FILE)
        sync(self.path)

    def _take_lock(self) -> None:
        try:
            lock = (self.path / "lock").open("a+", errors="replace")
        except OSError as error:
            raise ConfigError(f"{self.path / 'lock'} cannot be opened ({error}); remove it") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            lock.close()
            raise RunInUse(f"{self.path} is in use by process {holder}; stop it, or choose another --dir") from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock

    def _point_latest(self) -> None:
        if self.path.parent == RUNS.absolute():
            aside = RUNS / f".latest.{os.getpid()}"
            aside.symlink_to(self.path.name)
            aside.replace(LATEST)


def find(path: str | None) -> Path:
    """The named run directory, or the latest. Raises: ConfigError if there is none."""
    chosen = Path(path) if path else LATEST
    if not (chosen / CONFIG_FILE).is_file():
        hint = f"start one with {PROGRAM} up" if path is None else "give --dir the path that `up` printed"
        raise ConfigError(f"no run at {chosen}; {hint}")
    return chosen.resolve()


def live_url(run_dir: Path) -> str | None:
    """The URL of the run if its process is alive; None otherwise, also for an unreadable file."""
    try:
        live = json.loads((run_dir / LIVE_FILE).read_bytes())
        pid, url = live["pid"], live["url"]
        if type(pid) is not int or pid < 1 or not isinstance(url, str):
            return None
        os.kill(pid, 0)
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return url
