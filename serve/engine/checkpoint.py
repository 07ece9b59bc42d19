"""Checks of a checkpoint that another trainer made, before any engine starts.

vLLM silently leaves out what it does not know: patterns of ranks, biases, modules beside the adapter. Everything that
the engine could not hold as the trainer meant it is refused here by name."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from core.config import Full, Lora, ModelConfig
from core.errors import ArtifactError
from serve.engine.arguments import LORA_RANKS
from serve.engine.version_files import local_folder

ADAPTER_CONFIG, ADAPTER_FILE = "adapter_config.json", "adapter_model.safetensors"
ADAPTER_TENSOR = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
FLOATS = ("F64", "F32", "F16", "BF16")
SAME_BASE = (None, True, False, "gaussian", "orthogonal", "eva")
"""Values of `init_lora_weights` that leave the base's weights unchanged."""
UNDERSTOOD = {
    *("peft_type", "task_type", "r", "lora_alpha", "target_modules", "exclude_modules", "use_rslora"),
    *("layers_to_transform", "layers_pattern", "init_lora_weights"),
    # without effect on a trained adapter
    *("base_model_name_or_path", "revision", "auto_mapping", "peft_version", "inference_mode", "lora_dropout"),
    *("loftq_config", "eva_config", "corda_config", "lora_ga_config", "megatron_config", "megatron_core"),
    *("qalora_group_size", "runtime_config"),
}
"""Fields of PEFT's LoraConfig (0.19) that the engine follows, or that do not matter. All others must be empty."""
NOT_WEIGHTS = {
    *("transformers_version", "torch_dtype", "dtype", "_name_or_path", "use_cache", "initializer_range"),
    *("attention_dropout", "pretraining_tp", "bos_token_id", "eos_token_id", "pad_token_id"),
}
"""Fields of config.json that do not change what the weights compute."""
MERGE = "merge it (PEFT's `merge_and_unload`, then `save_pretrained`) and give the folder of the whole model"
WHOLE = "save the whole model with transformers' `save_pretrained`"


class Tensor(NamedTuple):
    name: str
    file: str
    dtype: str
    shape: tuple[int, ...]


def fitting(folder: Path, model: ModelConfig) -> ModelConfig:
    """The run's model with the `weights` of an engine that holds all of the checkpoint.

    Raises: ArtifactError that names what the engine would leave out, and the remedy."""
    tensors = _headers(folder)
    base = {tensor.name: tensor for tensor in _headers(local_folder(model.path))}
    if (folder / ADAPTER_CONFIG).exists():
        if not isinstance(model.weights, Lora):
            raise ArtifactError(f"{folder} is an adapter, but versions of this run are whole models; {MERGE}")
        return model.model_copy(update={"weights": _adapter(folder, tensors, base, model.weights)})
    _whole_model(folder, tensors, base)
    _same_architecture(folder, local_folder(model.path))
    return model.model_copy(update={"weights": Full()})


def _adapter(folder: Path, tensors: list[Tensor], base: dict[str, Tensor], lora: Lora) -> Lora:
    settings = _json(folder / ADAPTER_CONFIG)
    odd = {name: value for name, value in settings.items() if name not in UNDERSTOOD and value not in _EMPTY}
    if settings.get("peft_type", "LORA") != "LORA":
        odd["peft_type"] = settings["peft_type"]
    if (start := settings.get("init_lora_weights")) not in SAME_BASE:
        odd["init_lora_weights"] = start
    if odd:
        named = ", ".join(f"{name}={json.dumps(value)}" for name, value in odd.items())
        raise ArtifactError(f"{folder / ADAPTER_CONFIG} sets {named}, which the engine would leave out; {MERGE}")
    rank, alpha = settings.get("r"), settings.get("lora_alpha")
    if type(rank) is not int or not 1 <= rank <= LORA_RANKS[-1] or not isinstance(alpha, int | float):
        raise ArtifactError(
            f"{folder / ADAPTER_CONFIG} says r={rank} and lora_alpha={alpha}; the engine takes a rank from 1 to "
            f"{LORA_RANKS[-1]} and a number; {MERGE}"
        )
    if others := {tensor.file for tensor in tensors} - {ADAPTER_FILE}:
        raise ArtifactError(f"{folder} has {min(others)} beside its adapter; the engine reads only {ADAPTER_FILE}")
    sides: dict[str, set[str]] = {}
    for tensor in tensors:
        module, side = _adapted(tensor, base, lora, rank)
        sides.setdefault(module, set()).add(side)
    if alone := [module for module, found in sides.items() if len(found) == 1]:
        raise ArtifactError(f"{folder}: {alone[0]} has lora_{sides[alone[0]].pop()} only; save the adapter again")
    targets = {module.rsplit(".", 1)[-1] for module in sides}
    return lora.model_copy(
        update={"rank": max(rank, lora.rank), "targets": (*lora.targets, *sorted(targets - {*lora.targets}))}
    )


_EMPTY = (None, False, "", "none", [], {})


def _adapted(tensor: Tensor, base: dict[str, Tensor], lora: Lora, rank: int) -> tuple[str, str]:
    """Module and side of an adapter's tensor. Raises: ArtifactError if the engine would leave it out."""
    found = ADAPTER_TENSOR.fullmatch(tensor.name)
    module, side = found.groups() if found else ("", "")
    leaf = module.rsplit(".", 1)[-1]
    beside = leaf in ("lm_head", "embed_tokens") and leaf not in lora.targets
    weight = base.get(f"{module}.weight")
    if weight is None or len(weight.shape) != 2 or beside:
        raise ArtifactError(
            f"{tensor.file} holds {tensor.name}, which is no adapter of a linear layer inside the model; the engine "
            f"would leave it out; {MERGE}"
        )
    height, width = weight.shape
    _check_shape(tensor, (rank, width) if side == "A" else (height, rank), f"r={rank} and the base's {weight.name}")
    return module, side


def _whole_model(folder: Path, tensors: list[Tensor], base: dict[str, Tensor]) -> None:
    index = folder / "model.safetensors.index.json"
    if index.exists():
        listed: dict[str, str] = _json(index).get("weight_map") or {}
        if absent := {*listed.values()} - {file.name for file in folder.glob("*.safetensors")}:
            raise ArtifactError(f"{index} lists {min(absent)}, which is not there; copy all files of the model")
    for name, times in Counter(tensor.name for tensor in tensors).items():
        if times > 1:
            files = ", ".join(tensor.file for tensor in tensors if tensor.name == name)
            raise ArtifactError(f"{folder}: {name} is in {files}; leave only the files of one model there")
    found = {tensor.name: tensor for tensor in tensors}
    for name in sorted(found.keys() | base.keys()):
        if name not in found:
            raise ArtifactError(f"{folder} lacks {name}, which the base model has; {WHOLE}")
        if name not in base:
            raise ArtifactError(f"{folder} has {name}, which the base model lacks; {WHOLE}, of the same architecture")
        _check_shape(found[name], base[name].shape, "the base model")


def _same_architecture(folder: Path, base: Path) -> None:
    from transformers import AutoConfig  # which knows the spellings of its older versions

    try:
        theirs, ours = (AutoConfig.from_pretrained(each).to_dict() for each in (folder, base))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ArtifactError(f"{folder / 'config.json'} is not a model's config ({error}); {WHOLE}") from None
    for name in sorted((theirs.keys() | ours.keys()) - NOT_WEIGHTS):
        if theirs.get(name) != ours.get(name):
            raise ArtifactError(
                f"{folder / 'config.json'} has {name}={theirs.get(name)!r}, the base model's has {ours.get(name)!r}, "
                "and the engine would use the base's; give a checkpoint of the run's base model"
            )


def _check_shape(tensor: Tensor, expected: tuple[int, ...], by: str) -> None:
    if tensor.shape != expected:
        raise ArtifactError(
            f"{tensor.file}: {tensor.name} has shape {[*tensor.shape]}, expected {[*expected]} by {by}; give a "
            "checkpoint of the run's base model"
        )
    if tensor.dtype not in FLOATS:
        raise ArtifactError(
            f"{tensor.file}: {tensor.name} is {tensor.dtype}, expected one of {', '.join(FLOATS)}; save the checkpoint "
            "without quantization"
        )


def _headers(folder: Path) -> list[Tensor]:
    """All tensors of the folder's safetensors files, without their contents. Raises: ArtifactError."""
    from safetensors import SafetensorError, safe_open

    found: list[Tensor] = []
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="numpy") as opened:
                for name in list(opened.keys()):
                    part: Any = opened.get_slice(name)
                    found.append(Tensor(name, file.name, part.get_dtype(), tuple(part.get_shape())))
        except (OSError, SafetensorError) as error:
            raise ArtifactError(f"{file} is not a safetensors file ({error}); save the checkpoint again") from None
    if not found:
        raise ArtifactError(f"{folder} holds no safetensors tensor; give a PEFT adapter, or {WHOLE}")
    return found


def _json(file: Path) -> dict[str, Any]:
    try:
        read = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{file} cannot be read ({error}); save the checkpoint again") from None
    if not isinstance(read, dict):
        raise ArtifactError(f"{file} is no JSON object; save the checkpoint again")
    return read
