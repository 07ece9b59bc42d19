"""Acknowledged records had reached the disk before: checked by the order of a child process's system calls."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from core.messages import Vote
from core.store.writer import FILE, RunReader

ROOT = Path(__file__).parents[4]
SHIM = Path(__file__).with_name("disk_shim.c")

STORE = """
import asyncio, os, sys
from pathlib import Path
from actors.storage.store import Store
from core.errors import StorageFull, StoreError
from core.messages import Vote
from core.store.records import message

run_dir, fault, pragma = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]

def mark(word):
    with open(run_dir / "marks", "ab", buffering=0) as file:
        file.write(word.encode() + b"\\n")

async def append(store, id):
    try:
        await store.append([message("votes", id, "p", Vote(id=id, prompt_id="p", answer="x" * 3000))])
    except StorageFull:
        mark("full " + id)
    except StoreError:
        mark("refused " + id)
    else:
        mark("acknowledged " + id)

async def main():
    store = Store(str(run_dir), look_s=0.01)
    await store.start()
    if pragma:
        store._store._db.execute(pragma)
    running = asyncio.create_task(store.run())
    for order in sys.argv[4:]:
        if "=" in order:
            fault.write_text(order.partition("=")[2])
        elif order == "mended":
            fault.unlink()
        else:
            await append(store, order)
    print((await store.status())["full"])
    running.cancel()
    os._exit(0)  # no clean close: the disk is left as after a crash

asyncio.run(main())
"""

ARTIFACT = """
import sys
from pathlib import Path
from core.artifacts import appearing
from core.errors import StorageFull

run_dir = Path(sys.argv[1])
try:
    with appearing(run_dir / "versions" / "v0001", {}) as aside:
        (aside / "inner").mkdir()
        (aside / "inner" / "weights").write_bytes(b"1" * 5000)
        (aside / "config.json").write_text("{}")
except StorageFull as error:
    print("full:", error)
except OSError as error:
    print("refused:", error)
else:
    with open(run_dir / "marks", "ab", buffering=0) as file:
        file.write(b"acknowledged")
"""


@dataclass(frozen=True)
class Call:
    what: str
    path: str
    more: str


@dataclass
class Child:
    """Runs a program on a directory, with the shim loaded."""

    shim: Path
    folder: Path

    @property
    def run_dir(self) -> Path:
        return self.folder / "run"

    def run(self, program: str, *arguments: str, fault: str = "") -> tuple[list[Call], str]:
        """Its disk operations and its output."""
        self.run_dir.mkdir(exist_ok=True)
        log, order = self.folder / "log", self.folder / "fault"
        log.unlink(missing_ok=True)
        if fault:
            order.write_text(fault)
        seen = {"LD_PRELOAD": str(self.shim), "SHIM_UNDER": str(self.run_dir), "SHIM_LOG": str(log)}
        done = subprocess.run(
            [sys.executable, "-c", program, str(self.run_dir), str(order), *arguments],
            env={**os.environ, **seen, "SHIM_FAULT": str(order), "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return [Call(*line.split("\t")) for line in log.read_text().splitlines()], done.stdout.strip()

    def marks(self) -> list[str]:
        return (self.run_dir / "marks").read_text().splitlines()


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs gcc, to look at a child's system calls")
    library = tmp_path_factory.mktemp("shim") / "disk_shim.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SHIM), "-ldl"], check=True)
    return library


@pytest.fixture
def child(shim: Path, tmp_path: Path) -> Child:
    return Child(shim, tmp_path)


def acknowledged_unsynced(calls: list[Call]) -> list[str]:
    """Files of the write-ahead log that held unsynced bytes at an acknowledgment, one entry for each time."""
    unsynced: set[str] = set()
    early: list[str] = []
    for call in calls:
        if call.path.endswith("/marks") and call.what == "write":
            early += sorted(unsynced)
        elif call.what == "write" and call.path.endswith("-wal"):
            unsynced.add(call.path)
        elif call.what == "sync":
            unsynced.discard(call.path)
    return early


def test_the_log_is_on_the_disk_before_anything_is_acknowledged(child: Child) -> None:
    calls, _ = child.run(STORE, "", *(f"v{i}" for i in range(20)))
    written = sum(call.what == "write" and call.path.endswith("-wal") for call in calls)
    assert written >= 20 and child.marks() == [f"acknowledged v{i}" for i in range(20)]
    assert acknowledged_unsynced(calls) == []


@pytest.mark.parametrize("weaker", ["OFF", "NORMAL"])
def test_the_check_above_notices_a_store_that_does_not_sync(weaker: str, child: Child) -> None:
    calls, _ = child.run(STORE, f"PRAGMA synchronous={weaker}", "a", "b")
    assert len(acknowledged_unsynced(calls)) == 2


def test_what_was_acknowledged_is_found_after_the_process_is_gone(child: Child) -> None:
    child.run(STORE, "", "a", "b")
    assert held(child) == ["a", "b"]


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        (f"sync {errno.EIO} -wal", "refused"),
        (f"write {errno.EIO} -wal", "refused"),
        (f"write {errno.ENOSPC} -wal", "full"),
    ],
)
def test_a_disk_that_fails_acknowledges_nothing_and_is_written_again_once_mended(
    fault: str, word: str, child: Child
) -> None:
    calls, full = child.run(STORE, "", "a", f"fault={fault}", "b", "c", "mended", "b", "d")
    assert child.marks() == ["acknowledged a", f"{word} b", f"{word} c", "acknowledged b", "acknowledged d"]
    assert any(call.what == "failed" for call in calls) and full == "None"
    refusals = [call for call in calls if is_mark(call)][1:3]
    assert acknowledged_unsynced([call for call in calls if not any(call is each for each in refusals)]) == []
    assert [id for id in held(child) if id != "c"] == ["a", "b", "d"]


def test_what_a_killed_process_did_not_sync_is_synced_before_it_is_acknowledged_again(child: Child) -> None:
    child.run(STORE, "PRAGMA synchronous=OFF", "a")
    before = len(child.marks())
    calls, _ = child.run(STORE, "", "a")
    assert len(child.marks()) == before + 1
    until = calls[: next(n for n, call in enumerate(calls) if is_mark(call))]
    assert any(call == Call("sync", str(child.run_dir / FILE), "sync") for call in until)


def held(child: Child) -> list[str]:
    reader = RunReader(child.run_dir)
    votes = [vote.id for vote in reader.all("votes", Vote)]
    assert list(reader._rows("PRAGMA integrity_check")) == [("ok",)]
    return votes


# --- directories ---


def unsynced_when(calls: list[Call], moment: Callable[[Call], bool]) -> set[str]:
    """Files with unsynced bytes, and directories with unsynced entries, at that moment."""
    unsynced: set[str] = set()
    for call in calls:
        if moment(call):
            return unsynced
        match call.what:
            case "write":
                unsynced |= {call.path, str(Path(call.path).parent)}
            case "mkdir":
                unsynced |= {call.path, str(Path(call.path).parent)}
            case "rename":
                unsynced.add(str(Path(call.more).parent))
            case "sync":
                unsynced.discard(call.path)
    raise AssertionError("that moment never came")


def is_rename(call: Call) -> bool:
    return call.what == "rename"


def is_mark(call: Call) -> bool:
    return call.path.endswith("/marks")


def test_a_directory_is_on_disk_before_it_appears_and_its_name_before_anybody_is_told(child: Child) -> None:
    calls, _ = child.run(ARTIFACT)
    aside = next(call.path for call in calls if is_rename(call))
    assert not [path for path in unsynced_when(calls, is_rename) if path.startswith(aside)]
    assert not unsynced_when(calls, is_mark)
    assert {Path(call.path).name for call in calls if call.what == "sync"} >= {
        "weights", "inner", "config.json", "manifest.json", "versions", "run", Path(aside).name
    }  # fmt: skip


def test_all_files_are_on_disk_before_their_manifest_is_written(child: Child) -> None:
    calls, _ = child.run(ARTIFACT)
    aside = next(call.path for call in calls if is_rename(call))
    left = unsynced_when(calls, lambda call: call.what == "write" and call.path.endswith("manifest.json"))
    assert not [path for path in left if path.startswith(aside)]


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        (f"write {errno.ENOSPC} weights", "full"),
        (f"sync {errno.ENOSPC} manifest.json", "full"),
        (f"sync {errno.EDQUOT} weights", "full"),
        (f"sync {errno.EIO} weights", "refused"),
    ],
)
def test_a_directory_that_cannot_reach_the_disk_does_not_appear(fault: str, word: str, child: Child) -> None:
    calls, said = child.run(ARTIFACT, fault=fault)
    assert said.startswith(word) and not any(is_rename(call) for call in calls)
    assert list((child.run_dir / "versions").iterdir()) == []
    (child.folder / "fault").unlink()
    child.run(ARTIFACT)
    assert (child.run_dir / "versions" / "v0001" / "manifest.json").is_file()


def test_the_store_file_is_named_in_its_own_log(child: Child) -> None:
    """The shim sees the file that the store writes; otherwise the tests above would check nothing."""
    calls, _ = child.run(STORE, "", "a")
    assert any(call.path == str(child.run_dir / f"{FILE}-wal") for call in calls)
