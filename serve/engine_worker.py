"""The half of the engine that lives in vLLM's worker: reads the weights that really answer, and loads whole models.

vLLM imports this file in the process that holds the weights (`worker_extension_cls="serve.engine_worker.WorkerHalf"`)
and mixes the class into its worker, hence the prefix of the method names. Importing it registers the weight-transfer
backend `ratchet`, which reads safetensors from a folder that every worker can see.

On a CPU it also replaces vLLM's batched LoRA product, which gives tokens of the base model the adapter in the last slot
(`GroupedLora`).

Nothing here trusts what vLLM says it loaded: what is expected is computed anew from the file, what is there is read
from the buffers that the forward pass multiplies with. Private parts of vLLM 0.31 that this leans on are pinned by
tests/real/test_engine.py.
"""

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.model_executor.model_loader.reload.layerwise import (
    finalize_layerwise_reload,
    initialize_layerwise_reload,
)

from serve.engine_arguments import BACKEND

IDENTITY_ROWS = 1024
"""Rows of the identity matrix multiplied at once when a packed weight is read back."""

Tensors = dict[str, torch.Tensor]


class WorkerHalf:
    """Mixed into vLLM's worker; every method is called by name through `collective_rpc`."""

    model_runner: Any
    vllm_config: Any

    def ratchet_alive(self) -> list[str]:
        return []

    def ratchet_adapter_digests(self, adapter: int) -> dict[str, str]:
        return {name: _digest(tensor) for name, tensor in _slot(self._lora(), adapter).items()}

    def ratchet_adapter_mismatches(self, adapter: int, path: str) -> list[str]:
        lora = self._lora()
        return _differences(_slot(lora, adapter), _adapter_in_engine_layout(lora, Path(path)))

    def ratchet_model_digests(self) -> dict[str, str]:
        return {name: _digest(tensor) for name, tensor in _live(self._model()).items()}

    def ratchet_model_mismatches(self, path: str) -> list[str]:
        parallel = self.vllm_config.parallel_config.tensor_parallel_size
        if parallel > 1:
            return [f"whole weights cannot be compared when tensor_parallel={parallel}: every rank holds a slice"]
        model = self._model()
        live = _live(model)
        return _differences(live, _model_in_engine_layout(model, live, Path(path)))

    def _model(self) -> torch.nn.Module:
        return self.model_runner.get_model()

    def _lora(self) -> Any:
        return self.model_runner.lora_manager._adapter_manager


# --- adapters ---


class GroupedLora:
    """y += x A^T B^T with each row's own adapter, on a CPU: one product for each adapter in the batch.

    vLLM 0.31 gathers a copy of A and B for every token, by an index that is -1 for tokens of the base model, and so
    adds the adapter of the last slot to those (vllm-project/vllm pull requests 48421 and 49656): base answers turn
    wrong, silently, once that slot was used. This is right, and faster."""

    @staticmethod
    def install() -> None:
        PunicaWrapperCPU.update_metadata = GroupedLora.update_metadata  # type: ignore[method-assign]
        PunicaWrapperCPU.add_lora_linear = GroupedLora.add_lora_linear  # type: ignore[method-assign]

    _update_metadata = PunicaWrapperCPU.update_metadata

    @staticmethod
    def update_metadata(wrapper: Any, *arguments: Any, **options: Any) -> None:
        GroupedLora._update_metadata(wrapper, *arguments, **options)
        slots = wrapper.token_lora_indices
        present = slots.unique().tolist()
        wrapper.ratchet_groups = [
            (slot, None if len(present) == 1 else (slots == slot).nonzero().flatten()) for slot in present if slot >= 0
        ]

    @staticmethod
    def add_lora_linear(
        wrapper: Any,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        lora_b_stacked: tuple[torch.Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        **_: Any,
    ) -> None:
        x, y = x.view(-1, x.shape[-1]), y.view(-1, y.shape[-1])
        for slot, rows in wrapper.ratchet_groups:
            x_rows = x if rows is None else x[rows]
            start = 0
            for a, b, width in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
                part = y[:, start : start + width]
                delta = (x_rows @ a[slot, 0].t()) @ b[slot, 0].t()
                if scale != 1:
                    delta *= scale
                if rows is None:
                    part += delta
                else:
                    part.index_add_(0, rows, delta)
                start += width


def _slot(lora: Any, adapter: int) -> Tensors:
    """The stacked A and B that the batched LoRA kernels read for one adapter, padding included."""
    if adapter not in lora.lora_index_to_id:
        return {}
    slot = lora.lora_index_to_id.index(adapter)
    found: Tensors = {}
    for name, module in lora.modules.items():
        for part, (a, b) in enumerate(zip(module.lora_a_stacked, module.lora_b_stacked, strict=True)):
            found[f"{name}.{part}.A"], found[f"{name}.{part}.B"] = a[slot, 0], b[slot, 0]
    return found


def _adapter_in_engine_layout(lora: Any, path: Path) -> Tensors:
    """What the slots must hold: cast to the engine's dtype, alpha / rank folded into B, packed, sliced, padded by 0."""
    config = json.loads((path / "adapter_config.json").read_text())
    scale = config["lora_alpha"] / (math.sqrt(config["r"]) if config.get("use_rslora") else config["r"])
    pairs: dict[str, Tensors] = defaultdict(dict)
    for name, tensor in _tensors(path):
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
    for name, pair in pairs.items():  # what no module of the engine takes must show up as missing there
        expected |= {f"{name}.{side}": tensor for side, tensor in pair.items()}
    return expected


def _sliced(module: Any, a: list[Any], b: list[Any]) -> tuple[list[Any], list[Any]]:
    """This rank's part; vLLM's own slicing, because it differs by layer."""
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


# --- whole models ---


def _live(model: torch.nn.Module) -> Tensors:
    """Every weight as the forward pass uses it. On a CPU vLLM multiplies with a packed copy and may keep a stale or
    empty parameter beside it, so linear layers are read back by multiplying with the identity, which is exact."""
    found: Tensors = {}
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            packed = name == "weight" and hasattr(module, "cpu_linear") and not _is_embedding(module)
            found[f"{prefix}.{name}".replace(".base_layer", "")] = (
                _read_back(module, parameter.dtype) if packed else parameter.data
            )
    return found


def _is_embedding(module: torch.nn.Module) -> bool:
    """An input embedding, which is looked up and not multiplied with. The output head inherits from it."""
    return hasattr(module, "embedding_dim") and type(module).__name__ != "ParallelLMHead"


def _read_back(module: Any, dtype: torch.dtype) -> torch.Tensor:
    width = module.embedding_dim if hasattr(module, "embedding_dim") else module.input_size_per_partition
    identity = torch.eye(width, dtype=dtype)
    rows = [module.cpu_linear(part, module.weight, None) for part in identity.split(IDENTITY_ROWS)]
    return torch.cat(rows).t().contiguous()


def _model_in_engine_layout(model: Any, live: Tensors, path: Path) -> Tensors:
    """The file's tensors, packed as the engine packs them (q, k, v; gate, up), cast, the vocabulary padded by 0."""
    pack = {part: (whole, i) for whole, parts in model.packed_modules_mapping.items() for i, part in enumerate(parts)}
    parts: dict[str, Tensors] = defaultdict(dict)
    for name, tensor in _tensors(path):
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


class FolderTransfer(WeightTransferEngine):
    """Weights come from a folder of safetensors. The folder is checked whole before a single layer is touched."""

    @dataclass
    class Init(WeightTransferInitInfo): ...

    @dataclass
    class Update(WeightTransferUpdateInfo):
        path: str
        like: str
        """Folder of the base model: names and shapes must be the same."""

    init_info_cls = Init
    update_info_cls = Update

    def init_transfer_engine(self, init_info: Init) -> None: ...

    def start_weight_update(self) -> None:
        """Layers are opened in `receive_weights`, once the folder is known to be good."""

    @torch.no_grad()
    def receive_weights(self, update_info: Update) -> None:
        folder = Path(update_info.path)
        check_same_shapes(folder, Path(update_info.like))
        model: Any = self.model
        initialize_layerwise_reload(model)
        try:
            model.load_weights(_tensors(folder))
        except BaseException:
            finalize_layerwise_reload(model, self.model_config)  # layers back in place, to be loaded again
            raise

    @torch.no_grad()
    def finish_weight_update(self) -> None:
        finalize_layerwise_reload(self.model, self.model_config)
        # With tied embeddings the head has a packed copy of its own on a CPU, which the reload leaves stale: answers
        # would come from the old head, silently (vLLM 0.31).
        head: Any = getattr(self.model, "lm_head", None)
        if hasattr(head, "cpu_linear"):
            head.quant_method.process_weights_after_loading(head)

    def shutdown(self) -> None: ...


def check_same_shapes(folder: Path, like: Path) -> None:
    """Raises: ValueError naming the first tensor that is missing, unknown or of another shape."""
    found, expected = _shapes(folder), _shapes(like)
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            shapes = f"has shape {found.get(name, 'none')}, the base model's is {expected.get(name, 'none')}"
            raise ValueError(f"{folder}: {name} {shapes}")


def _shapes(folder: Path) -> dict[str, list[int]]:
    shapes: dict[str, list[int]] = {}
    for file in _files(folder):
        with safe_open(file, framework="pt") as tensors:
            shapes |= {name: tensors.get_slice(name).get_shape() for name in list(tensors.keys())}
    return shapes


def _tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    for file in _files(folder):
        with safe_open(file, framework="pt") as tensors:
            for name in list(tensors.keys()):
                yield name, tensors.get_tensor(name)


def _files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no safetensors")
    return files


# --- comparing ---


def _differences(live: Tensors, expected: Tensors) -> list[str]:
    """One line a tensor that is not bit for bit what the file says."""
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


def _digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.detach().contiguous().cpu().view(torch.uint8).numpy().tobytes()).hexdigest()


if BACKEND not in WeightTransferEngineFactory._registry:
    WeightTransferEngineFactory.register_engine(BACKEND, FolderTransfer)
GroupedLora.install()
