"""Computes a version's tensors in the layout of the engine's memory, and reads the tensors that are loaded."""

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

IDENTITY_ROWS = 1024
"""Rows of the identity matrix per multiplication when a packed weight is read back."""

Tensors = dict[str, torch.Tensor]


def adapter_slot(lora: Any, adapter: int) -> Tensors:
    """The stacked A and B of one adapter that the batched LoRA kernels read, with their padding."""
    if adapter not in lora.lora_index_to_id:
        return {}
    slot = lora.lora_index_to_id.index(adapter)
    found: Tensors = {}
    for name, module in lora.modules.items():
        for part, (a, b) in enumerate(zip(module.lora_a_stacked, module.lora_b_stacked, strict=True)):
            found[f"{name}.{part}.A"], found[f"{name}.{part}.B"] = a[slot, 0], b[slot, 0]
    return found


def adapter_in_engine_layout(lora: Any, path: Path) -> Tensors:
    """The expected content of an adapter's slot: cast to the engine's dtype, alpha / rank folded into B, packed,
    sliced, padded with zeros."""
    config = json.loads((path / "adapter_config.json").read_text())
    scale = config["lora_alpha"] / (math.sqrt(config["r"]) if config.get("use_rslora") else config["r"])
    pairs: dict[str, Tensors] = defaultdict(dict)
    for name, tensor in read_tensors(path):
        module, side = name.removeprefix("base_model.model.").removesuffix(".weight").rsplit(".lora_", 1)
        tensor = tensor.to(lora.lora_config.lora_dtype)
        pairs[module][side] = tensor * scale if side == "B" and scale != 1 else tensor
    expected: Tensors = {}
    for name, module in lora.modules.items():
        parts = [pairs.pop(part, {}) for part in lora.packed_modules.get(name, [name])]
        a, b = _sliced(module, [part.get("A") for part in parts], [part.get("B") for part in parts])
        for i, (a_slots, b_slots) in enumerate(zip(module.lora_a_stacked, module.lora_b_stacked, strict=True)):
            expected[f"{name}.{i}.A"] = _padded(a[i], a_slots[0, 0])
            expected[f"{name}.{i}.B"] = _padded(b[i], b_slots[0, 0])
    for name, pair in pairs.items():  # tensors that no module of the engine uses must be reported as missing there
        expected |= {f"{name}.{side}": tensor for side, tensor in pair.items()}
    return expected


def _sliced(module: Any, a: list[Any], b: list[Any]) -> tuple[list[Any], list[Any]]:
    """This rank's slice, by vLLM's own functions, because slicing differs by layer."""
    if module.tp_size == 1 or not any(side is not None for side in a):
        return a, b
    if len(a) > 1:
        return module.slice_lora_a(a), module.slice_lora_b(b)
    return [module.slice_lora_a(a[0])], [module.slice_lora_b(b[0])]


def _padded(tensor: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor:
    padded = torch.zeros_like(like)
    if tensor is not None:
        padded[: tensor.shape[0], : tensor.shape[1]] = tensor
    return padded


def live_tensors(model: torch.nn.Module) -> Tensors:
    """Every weight as the forward pass uses it. On a CPU vLLM multiplies with a packed copy, and the parameter beside
    it may be stale or empty. So linear layers are read back by multiplying with the identity matrix, which is exact."""
    found: Tensors = {}
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            packed = name == "weight" and hasattr(module, "cpu_linear") and not _is_embedding(module)
            found[f"{prefix}.{name}".replace(".base_layer", "")] = (
                _read_back(module, parameter.dtype) if packed else parameter.data
            )
    return found


def _is_embedding(module: torch.nn.Module) -> bool:
    """Whether it is an input embedding, which is a lookup and no product. The output head has it as its base class."""
    return hasattr(module, "embedding_dim") and type(module).__name__ != "ParallelLMHead"


def _read_back(module: Any, dtype: torch.dtype) -> torch.Tensor:
    width = module.embedding_dim if hasattr(module, "embedding_dim") else module.input_size_per_partition
    identity = torch.eye(width, dtype=dtype)
    rows = [module.cpu_linear(part, module.weight, None) for part in identity.split(IDENTITY_ROWS)]
    return torch.cat(rows).t().contiguous()


def model_in_engine_layout(model: Any, live: Tensors, path: Path) -> Tensors:
    """The file's tensors, packed as in the engine (q, k, v; gate, up), cast, with the vocabulary padded by zeros."""
    pack = {part: (whole, i) for whole, parts in model.packed_modules_mapping.items() for i, part in enumerate(parts)}
    parts: dict[str, Tensors] = defaultdict(dict)
    for name, tensor in read_tensors(path):
        *prefix, module, kind = name.split(".")
        whole, place = pack.get(module, (module, 0))
        parts[".".join([*prefix, whole, kind])][str(place)] = tensor
    if getattr(model.config, "tie_word_embeddings", False) and "lm_head.weight" in live:
        embedding = next(name for name in parts if name.endswith("embed_tokens.weight"))
        parts.setdefault("lm_head.weight", parts[embedding])
    expected: Tensors = {}
    for name, places in parts.items():
        tensor = torch.cat([places[place] for place in sorted(places)])
        like = live.get(name)
        if like is not None:
            tensor = tensor.to(like)
            grows = tensor.dim() == 2 and tensor.shape[0] < like.shape[0] and tensor.shape[1] == like.shape[1]
            tensor = _padded(tensor, like) if grows else tensor
        expected[name] = tensor
    return expected


def read_tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    for file in weight_files(folder):
        with safe_open(file, framework="pt") as tensors:
            for name in list(tensors.keys()):
                yield name, tensors.get_tensor(name)


def weight_files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no safetensors")
    return files


def differences(live: Tensors, expected: Tensors) -> list[str]:
    """One line for each tensor that differs from the file in any bit."""
    lines: list[str] = []
    for name in sorted(live.keys() | expected.keys()):
        if name not in live:
            lines.append(f"{name}: in the file, not in the engine")
        elif name not in expected:
            lines.append(f"{name}: in the engine, not in the file")
        elif live[name].shape != expected[name].shape:
            lines.append(
                f"{name}: shape {list(live[name].shape)} in the engine, {list(expected[name].shape)} in the file"
            )
        elif not torch.equal(live[name], expected[name]):
            gap = (live[name].float() - expected[name].float()).abs().max().item()
            lines.append(f"{name}: differs by up to {gap:.3g}")
    return lines


def digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.detach().contiguous().cpu().view(torch.uint8).numpy().tobytes()).hexdigest()
