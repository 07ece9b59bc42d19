"""The proof of a checkpoint of another trainer is what transformers and PEFT compute from all of its files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from core.arrival_proof import Proof, arrival, vector
from core.artifacts import read_manifest
from core.config import Full, Lora
from core.errors import ArtifactError
from tests.pure.training.tiny_models import SEQUENCES, learner_of, make_model
from training.versions.publish import publish_base
from training.versions.reference import proof_of


def tuned(folder: Path, base: Path, **config: object) -> Path:
    torch.manual_seed(1)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"], "init_lora_weights": False}
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**(settings | config)))
    model.save_pretrained(folder)
    merged = model.merge_and_unload()
    merged.save_pretrained(folder / "merged")
    return folder


@pytest.mark.parametrize("config", [{}, {"alpha_pattern": {"q_proj": 32}}, {"use_rslora": True}])
def test_an_adapter_and_the_merged_model_have_the_same_proof(tmp_path: Path, config: dict[str, object]) -> None:
    learner = learner_of(make_model(tmp_path / "base"), Lora(rank=4, alpha=8))
    base = Proof.read(read_manifest(Path(publish_base(learner, tmp_path, SEQUENCES).path)))
    folder = tuned(tmp_path / "tuned", tmp_path / "base", **config)
    one = proof_of(folder, learner.trained_model.config, base)
    two = proof_of(folder / "merged", learner.trained_model.config.model_copy(update={"weights": Full()}), base)
    found = arrival(vector(one.version), vector(base.base), vector(two.version), vector(two.parent), vector(two.base))
    assert found.accepted and found.step > 0.1 and abs(found.coefficient - 1) < 1e-3
    with torch.inference_mode():
        model = AutoModelForCausalLM.from_pretrained(folder / "merged")
        ids = torch.tensor([SEQUENCES[0]])
        expected = model(ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
    assert np.allclose(np.frombuffer(one.version[0], "<f4"), expected.numpy(), atol=1e-5)


def test_tensors_that_the_adapter_s_own_config_leaves_out_are_named(tmp_path: Path) -> None:
    learner = learner_of(make_model(tmp_path / "base"), Lora(rank=4, alpha=8))
    base = Proof.read(read_manifest(Path(publish_base(learner, tmp_path, SEQUENCES).path)))
    folder = tuned(tmp_path / "tuned", tmp_path / "base", layers_to_transform=[0])
    proof_of(folder, learner.trained_model.config, base)
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file(tensors | {name.replace("layers.0", "layers.1"): t.clone() for name, t in tensors.items()}, file)
    with pytest.raises(ArtifactError, match=r"missing and \['base_model\.model\.model\.layers\.1"):
        proof_of(folder, learner.trained_model.config, base)
