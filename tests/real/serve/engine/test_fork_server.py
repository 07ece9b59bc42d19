"""Engines are forked from one server per machine and end with their replicas. Without it, each replica has its own."""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from bench._live import kill_all
from serve.engine.patches.fork_server import NICER

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]
DRIVER = """
    import asyncio, os, psutil, sys, time
    from pathlib import Path
    from core.config import load
    from core.messages import BASE, Sampling
    from serve.engine.engine import Engine
    from serve.engine.arguments import environment
    from core.fork_server import share
    from serve.engine.patches.fork_server import PRELOADED

    config = load("configs/tiny.yaml", [])

    async def replica():
        engine = Engine(config.model, config.serve.engine, max_versions=2, seed=0)
        await engine.start()
        answer = await engine.generate([1, 2, 3], Sampling(max_tokens=2), BASE)
        print("up", len(answer), flush=True)
        time.sleep(600)

    def engine_in_a_child():
        if os.fork() == 0:
            os.execv(sys.executable, [sys.executable, "-c", Path(sys.argv[1]).read_text(), sys.argv[1], "replica"])

    if sys.argv[-1] == "replica":
        os.nice(7)
        sys.exit(asyncio.run(replica()))
    with share({**os.environ, **environment(config.model, config.serve.engine)}, PRELOADED) as print_to:
        print_to(Path(sys.argv[2]))
        if sys.argv[-1] == "gone":
            (server,) = psutil.Process().children()
            server.kill()
            os.waitpid(server.pid, 0)
        engine_in_a_child()
        time.sleep(600)
"""


def driver(folder: Path, *, gone: bool) -> subprocess.Popen[str]:
    script = folder / "driver.py"
    script.write_text(textwrap.dedent(DRIVER))
    command = [sys.executable, str(script), str(script), str(folder / "engines.log"), "gone" if gone else "there"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


def named(family: list[psutil.Process], name: str) -> list[psutil.Process]:
    return [process for process in family if name in " ".join(process.cmdline())]


@pytest.mark.parametrize("gone", [False, True])
def test_an_engine_of_the_shared_server_or_without_one_ends_with_its_replica(tmp_path: Path, gone: bool) -> None:
    process = driver(tmp_path, gone=gone)
    try:
        assert process.stdout is not None and "up 1\n" in process.stdout
        family = psutil.Process(process.pid).children(recursive=True)
        (engine,) = named(family, "VLLM::EngineCore")
        (replica,) = [each for each in family if each.cmdline()[-1:] == ["replica"]]
        servers = ("import serve_forks", "forkserver import main")  # the machine's server, and a replica's own
        forked = [each for name in servers for each in named(family, name)]  # also children: same command line
        shared = [each for each in forked if each.ppid() != engine.pid]
        (server,) = shared  # the machine's server, or the replica's if the machine's is dead
        assert ("serve_forks" in " ".join(server.cmdline())) is not gone
        assert engine.ppid() == server.pid
        nice = os.nice(0) + 7  # the test itself may run with a niceness
        assert (replica.nice(), engine.nice()) == (nice, nice + NICER)
        engine.suspend()  # an engine that hangs must end too
        replica.kill()
        engine.wait(10)
    finally:
        kill_all([*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)])
    deadline = time.monotonic() + 20
    while [each for each in family if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]:
        assert time.monotonic() < deadline, f"left behind: {family}"
        time.sleep(0.2)
