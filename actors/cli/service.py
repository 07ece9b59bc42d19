"""`ratchet service`: Ray's head node and Ratchet on it, as one service of a machine without asking its init system.

Both are brought back when they die; Ratchet finds its state in the run directory. The service ends when it is told to,
and when Ray was stopped: `ray stop`, also that of `ray down`, forgets the address of the cluster, a crash does not.
"""

import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import psutil
from ray._common.utils import get_ray_address_file
from ray._private.services import get_address

from core.errors import ConfigError, RatchetError, RunInUse

log = logging.getLogger("ratchet.service")

LOOK_S = 1.0
START_S = 300.0
STOP_S = 60.0
PAUSES_S = (5.0, 15.0, 60.0)
"""Before starting something again that died; the first again once it lived for STEADY_S. `ray stop` takes less from the
end of Ray's processes to its own."""
STEADY_S = 300.0
FORGET = """
import json, sys
from ray._private.gcs_utils import cleanup_redis_storage
sys.exit(not cleanup_redis_storage(*json.load(sys.stdin)))
"""
REDIS_PASSWORD = "RAY_REDIS_PASSWORD"
STOPPED = "Ray was stopped; so is Ratchet"
FILE, LOCK = "service.json", "service.lock"


class Service:
    def __init__(
        self,
        head: Sequence[str],
        ratchet: Sequence[str],
        address_file: Path,
        clear: Callable[[], None],
        look_s: float = LOOK_S,
        pauses_s: Sequence[float] = PAUSES_S,
    ) -> None:
        """`head`: `ray start --head ... --block`. `ratchet`: `ratchet up`. `address_file`: there while Ray was not
        stopped. `clear`: ends what a dead head left behind, before the next."""
        self._head = head
        self._ratchet = ratchet
        self._address_file = address_file
        self._clear = clear
        self._look_s = look_s
        self._pauses_s = pauses_s
        self._stopping = threading.Event()
        self.starts = 0

    def stop(self) -> None:
        """From a signal handler or another thread; `run` returns once both have ended."""
        self._stopping.set()

    def run(self) -> None:
        pauses = Pauses(self._pauses_s)
        while not self._stopping.is_set():
            if self.starts:
                self._clear()
            self.starts += 1
            _end_orphaned_gateways()
            head, was_up = subprocess.Popen(self._head), False
            try:
                was_up = self._comes_up(head)
                if was_up and self._watch(head):
                    return
            finally:
                _end(head)
            log.error("Ray's head ended with %s", head.returncode)
            self._stopping.wait(pauses.next())
            if was_up and not self._address_file.exists():  # `ray stop` does that last
                return log.info(STOPPED)

    def _comes_up(self, head: "subprocess.Popen[bytes]") -> bool:
        deadline = time.monotonic() + START_S
        while not self._address_file.exists():
            if head.poll() is not None or time.monotonic() > deadline or self._stopping.wait(self._look_s / 10):
                return self._stopping.is_set()
        return True

    def _watch(self, head: "subprocess.Popen[bytes]") -> bool:
        """Keep Ratchet running until Ray is gone. Returns whether that was meant."""
        pauses, again_at = Pauses(self._pauses_s), 0.0
        ratchet: subprocess.Popen[bytes] | None = None
        try:
            while True:
                if self._stopping.wait(self._look_s):
                    return True
                if not self._address_file.exists():
                    log.info(STOPPED)
                    return True
                if head.poll() is not None:
                    return False
                if ratchet is None and time.monotonic() >= again_at:
                    ratchet = subprocess.Popen(self._ratchet)
                if ratchet is not None and ratchet.poll() is not None:
                    if ratchet.returncode == 0:
                        log.info("the run came to its end")
                        again_at = float("inf")
                    else:
                        again_at = time.monotonic() + pauses.next()
                        log.error("Ratchet ended with %s; starting it again", ratchet.returncode)
                    ratchet = None
        finally:
            if ratchet is not None:
                _end(ratchet, patience_s=STOP_S if head.poll() is None and self._address_file.exists() else 5)


class Pauses:
    """Longer ones after each end that comes soon."""

    def __init__(self, pauses_s: Sequence[float] = PAUSES_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._pauses_s = pauses_s
        self._clock = clock
        self._since = clock()
        self._ends = 0

    def next(self) -> float:
        now = self._clock()
        self._ends = 0 if now - self._since > STEADY_S else self._ends
        pause = self._pauses_s[min(self._ends, len(self._pauses_s) - 1)]
        self._ends += 1
        self._since = now + pause
        return pause


def start(run_dir: Path, config: Path | None, head: Sequence[str], overrides: Sequence[str]) -> Path:
    """Run the service in a session of its own, which no logout ends; returns its log once Ray is up.

    Raises: RunInUse; RatchetError with the end of its log when Ray did not come up."""
    if not head:
        raise ConfigError("how is Ray started? expected `service start ... -- ray start --head ...`")
    run_dir.mkdir(parents=True, exist_ok=True)
    if (pid := running(run_dir)) is not None:
        raise RunInUse(f"the service of {run_dir} runs already, as process {pid}; end it with `service stop`")
    _begin_anew(os.environ)
    up = [*(["--config", str(config)] if config is not None else []), *overrides]
    environment = {name: os.environ[name] for name in os.environ if name.startswith("RAY_") and name != REDIS_PASSWORD}
    file = run_dir / FILE
    file.touch(0o600)
    file.write_text(json.dumps({"head": list(head), "up": up, "environment": environment}, indent=1))
    (run_dir / "logs").mkdir(exist_ok=True)
    told = run_dir / "logs" / "service.log"
    began = told.stat().st_size if told.exists() else 0
    with told.open("ab") as out:
        command = [sys.executable, "-m", "actors.cli", "service", "run", "--dir", str(run_dir)]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, close_fds=True
        )
    deadline = time.monotonic() + START_S
    while not _address_file().exists():
        if process.poll() is not None or time.monotonic() > deadline:
            _end(process)
            raise RatchetError(f"Ray's head did not come up; {told}:\n{told.read_text()[began:][-2000:]}")
        time.sleep(0.2)
    return told


def run(run_dir: Path) -> None:
    """What `start` wrote down, in this process; at boot too. Raises: RunInUse; ConfigError when nothing was."""
    lock = _locked(run_dir)
    try:
        noted = json.loads((run_dir / FILE).read_bytes())
        head, up, environment = noted["head"], noted["up"], noted["environment"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{run_dir / FILE} does not say how to start ({error!r}); `service start` writes it"
        ) from None
    os.environ.update(environment)

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True)
    password = os.environ.pop(REDIS_PASSWORD, None)
    secret = [f"--redis-password={password}"] if password else []
    ratchet = [sys.executable, "-m", "actors.cli", "up", "--address", "auto", "--dir", str(run_dir), *up]
    service = Service([*head, *secret, "--block"], ratchet, _address_file(), _clear)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: service.stop())
    try:
        service.run()
    finally:
        lock.close()


def stop(run_dir: Path) -> None:
    """End Ratchet in order, then Ray's head. Nothing to do is no error. Raises: RatchetError when it will not end."""
    pid = running(run_dir)
    if pid is None:
        return
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 2 * STOP_S
    while running(run_dir) == pid:
        if time.monotonic() > deadline:
            raise RatchetError(
                f"process {pid}, the service of {run_dir}, did not end within {2 * STOP_S:.0f} s; kill it"
            )
        time.sleep(0.2)


def running(run_dir: Path) -> int | None:
    """The process of this directory's service."""
    try:
        _locked(run_dir, write=False).close()
    except FileNotFoundError:
        return None
    except RunInUse:
        return int((run_dir / LOCK).read_text() or 0) or None
    return None


def _locked(run_dir: Path, write: bool = True) -> IO[str]:
    lock = (run_dir / LOCK).open("a+" if write else "r+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise RunInUse(f"the service of {run_dir} runs already; end it with `service stop`") from None
    if write:
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
    return lock


def _begin_anew(environ: Mapping[str, str]) -> None:
    """A cluster that was stopped leaves nothing to the next; only one that died goes on from what its Redis holds."""
    if "RAY_REDIS_ADDRESS" not in environ:
        return
    host, port, tls = get_address(environ["RAY_REDIS_ADDRESS"])
    namespace = environ.get("RAY_external_storage_namespace", "default")
    # in a process of its own: with a wrong password Ray 2.60 aborts
    arguments = json.dumps([host, int(port), environ.get(REDIS_PASSWORD, ""), tls, namespace])
    done = subprocess.run([sys.executable, "-c", FORGET], input=arguments, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RatchetError(f"the Redis at {host}:{port} did not forget {namespace!r}; is it up, is its password right?")


def _address_file() -> Path:
    return Path(get_ray_address_file(None))


def _clear() -> None:
    subprocess.run(["ray", "stop", "--force"], stdout=subprocess.DEVNULL, timeout=STOP_S, check=False)


def _end_orphaned_gateways() -> None:
    """HAProxy outlives a proxy actor that was killed, and keeps the port."""
    binary = os.environ.get("RATCHET_HAPROXY")
    for process in psutil.process_iter(["exe", "ppid"]):
        if binary is not None and process.info["ppid"] == 1 and process.info["exe"] == os.path.realpath(binary):
            with suppress(psutil.Error):
                process.kill()


def _end(process: "subprocess.Popen[bytes]", patience_s: float = STOP_S) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
