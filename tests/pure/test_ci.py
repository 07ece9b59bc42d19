"""What CI relies on: a skip fails there, processes left behind are seen, and no benchmark is left out silently."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.__main__ import names
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


@pytest.mark.parametrize(("ci", "counts"), [({"RATCHET_CI": "1"}, (0, 2, 1)), ({}, (0, 0, 3))])
def test_in_ci_a_skip_is_a_failure_unless_it_is_of_a_long_test(
    tmp_path: Path, ci: dict[str, str], counts: tuple[int, int, int]
) -> None:
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (tmp_path / "test_cases.py").write_text(CASES)
    (tmp_path / "test_module.py").write_text("import pytest\npytest.importorskip('no_such_module')\n")
    environment = {name: value for name, value in os.environ.items() if name != "RATCHET_CI"} | ci
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rs", str(tmp_path / "test_cases.py")]
    said = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120).stdout
    passed, failed, skipped = counts
    failures = f"{failed} failed" in said and said.count("CI must run this test, but cannot") == failed
    assert (failures or failed == 0) and f"{skipped} skipped" in said and "1 xfailed" in said and passed == 0, said
    command[-1] = str(tmp_path / "test_module.py")
    assert subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=120).returncode == (
        2 if ci else 5
    )


def test_an_orphan_and_a_child_that_live_on_are_found_and_nothing_else(tmp_path: Path) -> None:
    since = time.time() - 0.1  # of a clock with coarse ticks
    assert left_behind(tmp_path, since, 0) == []
    starts = subprocess.run(
        ["sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    child = subprocess.Popen(["sleep", "60"])
    found = left_behind(tmp_path, since, 0.3)
    assert {process.pid for process in found} == {int(starts.stdout), child.pid}
    for process in found:
        process.kill()
    child.wait(10)
    assert left_behind(tmp_path, since) == []


def test_every_benchmark_is_run_by_a_test_or_skipped_by_name() -> None:
    text = "".join(file.read_text() for file in (ROOT / "tests" / "real").rglob("*.py"))
    assert [name for name in names() if f'bench("{name}"' not in text] == []
