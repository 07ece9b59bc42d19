"""Real runs. A run is a child process, started as a user starts it. Each test file may start one system."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from bench._live import family, kill_all
from tests.left_behind import left_behind

ROOT = Path(__file__).parents[2]


class Run:
    """`ratchet up` as a child process in its own process session, with its log and its URL."""

    def __init__(self, folder: Path, *arguments: str, config: str = "configs/tiny.yaml", start_s: float = 400) -> None:
        self.dir = folder / "run"
        self.log = folder / "up.log"
        self._start_s = start_s
        self._up("--config", config, "--port", "0", *arguments)

    def _up(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "actors.cli", "up", "--dir", str(self.dir), *arguments]
        environment = {**os.environ, "RAY_ADDRESS": "127.0.0.1:1"}  # another cluster, which the run must not join
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def again(self) -> None:
        """Start again on the same run directory."""
        self._up()

    @property
    def url(self) -> str:
        """The URL of the run. Waits until it serves."""
        deadline = time.monotonic() + self._start_s
        while time.monotonic() < deadline:
            live = self.dir / "live.json"
            if live.is_file() and (body := json.loads(live.read_text()))["pid"] == self.process.pid:
                return body["url"]
            if self.process.poll() is not None:
                pytest.fail(f"`ratchet up` ended with {self.process.returncode}:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.2)
        pytest.fail(f"`ratchet up` did not serve within {self._start_s} s:\n{self.log.read_text()[-3000:]}")

    def wait(self, timeout_s: float) -> str:
        """Wait until the run ends by itself; returns its output."""
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            pytest.fail(f"`ratchet up` did not end within {timeout_s} s:\n{self.log.read_text()[-3000:]}")
        text = self.log.read_text()
        assert code == 0, text[-3000:]
        return text

    def family(self) -> list[psutil.Process]:
        """The run's process, all its descendants, including those that Ray moved to other process sessions, and those
        of its own session that a dead fork server left."""
        if self.process.poll() is not None:
            return []
        return family(psutil.Process(self.process.pid))

    def those(self, title: str) -> list[psutil.Process]:
        """Processes whose command line begins with `title` now. Ray renames a worker when it hosts an actor."""
        found: list[psutil.Process] = []
        for process in self.family():
            with contextlib.suppress(psutil.Error):  # some processes end during the loop
                if " ".join(process.cmdline()).startswith(title):
                    found.append(process)
        return found

    def interrupt(self, timeout_s: float = 60) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        kill_all(self.family())
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)

    def status(self) -> dict[str, dict[str, object]]:
        return httpx.get(f"{self.url}/status", timeout=30, trust_env=False).json()


def bench(name: str, *arguments: str) -> dict[str, Any]:
    """Runs `./run bench NAME --quick`; returns the JSON object of its last line."""
    command = [sys.executable, "-m", "bench", name, "--quick", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="module", autouse=True)
def no_process_is_left_behind() -> Iterator[None]:
    """Set up before all other fixtures of a module, so it looks after they have ended."""
    before = set(psutil.pids())
    yield
    left = left_behind(ROOT, before)
    named = [f"{process.pid} {' '.join(process.cmdline())[:80]}" for process in left if process.is_running()]
    kill_all(left)
    assert not named, f"processes live on after their tests: {named}"


@pytest.fixture
def start_run(tmp_path: Path) -> Iterator[object]:
    runs: list[Run] = []

    def start(*arguments: str, folder: str = "", **options: object) -> Run:
        (tmp_path / folder).mkdir(exist_ok=True)
        runs.append(Run(tmp_path / folder, *arguments, **options))  # type: ignore[arg-type]
        return runs[-1]

    yield start
    for run in runs:
        run.kill()
