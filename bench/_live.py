"""A run under live load, for drills: its processes and its status. Its clients are in bench/_clients.py."""

import argparse
import asyncio
import json
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

REPLICAS = 2
SETTINGS = (
    f"serve.replicas={REPLICAS}",
    "learning.groups_per_window=128",
    "learning.plateau=null",
    "report.questions=null",
    "run.cpu_share=0.8",
)
"""Learning never pauses, and leaves a part of two cores to users."""
LIMIT_S = 180.0


def drill_arguments(parser: argparse.ArgumentParser, out: str) -> None:
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(out), help="folder; an interrupted drill resumes")
    parser.add_argument("--config", default="configs/tiny.yaml")
    parser.add_argument("--run", type=Path, help="directory of a running run to use; the drill does not stop it")


def family(main: psutil.Process) -> list[psutil.Process]:
    """The process, all below it, and those of its own process session, which a dead fork server may have left."""
    found = {main.pid: main} | {process.pid: process for process in main.children(recursive=True)}
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # it ended
            if process.pid not in found and os.getsid(process.pid) == main.pid:
                found[process.pid] = process
    return list(found.values())


def kill_all(processes: Iterable[psutil.Process]) -> None:
    """SIGKILL for each. Some end by themselves meanwhile, because another of them did."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


class LiveRun:
    """`ratchet up` as a child process in a session of its own. Started again on the same directory, it resumes. With
    `--run` the drill uses a run that it neither starts nor stops."""

    def __init__(self, options: argparse.Namespace, settings: Sequence[str], *, anew: bool = False) -> None:
        """`options`: those of `drill_arguments`; `--quick` uses a separate folder. `anew`: never resume a run."""
        self.folder = options.out / "quick" if options.quick else options.out
        if anew:
            self.folder /= f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:4]}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.dir = options.run or self.folder / "run"
        self._external = options.run is not None
        self._first = ["--config", options.config, "--port", "0", "--seed", str(options.seed), *settings]
        self._main: psutil.Process | None = None
        self._address = "http://127.0.0.1:9"  # nobody listens there

    async def up(self) -> None:
        if self._external and self._main is None:
            self._main = psutil.Process(self._announced()["pid"])
            return
        known = (self.dir / "config.yaml").is_file()
        command = [
            sys.executable,
            "-m",
            "actors.cli",
            "up",
            "--dir",
            str(self.dir),
            *([] if known else self._first),
        ]
        with (self.folder / "up.log").open("a") as log:
            self._main = psutil.Popen(command, stdout=log, stderr=log, start_new_session=True)
        await self.until("the run to serve", lambda: self.url() is not None)

    @property
    def _ended(self) -> bool:
        return self._main is None or not self._main.is_running() or self._main.status() == psutil.STATUS_ZOMBIE

    def _announced(self) -> dict[str, Any]:
        try:
            return json.loads((self.dir / "live.json").read_text())
        except (FileNotFoundError, ValueError):  # not written yet, or not to its end
            return {}

    def url(self) -> str | None:
        """The run's URL; None until it is up. Raises: SystemExit when it ended."""
        if self._main is None or self._ended:
            raise SystemExit(f"the run ended; see {self.folder}/up.log")
        body = self._announced()
        return body.get("url") if body.get("pid") == self._main.pid else None

    @property
    def address(self) -> str:
        """The URL that the run announced last, whether it is up or not, as its users know it."""
        self._address = self._announced().get("url") or self._address
        return self._address

    async def stop(self) -> None:
        if self._main is not None and not self._ended and not self._external:
            self._main.send_signal(signal.SIGINT)
            await asyncio.to_thread(self._main.wait, 90)

    async def kill(self) -> None:
        """SIGKILL for all processes at once."""
        kill_all(self.family())
        if self._main is not None:
            await asyncio.to_thread(self._main.wait, 30)

    def family(self) -> list[psutil.Process]:
        if self._main is None or self._ended:
            return []
        return family(self._main)

    def processes(self, title: str) -> list[psutil.Process]:
        """Processes whose command line begins with `title`. Ray renames a worker when it hosts an actor."""
        found: list[psutil.Process] = []
        for process in self.family():
            try:
                if " ".join(process.cmdline()).startswith(title):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    async def until(self, what: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            if time.monotonic() > deadline:
                raise SystemExit(f"waited {LIMIT_S:.0f} s for {what}; see {self.folder}/up.log")
            await asyncio.sleep(0.1)

    async def rest(self, client: httpx.AsyncClient) -> None:
        """Pause learning, and wait until collectors and trainer have finished their current work."""
        (await client.post("/admin/pause", json={"argument": "bench"})).raise_for_status()
        await self.reach(client, "learning to rest", rests)

    async def learn(self, client: httpx.AsyncClient) -> None:
        """Resume learning, and wait until the trainer has drawn a window."""
        (await client.post("/admin/resume", json={})).raise_for_status()
        await self.reach(client, "a window to train on", lambda s: s.get("buffer", {}).get("windows_drawn", 0) > 0)

    async def reach(
        self, client: httpx.AsyncClient, what: str, condition: Callable[[dict[str, Any]], bool]
    ) -> dict[str, Any]:
        """The first status that meets the condition. Raises: SystemExit after LIMIT_S."""
        deadline = time.monotonic() + LIMIT_S
        while True:
            status = (await client.get("/status")).raise_for_status().json()
            if condition(status):
                return status
            if time.monotonic() > deadline:
                raise SystemExit(f"waited {LIMIT_S:.0f} s for {what}; see {self.folder}/up.log")
            await asyncio.sleep(0.2)


def rests(status: dict[str, Any]) -> bool:
    parts = status.get("buffer", {}), status.get("trainer", {})
    return parts[0].get("outstanding") == 0 and parts[1].get("phase") == "waiting for a window"


def whole(status: dict[str, Any] | None) -> bool:
    if status is None or any("away" in part for part in status.values()):
        return False
    replicas = reporting(status)
    serving = {replica["serving"] for replica in replicas.values()}
    return len(replicas) == REPLICAS and serving == {status["versions"]["slots"]["serve"]}


def reporting(status: dict[str, Any] | None) -> dict[str, Any]:
    """Replicas that are alive and have a recent report."""
    replicas = (status or {"versions": {"replicas": {}}})["versions"]["replicas"]
    return {name: replica for name, replica in replicas.items() if replica["age_s"] < 6 and is_alive(name)}


def is_alive(replica: str) -> bool:
    """Whether the process of the replica `TAG.PID` exists. The last report of a dead replica stays for seconds."""
    try:
        return psutil.Process(int(replica.rpartition(".")[2])).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
