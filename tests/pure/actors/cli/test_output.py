"""What commands print reaches the reader as it is, and no reader that is gone ends a run."""

import io
import os
import signal
import subprocess
import sys
from typing import Any

import pytest
from rich.console import Console

from actors.cli.app import console
from actors.cli.preflight import _check_port
from actors.cli.progress import LastingOutput, versions_table
from actors.cli.up import RAY_TRIES, _connect, _cpu_s, up
from actors.inspect.report import VersionRow
from core.errors import ConfigError, RatchetError

ODD = "[p] [/nothing] [red]x :smile: [bold"


def broken_pipe() -> io.TextIOWrapper:
    """A stream whose reader is gone, as that of `./run up | head`."""
    reader, writer = os.pipe()
    os.close(reader)
    return io.TextIOWrapper(os.fdopen(writer, "wb", 0), encoding="utf-8", write_through=True)


def test_a_reader_that_is_gone_ends_no_run() -> None:
    pipe = broken_pipe()
    with pytest.raises(BrokenPipeError):
        pipe.write("seen by nobody")
    output: Any = LastingOutput(pipe)
    told = Console(file=output, width=80)
    for _ in range(3):
        told.print("seen by nobody")
    pipe.write("others who print to it do not fail either")
    pipe.close()


def test_a_disk_that_is_full_ends_no_run() -> None:
    with open("/dev/full", "w") as full:
        output: Any = LastingOutput(full)
        told = Console(file=output, width=80)
        told.print("no room for this")
        told.print("nor for this")


def test_a_letter_that_the_terminal_lacks_is_replaced() -> None:
    code = "from actors.cli.app import console; import actors.cli.main as m; "
    code += "m.app = lambda: console.print('caf\\u00e9 \\u4e00')"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; m.main()"], env=environment, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, b"caf? ?\n"), done.stderr


def test_words_in_brackets_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    console.print(f"{ODD} in /runs/[p]/[/x]", soft_wrap=True)
    assert capsys.readouterr().out == f"{ODD} in /runs/[p]/[/x]\n"


def test_a_reason_in_the_table_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    row = VersionRow(1, "hold", "", ODD, 0, None, None, None, None, None, 0)
    console.print(versions_table([row]))
    out = capsys.readouterr().out
    assert ODD in out and " hold " in out


class SlowRay:
    """A supervisor whose Ray fails so many times."""

    def __init__(self, failures: int, why: str) -> None:
        self.failures, self.why, self.tries = failures, why, 0

    async def connect(self) -> None:
        self.tries += 1
        if self.tries <= self.failures:
            raise RatchetError(f"connecting to Ray: {self.why}")


async def connected(failures: int, why: str) -> SlowRay:
    ray: Any = SlowRay(failures, why)
    try:
        await _connect(ray, console)
    except RatchetError as error:
        ray.error = str(error)
    return ray


async def test_ray_that_is_too_slow_is_tried_again_and_the_user_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    slow = "The current node timed out during startup"
    assert (await connected(RAY_TRIES - 1, slow)).tries == RAY_TRIES
    assert capsys.readouterr().out.count("timed out during startup; trying again") == RAY_TRIES - 1
    gone: Any = await connected(99, slow)
    assert gone.tries == RAY_TRIES and slow in gone.error
    assert (await connected(99, "Could not find any running Ray instance")).tries == 1


def test_an_address_that_cannot_be_served_on_is_refused_with_the_reason() -> None:
    with pytest.raises(ConfigError, match=r"serve\.host='::1' is an IPv6 address, and Ratchet serves on IPv4 only"):
        _check_port("::1", 0)
    with pytest.raises(ConfigError, match=r"serve\.host='no\.such\.host\.invalid' is no address of this machine"):
        _check_port("no.such.host.invalid", 0)


def test_a_run_and_its_processes_ignore_the_end_of_their_terminal() -> None:
    nothing: Any = None
    before = signal.getsignal(signal.SIGHUP)
    try:
        with pytest.raises(AttributeError):  # there is no config; the signal is seen to before anything else
            up(nothing, console)
        signal.raise_signal(signal.SIGHUP)
        child = subprocess.run(["sh", "-c", "kill -HUP $$; echo alive"], capture_output=True, check=False)
        assert child.stdout == b"alive\n"
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_cpu_seconds_of_children_count_also_of_those_that_ended() -> None:
    before = _cpu_s()
    spin = "import time; end = time.process_time() + 0.5\nwhile time.process_time() < end: pass"
    subprocess.run([sys.executable, "-c", spin], check=True)
    assert _cpu_s() - before >= 0.5
    with subprocess.Popen([sys.executable, "-c", f"{spin}\nprint()\ninput()"], stdin=-1, stdout=-1) as alive:
        assert alive.stdout is not None
        alive.stdout.readline()
        assert _cpu_s() - before >= 1.0
        alive.communicate(b"\n")
