"""`run` finds a Python that runs, and passes on to uv what pip was told; stubs stand for Python, pip and uv."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UV = """#!/bin/bash
echo "$@" >>"$STUBS/uv-arguments"
env >"$STUBS/uv-environment"
exit 1
"""
PYTHON = """#!/bin/bash
case "$1 $2 $3" in
"-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
"-m pip install") cp "$STUBS/uv" "$(dirname "$0")/uv" ;;
"-m pip "*) [ "$6" = global.index-url ] && echo "$CONFIGURED" ;;
"-c import sys; print"*) echo cp312 ;;
"-c import sys; sys.exit"*) exit 0 ;;
*) exit 9 ;;
esac
"""
TOOLS = ("bash", "cat", "cp", "dirname", "env", "mkdir", "realpath", "sed", "sha256sum", "tr")


class Checkout:
    """A copy of `run` with the locks, and a PATH of stubs beside the system's tools."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.stubs = folder / "checkout", folder / "stubs"
        for each in (self.folder / "locks", self.stubs):
            each.mkdir(parents=True)
        shutil.copy(ROOT / "run", self.folder)
        shutil.copy(ROOT / "locks" / "cpu.txt", self.folder / "locks")
        (self.folder / "pyproject.toml").touch()
        self.stub("uv", UV)
        for tool in TOOLS:
            (self.stubs / tool).symlink_to(shutil.which(tool) or pytest.fail(f"no {tool}"))

    def stub(self, name: str, script: str) -> None:
        (self.stubs / name).write_text(script)
        (self.stubs / name).chmod(0o755)

    def run(self, **told: str) -> tuple[str, dict[str, str]]:
        """What `run` says, and the environment of uv."""
        environment = {
            "PATH": str(self.stubs),
            "HOME": str(self.folder),
            "STUBS": str(self.stubs),
            "RATCHET_FLAVOUR": "cpu",
        }
        done = subprocess.run(
            [str(self.stubs / "bash"), "run", "config"],
            cwd=self.folder,
            env=environment | told,
            capture_output=True,
            text=True,
        )
        seen = self.stubs / "uv-environment"
        lines = seen.read_text().splitlines() if seen.exists() else []
        return done.stderr, dict(line.split("=", 1) for line in lines if "=" in line)

    @property
    def arguments(self) -> str:
        return (self.stubs / "uv-arguments").read_text()


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    made = Checkout(tmp_path)
    made.stub("python3.11", "#!/bin/bash\necho 'pyenv: version 3.11 is not installed' >&2; exit 127\n")
    return made


def test_a_python_that_does_not_run_is_passed_over(checkout: Checkout) -> None:
    said, seen = checkout.run()
    assert "none of these is one that runs" in said and str(checkout.stubs / "python3.11") in said and not seen
    checkout.stub("python3", PYTHON)
    said, seen = checkout.run()
    assert seen and "could not be installed" in said


def test_uv_gets_what_pip_was_told(checkout: Checkout) -> None:
    checkout.stub("python3.12", PYTHON)
    _, seen = checkout.run(
        PIP_INDEX_URL="https://mirror/simple",
        PIP_EXTRA_INDEX_URL="https://a/simple https://b/simple",
        PIP_TRUSTED_HOST="mirror",
        PIP_PROXY="http://proxy:3128",
        PIP_FIND_LINKS="/one /two",
        PIP_CERT="/cert.pem",
        UV_INSECURE_HOST="own",
    )
    expected = {
        "UV_DEFAULT_INDEX": "https://mirror/simple",
        "UV_INDEX": "https://a/simple https://b/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_INSECURE_HOST": "own",
        "HTTPS_PROXY": "http://proxy:3128",
        "UV_FIND_LINKS": "/one,/two",
        "SSL_CERT_FILE": "/cert.pem",
    }
    assert {name: seen.get(name) for name in expected} == expected


def test_a_mirror_in_pip_s_config_file_is_passed_on_and_without_one_nothing_is(checkout: Checkout) -> None:
    checkout.stub("python3.12", PYTHON)
    assert "UV_DEFAULT_INDEX" not in checkout.run()[1]
    assert checkout.run(CONFIGURED="https://mirror/simple")[1]["UV_DEFAULT_INDEX"] == "https://mirror/simple"


def test_a_wheel_for_another_python_does_not_hide_the_cpu_build(checkout: Checkout, tmp_path: Path) -> None:
    checkout.stub("python3.12", PYTHON)
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl").touch()
    said, _ = checkout.run(PIP_FIND_LINKS=str(wheels))
    assert "--torch-backend cpu" in checkout.arguments and "download.pytorch.org" in said
    (checkout.stubs / "uv-arguments").unlink()
    (wheels / "torch-2.13.0+cpu-cp312-cp312-manylinux_2_28_x86_64.whl").touch()
    checkout.run(PIP_FIND_LINKS=str(wheels))
    assert "--torch-backend" not in checkout.arguments
