# pyright: basic
"""What a checkpoint of another trainer answers under transformers and PEFT: the proof that such a checkpoint lacks."""

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from transformers import AutoModelForCausalLM

from core.arrival_proof import Proof
from core.codec import pack_floats
from core.config import ModelConfig
from core.errors import ArtifactError
from training.versions.publish import ADAPTER, read_tensors


def proof_of(folder: Path, model: ModelConfig, base: Proof) -> Proof:
    """The proof of a checkpoint of the run's base model, as a step from that base. `base`: that of version 0.

    Raises: ArtifactError naming a tensor of an adapter that its own config leaves out."""
    loaded = _loaded(folder, model)
    scores = tuple(_scores(loaded, ids) for ids in base.token_ids)
    return Proof(sequences=base.sequences, base=base.version, parent=base.version, version=scores)


def _loaded(folder: Path, model: ModelConfig) -> Any:
    adapter = (folder / ADAPTER).exists()
    dtype = getattr(torch, model.trainer_dtype)
    try:
        loaded = AutoModelForCausalLM.from_pretrained(model.path if adapter else folder, dtype=dtype)
        if adapter:
            loaded = PeftModel.from_pretrained(loaded, str(folder))
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise ArtifactError(f"{folder} cannot be loaded by transformers or PEFT: {error}") from None
    if adapter:
        held, meant = read_tensors(folder).keys(), get_peft_model_state_dict(loaded).keys()
        if held != meant:
            raise ArtifactError(
                f"{folder}: by adapter_config.json the tensors {sorted(meant - held)[:2]} are missing and "
                f"{sorted(held - meant)[:2]} unused; save the adapter again with PEFT's save_pretrained"
            )
    return loaded.eval()


@torch.inference_mode()
def _scores(model: Any, ids: list[int]) -> bytes:
    tokens = torch.tensor([ids])
    logprobs = model(input_ids=tokens[:, :-1]).logits[0].float().log_softmax(-1)
    return pack_floats(logprobs.gather(-1, tokens[0, 1:, None])[:, 0].numpy())
