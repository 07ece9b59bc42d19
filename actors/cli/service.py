"""`ratchet service`: runs Ray's head node and Ratchet, for machines of `ray up` without a service manager.

It restarts both when they die; Ratchet reads its state from the run directory. The service ends on a signal, or after
`ray stop` (which `ray down` runs too). It tells `ray stop` from a crash by Ray's address file: `ray stop` deletes it, a
crash does not.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from ray._common.utils import get_ray_address_file

from core.errors import RatchetError, RunInUse

log = logging.getLogger("ratchet.service")

LOOK_S, START_S, STOP_S = 1.0, 300.0, 60.0
PAUSE_S = 10.0
"""Wait before a restart. `ray stop` deletes the address file within this time after it has ended Ray."""
PID, PASSWORD = "service.pid", "RAY_REDIS_PASSWORD"
Process = subprocess.Popen[bytes]


@dataclass
class Service:
    """`head`: the command `ray start --head ... --block`. `ratchet`: the command `ratchet up`. `address_file`: exists
    until `ray stop`. `clear`: ends the processes that a dead head left behind, before the next starts. `stopping`: set
    it to end both."""

    head: Sequence[str]
    ratchet: Sequence[str]
    address_file: Path
    clear: Callable[[], None]
    look_s: float = LOOK_S
    pause_s: float = PAUSE_S
    stopping: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.stopping.is_set():
            head = subprocess.Popen(self.head)
            try:
                was_up = self._keep_ratchet(head)
            finally:
                _end(head)
            log.info("Ray's head ended with %s", head.returncode)
            if not self.stopping.wait(self.pause_s):
                if was_up and not self.address_file.exists():
                    return log.info("Ray was stopped; Ratchet stops too")
                self.clear()

    def _keep_ratchet(self, head: Process) -> bool:
        """Keep Ratchet running until Ray ends. Does not restart a run that has finished. Returns whether Ray was up."""
        ratchet, began = None, 0.0
        try:
            while head.poll() is None and not self.stopping.wait(self.look_s):
                if not self.address_file.exists():
                    if ratchet is not None:
                        break
                elif ratchet is None or (ratchet.poll() and time.monotonic() > began + self.pause_s):
                    log.info("starting Ratchet%s", f" again; it ended with {ratchet.returncode}" if ratchet else "")
                    ratchet, began = subprocess.Popen(self.ratchet), time.monotonic()
        finally:
            if ratchet is not None:
                _end(ratchet, STOP_S if head.poll() is None and self.address_file.exists() else 5)
        return ratchet is not None


def start(run_dir: Path, arguments: Sequence[str]) -> Path:
    """Start `service run` with these arguments in its own session, which survives a logout. Returns its log file once
    Ray is up.

    Raises: RunInUse; RatchetError with the end of the log if Ray does not start."""
    if (before := running(run_dir)) is not None:
        raise RunInUse(
            f"the service of {run_dir} is already running as process {before.pid}; stop it with `ratchet service stop`"
        )
    _forget_cluster()
    log_file = run_dir / "logs" / "service.log"
    log_file.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "actors.cli", "service", "run", "--dir", str(run_dir), *arguments]
    with log_file.open("ab") as out:
        began = out.tell()
        service = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
    address_file, deadline = Path(get_ray_address_file(None)), time.monotonic() + START_S
    while not address_file.exists():
        if service.poll() is not None or time.monotonic() > deadline:
            _end(service)
            words = log_file.read_bytes()[began:][-2000:].decode(errors="replace")
            raise RatchetError(f"Ray's head node did not start; end of {log_file}:\n{words}")
        time.sleep(0.2)
    return log_file


def run(run_dir: Path, up: Sequence[str], head: Sequence[str]) -> None:
    """Run the service in this process until a signal, or until Ray is stopped."""
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / PID).write_text(str(os.getpid()))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True)
    secret = [f"--redis-password={os.environ.pop(PASSWORD)}"] if PASSWORD in os.environ else []
    ratchet = [sys.executable, "-m", "actors.cli", "up", "--address", "auto", "--dir", str(run_dir), *up]
    service = Service([*head, *secret, "--block"], ratchet, Path(get_ray_address_file(None)), _clear)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: service.stopping.set())
    service.run()


def stop(run_dir: Path) -> None:
    """Stop Ratchet cleanly, then Ray's head node. Does nothing if the service is not running. Raises: RatchetError if
    it does not end."""
    if (service := running(run_dir)) is not None:
        service.terminate()
        if psutil.wait_procs([service], 2 * STOP_S)[1]:
            raise RatchetError(f"the service of {run_dir} does not end; kill process {service.pid}")


def running(run_dir: Path) -> psutil.Process | None:
    """The process of this run directory's service, if it is running."""
    with suppress(FileNotFoundError, psutil.Error):
        process = psutil.Process(int((run_dir / PID).read_text()))
        return process if "service" in process.cmdline() else None  # else another process has this id by now
    return None


def _forget_cluster() -> None:
    """Delete the last cluster's state from Redis: only a cluster that crashed continues from it, not one that was
    stopped."""
    redis, command = os.environ.get("RAY_REDIS_ADDRESS"), [sys.executable, "-m", "actors.cli.forget_cluster"]
    if redis and subprocess.run(command, capture_output=True, check=False).returncode != 0:
        raise RatchetError(
            f"the Redis at {redis} did not delete the last cluster's state; check that it is up and {PASSWORD} is right"
        )


def _clear() -> None:
    """End Ray's processes, and HAProxy: it survives a killed proxy actor and keeps the port."""
    subprocess.run(["ray", "stop", "--force"], stdout=subprocess.DEVNULL, timeout=STOP_S, check=False)
    binary = os.path.realpath(os.environ.get("RATCHET_HAPROXY", "/"))
    for process in psutil.process_iter(["exe", "ppid"]):
        if process.info["ppid"] == 1 and process.info["exe"] == binary:
            with suppress(psutil.Error):
                process.kill()


def _end(process: Process, patience_s: float = STOP_S) -> None:
    process.terminate()
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
