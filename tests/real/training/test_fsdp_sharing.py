"""Two processes over gloo share the rows of a batch and learn what one process learns in plain rows."""

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from core.config import Full, LearningConfig, Lora, ModelConfig
from core.objectives import Grpo, Objective, Sft
from tests.pure.training.test_sharing import few_shot, window
from tests.pure.training.tiny_models import KINDS, make_model
from training.learner.fsdp import Sharded
from training.learner.learner import Learner
from training.learner.parallel import Parallel

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]
CASES: list[tuple[Lora | Full, Objective, int | None]] = [
    (kind, objective, micro) for kind in KINDS for objective, micro in ((Sft(), 60), (Grpo(), None))
]


def lived(folder: Path, parallel: Parallel | None, share: bool) -> list[dict[str, float]]:
    """Trains every case; saves the trained weights. Returns the stats."""
    found = []
    for number, (kind, objective, micro) in enumerate(CASES):
        learning = LearningConfig(lr=1e-3, device="cpu", batch_tokens=200, micro_batch_tokens=micro)
        learner = Learner(ModelConfig(path=str(folder), weights=kind), learning, 0, "r", objective, parallel)
        learner.load()
        if not share:
            learner.trained_model.share_tokens = 0
        found.append({**learner.train(window(few_shot(objective))), "last": learner.losses[-1]})
        weights = learner.weights()
        if weights:
            torch.save(weights, folder / f"{number}-{share}.pt")
    return found


def member(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    stats = lived(folder, Sharded(), share=True)
    if rank == 0:
        (folder / "stats.json").write_text(json.dumps(stats))
    dist.destroy_process_group()


def test_two_processes_with_shared_rows_learn_what_one_learns_with_plain_rows(tmp_path):
    make_model(tmp_path)
    alone = lived(tmp_path, None, share=False)
    mp.spawn(member, (tmp_path,), nprocs=2)
    together = json.loads((tmp_path / "stats.json").read_text())
    for number, (one, two) in enumerate(zip(alone, together, strict=True)):
        assert two["steps"] == one["steps"] > 1
        assert two["computed_tokens"] < 0.6 * one["computed_tokens"]
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-5, abs=1e-5)
        assert two["last"] == pytest.approx(one["last"], rel=1e-4, abs=1e-4)
        assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-4)
        plain, shared = (torch.load(tmp_path / f"{number}-{share}.pt") for share in (False, True))
        assert plain.keys() == shared.keys()
        apart = torch.cat([(plain[name] - shared[name]).flatten() for name in plain]).norm()
        assert apart < 1e-3 * torch.cat([tensor.flatten() for tensor in plain.values()]).norm()
