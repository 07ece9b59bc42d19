"""What CI relies on: a skip fails there, processes left behind are seen, and no benchmark is left out silently."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.left_behind import left_behind

ROOT = Path(__file__).parents[2]
CASES = """
import pytest

@pytest.mark.skipif(True, reason="needs a tool")
def test_one(): ...

def test_two():
    pytest.skip("needs a privilege")

@pytest.mark.skipif(True, reason="long; RATCHET_LONG=1 runs it")
def test_three(): ...

@pytest.mark.xfail
def test_four():
    assert False
"""


@pytest.mark.parametrize(
    ("ci", "outcomes"), [("1", "1 failed, 1 skipped, 1 xfailed, 2 errors"), ("", "4 skipped, 1 xfailed")]
)
def test_in_ci_a_skip_is_a_failure_unless_it_is_of_a_long_test(tmp_path: Path, ci: str, outcomes: str) -> None:
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "test_cases.py").write_text(CASES)
    (tmp_path / "test_module.py").write_text("import pytest\npytest.importorskip('no_such_module')\n")
    environment = {name: value for name, value in os.environ.items() if name != "RATCHET_CI"}
    command = [sys.executable, "-m", "pytest", "-rs", "--continue-on-collection-errors", str(tmp_path)]
    told = environment | ({"RATCHET_CI": ci} if ci else {})
    said = subprocess.run(command, cwd=tmp_path, env=told, capture_output=True, text=True, timeout=300).stdout
    assert outcomes in said and said.count("CI must run this test, but cannot") == (3 if ci else 0), said


def test_an_orphan_and_a_child_that_live_on_are_found_and_nothing_else(tmp_path: Path) -> None:
    before = set(psutil.pids())
    assert left_behind(tmp_path, before, 0) == []
    starts = subprocess.run(
        ["sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    child = subprocess.Popen(["sleep", "60"])
    found = left_behind(tmp_path, before, 0.3)
    assert {process.pid for process in found} == {int(starts.stdout), child.pid}
    for process in found:
        process.kill()
    child.wait(10)
    assert left_behind(tmp_path, before) == []


def test_every_benchmark_is_run_by_a_test_or_skipped_by_name() -> None:
    text = "".join(file.read_text() for file in (ROOT / "tests" / "real").rglob("*.py"))
    names = [file.stem.replace("_", "-") for file in (ROOT / "bench").glob("[!_]*.py")]
    assert len(names) > 10 and [name for name in names if f'bench("{name}"' not in text] == []
