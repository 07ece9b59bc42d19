"""Two processes over gloo learn what one does, on the shipped Llama."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from core.artifacts import read_manifest
from core.codec import decode, encode
from core.messages import BASE, PolicyRef, Window
from core.proof import Proof, vector
from tests.pure.llama_windows import llama_room, llama_windows
from training.publish import read_tensors, version_dir
from training.room import Room
from training.sharded import Sharded

CASES = [("lora", "sft"), ("full", "sft"), ("lora", "grpo"), ("full", "grpo")]
ONE, TWO = PolicyRef(version=1), PolicyRef(version=2)


def lived(room: Room, windows: list[Window]) -> list[list[float]]:
    """Two versions, and back to the first: the losses of every step of both windows."""
    base, losses = room.open(), []
    first = room.make(windows[0], ONE, base, lambda: None)
    losses.append(list(room._learner.losses))
    room.make(windows[1], TWO, first, lambda: None)
    losses.append(list(room._learner.losses))
    room.return_to(first)
    return losses


def rescored(room: Room, ref: PolicyRef) -> float:
    """How far what the learner holds is from that version's proof (nats)."""
    proof = Proof.read(read_manifest(version_dir(room.run_dir, ref)))
    own = np.concatenate(room._learner.score(proof.token_ids))
    return float(np.abs(own - vector(proof.version)).max())


def member(rank: int, folder: Path, windows: dict[str, list[bytes]]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    for kind, objective in CASES:
        room = llama_room(folder / f"{kind}-{objective}" / "two", kind, objective, Sharded())
        losses = lived(room, [decode(Window, body) for body in windows[objective]])
        off = rescored(room, ONE)
        held = sum(p.to_local().numel() for p in room._learner.model.parameters())
        told = {"losses": losses, "off": off, "held": held}
        (folder / f"{kind}-{objective}" / f"{rank}.json").write_text(json.dumps(told))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    windows = llama_windows()
    for kind, objective in CASES:
        alone = llama_room(folder / f"{kind}-{objective}" / "one", kind, objective)
        losses = lived(alone, windows[objective])
        (folder / f"{kind}-{objective}" / "one.json").write_text(json.dumps(losses))
    bodies = {objective: [encode(window) for window in made] for objective, made in windows.items()}
    mp.spawn(member, (folder, bodies), nprocs=2)
    return folder


@pytest.fixture(params=CASES, ids="-".join)
def case(request, folder: Path) -> Path:
    return folder / "-".join(request.param)


def read(file: Path):
    return json.loads(file.read_text())


def test_the_loss_of_every_step_is_that_of_one_process(case):
    alone, together = read(case / "one.json"), [read(case / f"{rank}.json")["losses"] for rank in (0, 1)]
    assert together[0] == together[1]
    assert min(len(losses) for losses in alone) >= 20
    for one, two in zip(alone, together[0], strict=True):
        apart = [abs(a - b) / abs(a) for a, b in zip(one, two, strict=True)]
        print(case.name, len(one), max(apart))
        assert max(apart) < 1e-4


def test_what_two_processes_publish_is_what_one_does(case):
    for ref in (ONE, TWO):
        one, two = (version_dir(case / name, ref) for name in ("one", "two"))
        alone, together = read_tensors(one), read_tensors(two)
        assert alone.keys() == together.keys()
        assert {p.name for p in one.iterdir()} == {p.name for p in two.iterdir()}
        for name, tensor in alone.items():
            assert tensor.dtype == together[name].dtype
        moved = torch.cat([(alone[n] - together[n]).flatten() for n in alone])
        size = torch.cat([t.flatten() for t in alone.values()])
        print(case.name, ref, float(moved.norm() / size.norm()), float(moved.abs().max()))


def test_their_proofs_hold_the_same_log_probabilities(case):
    for ref in (BASE, ONE, TWO):
        one, two = (Proof.read(read_manifest(version_dir(case / name, ref))) for name in ("one", "two"))
        assert one.sequences == two.sequences
        print(case.name, ref, float(np.abs(vector(one.version) - vector(two.version)).max()))


def test_a_version_goes_back_into_the_shards_as_it_was(case):
    assert all(read(case / f"{rank}.json")["off"] == 0 for rank in (0, 1))
