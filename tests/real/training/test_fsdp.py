"""Two processes over gloo learn the same as one process, on the shipped Llama."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from core.arrival_proof import Proof, vector
from core.artifacts import read_manifest
from core.codec import decode, encode
from core.errors import ArtifactError
from core.messages import BASE, PolicyRef, Window
from tests.real.training.llama_windows import QUESTIONS, STEPS, llama_session, llama_windows
from training.learner.fsdp import Sharded
from training.session import TrainingSession
from training.versions.publish import read_published, read_tensors, version_dir

pytestmark = [pytest.mark.real, pytest.mark.timeout(1800)]
CASES = [("lora", "sft"), ("full", "sft"), ("lora", "grpo"), ("full", "grpo")]
ONE, TWO = PolicyRef(version=1), PolicyRef(version=2)


def lived(session: TrainingSession, windows: list[Window]) -> list[list[float]]:
    """Make two versions and return to the first. Returns the losses of every step of both windows."""
    base, losses = session.open(), []
    first = session.make(windows[0], ONE, base, lambda done, steps: None)
    losses.append(list(session._learner.losses))
    session.make(windows[1], TWO, first, lambda done, steps: None)
    losses.append(list(session._learner.losses))
    session.return_to(first)
    return losses


def rescored(session: TrainingSession, ref: PolicyRef) -> float:
    """Largest difference between the learner's scores and that version's proof (nats)."""
    proof = Proof.read(read_manifest(version_dir(session.run_dir, ref)))
    own = np.concatenate(session._learner.score(proof.token_ids))
    return float(np.abs(own - vector(proof.version)).max())


def member(rank: int, folder: Path, windows: dict[str, list[bytes]]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    for kind, objective in CASES:
        session = llama_session(folder / f"{kind}-{objective}" / "two", kind, objective, Sharded())
        losses = lived(session, [decode(Window, body) for body in windows[objective]])
        told = {
            "losses": losses,
            "off": rescored(session, ONE),
            "held": sum(parameter.to_local().numel() for parameter in session._learner.model.parameters()),
            "refused": refusal(session),
        }
        (folder / f"{kind}-{objective}" / f"{rank}.json").write_text(json.dumps(told))
    dist.destroy_process_group()


def refusal(session: TrainingSession) -> str:
    """The error that a member gets if the first member cannot write, because the version exists already."""
    base = read_published(version_dir(session.run_dir, BASE))
    try:
        session.make(Window(number=9, group_ids=()), TWO, base, lambda done, steps: None)
    except ArtifactError as error:
        return str(error)
    return ""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    windows = llama_windows(QUESTIONS, 8)
    for kind, objective in CASES:
        alone = llama_session(folder / f"{kind}-{objective}" / "one", kind, objective)
        losses = lived(alone, windows[objective])
        whole = sum(parameter.numel() for parameter in alone._learner.model.parameters())
        told = {"losses": losses, "held": whole}
        (folder / f"{kind}-{objective}" / "one.json").write_text(json.dumps(told))
    bodies = {objective: [encode(window) for window in made] for objective, made in windows.items()}
    mp.spawn(member, (folder, bodies), nprocs=2)
    return folder


@pytest.fixture(params=CASES, ids="-".join)
def case(request, folder: Path) -> Path:
    return folder / "-".join(request.param)


def told(case: Path, by: str):
    return json.loads((case / f"{by}.json").read_text())


def test_the_loss_of_every_step_is_that_of_one_process(case):
    alone, together = told(case, "one")["losses"], told(case, "0")["losses"]
    assert together == told(case, "1")["losses"]
    assert len(alone[0]) >= STEPS
    for one, two in zip(alone, together, strict=True):
        # grpo's loss crosses 0
        apart = [abs(a - b) / max(abs(a), 0.01) for a, b in zip(one, two, strict=True)]
        assert max(apart) < 1e-4


def test_what_two_processes_publish_is_what_one_does(case):
    for ref in (ONE, TWO):
        one, two = (version_dir(case / name, ref) for name in ("one", "two"))
        assert {file.name for file in one.iterdir()} == {file.name for file in two.iterdir()}
        alone, together = read_tensors(one), read_tensors(two)
        assert {n: (t.dtype, t.shape) for n, t in alone.items()} == {n: (t.dtype, t.shape) for n, t in together.items()}
        apart = torch.cat([(alone[name] - together[name]).flatten() for name in alone]).norm()
        size = torch.cat([tensor.flatten() for tensor in alone.values()]).norm()
        assert apart < 1e-3 * size


def test_their_proofs_hold_the_same_log_probabilities(case):
    for ref in (BASE, ONE, TWO):
        one, two = (Proof.read(read_manifest(version_dir(case / name, ref))) for name in ("one", "two"))
        assert one.sequences == two.sequences
        assert np.allclose(vector(one.version), vector(two.version), atol=1e-3)


def test_a_version_goes_back_into_the_shards_as_it_was(case):
    assert [told(case, rank)["off"] for rank in "01"] == [0, 0]


def test_each_process_holds_its_part_of_every_weight(case):
    whole, parts = told(case, "one")["held"], [told(case, rank)["held"] for rank in "01"]
    assert sum(parts) == whole
    assert max(parts) < 0.51 * whole


def test_what_the_first_cannot_write_all_are_told(case):
    assert "exists already" in told(case, "0")["refused"]
    assert told(case, "0")["refused"] == told(case, "1")["refused"]
