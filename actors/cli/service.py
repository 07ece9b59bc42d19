"""`ratchet service`: Ray's head node and Ratchet on it, on a machine where `ray up` finds no service manager.

Both are started again when they die; Ratchet finds its state in the run directory. The service ends when it is told to,
and when Ray was stopped: `ray stop`, also that of `ray down`, forgets the address of the cluster, a crash does not.
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
"""Before something that died is started again. `ray stop` forgets the address sooner than that after it ended Ray."""
PID, PASSWORD = "service.pid", "RAY_REDIS_PASSWORD"
Process = subprocess.Popen[bytes]


@dataclass
class Service:
    """`head`: `ray start --head ... --block`. `ratchet`: `ratchet up`. `address_file`: there while Ray was not stopped.
    `clear`: ends what a dead head left behind, before the next. `stopping`: ends both."""

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
                    return log.info("Ray was stopped; so is Ratchet")
                self.clear()

    def _keep_ratchet(self, head: Process) -> bool:
        """Until Ray is gone; a run that came to its end is not started again. Returns whether Ray was up."""
        ratchet, began = None, 0.0
        try:
            while head.poll() is None and not self.stopping.wait(self.look_s):
                if not self.address_file.exists():
                    if ratchet is not None:
                        break
                elif ratchet is None or (ratchet.poll() and time.monotonic() > began + self.pause_s):
                    log.info("starting Ratchet%s", f" again, it ended with {ratchet.returncode}" if ratchet else "")
                    ratchet, began = subprocess.Popen(self.ratchet), time.monotonic()
        finally:
            if ratchet is not None:
                _end(ratchet, STOP_S if head.poll() is None and self.address_file.exists() else 5)
        return ratchet is not None


def start(run_dir: Path, arguments: Sequence[str]) -> Path:
    """`service run` with these arguments in a session of its own, which no logout ends; returns its log once Ray is up.

    Raises: RunInUse; RatchetError with the end of its log when Ray did not come up."""
    if (before := running(run_dir)) is not None:
        raise RunInUse(f"the service of {run_dir} runs already, as process {before.pid}; end it with `service stop`")
    _forget_cluster()
    told = run_dir / "logs" / "service.log"
    told.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "actors.cli", "service", "run", "--dir", str(run_dir), *arguments]
    with told.open("ab") as out:
        began = out.tell()
        service = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
    address_file, deadline = Path(get_ray_address_file(None)), time.monotonic() + START_S
    while not address_file.exists():
        if service.poll() is not None or time.monotonic() > deadline:
            _end(service)
            words = told.read_bytes()[began:][-2000:].decode(errors="replace")
            raise RatchetError(f"Ray's head did not come up; {told}:\n{words}")
        time.sleep(0.2)
    return told


def run(run_dir: Path, up: Sequence[str], head: Sequence[str]) -> None:
    """In this process, until it is told to stop or Ray was stopped."""
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
    """End Ratchet in order, then Ray's head. Nothing to do is no error. Raises: RatchetError when it will not end."""
    if (service := running(run_dir)) is not None:
        service.terminate()
        if psutil.wait_procs([service], 2 * STOP_S)[1]:
            raise RatchetError(f"the service of {run_dir} does not end; kill process {service.pid}")


def running(run_dir: Path) -> psutil.Process | None:
    """The process of this directory's service."""
    with suppress(FileNotFoundError, psutil.Error):
        process = psutil.Process(int((run_dir / PID).read_text()))
        return process if "service" in process.cmdline() else None  # else the number is another's by now
    return None


def _forget_cluster() -> None:
    """A cluster that was stopped leaves nothing to the next; only one that died goes on from what its Redis holds."""
    redis, command = os.environ.get("RAY_REDIS_ADDRESS"), [sys.executable, "-m", "actors.cli.forget_cluster"]
    if redis and subprocess.run(command, capture_output=True, check=False).returncode != 0:
        raise RatchetError(f"the Redis at {redis} did not forget; is it up, is {PASSWORD} right?")


def _clear() -> None:
    """HAProxy too: it outlives a proxy actor that was killed, and keeps the port."""
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
