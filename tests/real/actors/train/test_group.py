"""Two Ray Train workers publish the same version as one process. A killed worker costs a window's time, no version."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import ray
import torch

from actors.runtime import local_cluster
from actors.train.group import TrainGroup
from core.arrival_proof import Proof, vector
from core.artifacts import read_manifest
from core.codec import pack_floats
from core.errors import MismatchError
from core.fork_server import share
from core.messages import BASE, Example, PolicyRef, Published, Window
from tests.pure.examples import behaviour
from tests.real.training.llama_windows import QUESTIONS, STEPS, llama_session, llama_windows
from training.versions.publish import read_tensors, version_dir

pytestmark = [pytest.mark.real, pytest.mark.timeout(1800)]
ONE, TWO = PolicyRef(version=1), PolicyRef(version=2)


@pytest.fixture(scope="module")
def windows() -> dict[str, Window]:
    return {objective: made[0] for objective, made in llama_windows(QUESTIONS, 8).items()}


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Workers are forked as in a run, and import nothing themselves."""
    with share({**os.environ, **local_cluster.forks_environment()}, ("actors.preloaded",)) as print_to:
        print_to(tmp_path_factory.mktemp("forks") / "printed.log")
        yield


@pytest.fixture
def cluster(forks: None) -> Iterator[None]:
    local_cluster.start(num_cpus=2, log_to_driver=False)
    yield
    # ray.shutdown sometimes crashes this process (SIGSEGV) while a thread still waits for its train group
    for process in psutil.Process().children(recursive=True):
        if "TrainController" in " ".join(process.cmdline()):
            process.kill()
    for thread in threading.enumerate():
        if thread.name == "train-group":
            thread.join(60)
            assert not thread.is_alive(), "the train-group thread did not end, though its group did"
    ray.shutdown()


def group(run_dir: Path, kind: str, objective: str) -> TrainGroup:
    return TrainGroup(llama_session(run_dir, kind, objective, devices=2), {"OMP_NUM_THREADS": "1"}, gpu=False)


def idle(done: int, steps: int) -> None: ...


def alike(one: Path, two: Path) -> None:
    """Asserts that the versions are equal except for the order in which floats were added."""
    alone, together = read_tensors(one), read_tensors(two)
    assert alone.keys() == together.keys()
    apart = sum(float((alone[name] - together[name]).norm() ** 2) for name in alone) ** 0.5
    assert apart < 1e-3 * sum(float(tensor.norm() ** 2) for tensor in alone.values()) ** 0.5
    proofs = [vector(Proof.read(read_manifest(path)).version) for path in (one, two)]
    assert float(np.abs(proofs[0] - proofs[1]).max()) < 1e-3


def workers() -> list[psutil.Process]:
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if process.is_running() and "RayTrainWorker" in " ".join(process.cmdline())
    ]


def test_a_group_publishes_what_one_process_does_and_its_refusals_reach_the_trainer(cluster, windows, tmp_path):
    alone, together = llama_session(tmp_path / "one", "lora", "grpo"), group(tmp_path / "two", "lora", "grpo")
    published: list[list[Published]] = []
    steps: list[int] = []
    for session in (alone, together):
        base = session.open()
        session.return_to(base)
        first = session.make(windows["grpo"], ONE, base, lambda done, of: steps.append(done))
        second = session.make(windows["grpo"].model_copy(update={"number": 2}), TWO, first, idle, 0.5)
        published.append([first, second])
    assert len(workers()) == 2
    for one, two in zip(*published, strict=True):
        assert abs(one.stats["loss"] - two.stats["loss"]) < 1e-4 * abs(one.stats["loss"])
        assert (one.ref, one.parent, one.window) == (two.ref, two.parent, two.window)
        alike(Path(one.path), Path(two.path))
    assert len(steps) >= 2 * STEPS

    off = [shifted(example, -0.5) for example in windows["grpo"].examples]
    wrong = windows["grpo"].model_copy(update={"examples": tuple(off)})
    with pytest.raises(MismatchError):
        together.make(wrong, PolicyRef(version=3), published[1][1], idle)
    assert together.make(windows["grpo"], PolicyRef(version=3), published[1][1], idle).ref.version == 3


def shifted(example: Example, by: float) -> Example:
    """With other log-probabilities of the engine."""
    moved = pack_floats(np.frombuffer(behaviour(example), dtype="<f4") + by)
    return example.model_copy(update={"rows": (example.rows[0].model_copy(update={"columns": {"behaviour": moved}}),)})


def killing(at: int) -> Callable[[int, int], None]:
    """Kills one worker on the `at`th call."""
    calls = 0

    def rest(done: int, steps: int) -> None:
        nonlocal calls
        calls += 1
        if calls == at:
            os.kill(workers()[-1].pid, signal.SIGKILL)

    return rest


def test_a_worker_that_dies_costs_the_window_and_no_version_is_written_twice(cluster, windows, tmp_path):
    window = windows["sft"]
    alone, together = llama_session(tmp_path / "one", "full", "sft"), group(tmp_path / "two", "full", "sft")
    first = alone.make(window, ONE, alone.open(), idle)
    base = together.open()
    together.return_to(base)
    before = {process.pid for process in workers()}
    again = together.make(window, ONE, base, killing(at=8))
    after = {process.pid for process in workers()}
    assert len(before) == len(after) == 2 and not before & after
    alike(Path(first.path), Path(again.path))
    written = (version_dir(tmp_path / "two", ONE) / "manifest.json").stat().st_mtime_ns
    assert together.make(window, ONE, base, idle) == again
    assert (version_dir(tmp_path / "two", ONE) / "manifest.json").stat().st_mtime_ns == written
    assert sorted(path.name for path in (tmp_path / "two" / "versions").iterdir()) == ["v0000", "v0001"]
    assert torch.isfinite(next(iter(read_tensors(Path(again.path)).values()))).all()
    assert again.parent == BASE
