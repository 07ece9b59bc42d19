"""One process per machine that has the heavy packages imported, and from which others are forked in tenths of a second.

`ratchet up` owns it (`share`). The imports of vLLM, torch and Ray cost each process 3 to 18 s of a core; a forked one
shares them, and their memory. Whatever is forked speaks the protocol of Python's
`multiprocessing.forkserver`. It serves engines (`serve/engine/patches/fork_server.py`) and the workers of Ray
(`actors/runtime/forked_worker.py`); either starts without it when it is dead.
"""

import importlib
import multiprocessing.forkserver
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from core import gc_tuning

SERVER = "RATCHET_FORK_SERVER"
"""Environment variable: the socket of this machine's fork server."""

CHECK = "check_before_forking"
"""A function that a preloaded module may have. It raises if forks of this process would not be as good as processes of
their own; the server then ends, and every process starts by itself."""


@contextmanager
def share(environment: Mapping[str, str], preloaded: Sequence[str]) -> Generator[Callable[[Path], None]]:
    """Start this machine's fork server, for all processes that are started from now on. It imports the modules
    `preloaded` at once, with `environment` as its whole environment. It forks nothing until the yielded function has
    set the file that it prints to, and its forks until they print elsewhere. Its forks outlive it."""
    with tempfile.TemporaryDirectory(prefix="ratchet-") as folder, socket.socket(socket.AF_UNIX) as listener:
        address = f"{folder}/forks.sock"  # the path of a unix socket must be short
        listener.bind(address)
        listener.listen(100)
        ends, lives = os.pipe()  # the server ends when the last write end of the pipe is closed
        arguments = f"{listener.fileno()}, {ends}, {list(preloaded)}"
        printed = Path(folder, "printed")
        with printed.open("ab") as out:
            server = subprocess.Popen(
                [sys.executable, "-c", f"from core.fork_server import serve_forks; serve_forks({arguments})"],
                env=dict(environment),
                pass_fds=[listener.fileno(), ends],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                # It must not get Ctrl-C. Not a new session: Linux gives each session an equal CPU share, whatever its
                # niceness (`sched_autogroup_enabled`)
                process_group=0,
            )
        listener.close()  # only the server may hold it: clients of a dead server would wait forever
        os.close(ends)
        os.environ[SERVER] = address

        def print_to(log: Path) -> None:
            with log.open("ab") as file:
                file.write(printed.read_bytes())
            assert server.stdin is not None
            with suppress(BrokenPipeError):  # the server is dead; each process starts by itself
                server.stdin.write(os.fsencode(log.resolve()))
                server.stdin.close()

        try:
            yield print_to
        finally:
            del os.environ[SERVER]
            os.close(lives)
            server.kill()
            server.wait()


def serve_forks(listener: int, ends: int, preloaded: Sequence[str]) -> None:
    """The main function of the fork server."""
    gc_tuning.pause()
    for name in preloaded:
        module = importlib.import_module(name)
        getattr(module, CHECK, lambda: None)()
    gc_tuning.freeze()
    log = os.open(os.fsdecode(sys.stdin.buffer.read()), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    multiprocessing.forkserver.main(listener, ends, [])


class SharedServer(multiprocessing.forkserver.ForkServer):
    """A `multiprocessing` fork server that another process owns."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self._forkserver_address = address
        self._forkserver_alive_fd = os.pipe()[1]

    def ensure_running(self) -> None:
        """Does nothing: its owner keeps it running."""


def connect(fds: Sequence[int]) -> tuple[int, int]:
    """Stands where `multiprocessing.forkserver.connect_to_new_process` stood: asks the shared server. Raises: OSError
    if it is dead."""
    return SharedServer(os.environ[SERVER]).connect_to_new_process(fds)
