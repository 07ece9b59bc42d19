"""The part of the engine that runs in vLLM's worker process: compares weights in memory with files, loads full weights.

vLLM imports this file in the process that holds the weights (`worker_extension_cls="serve.engine.worker.WorkerHalf"`)
and mixes the class into its worker, so the method names have a prefix. The import also registers the weight-transfer
backend `ratchet`, which reads safetensors from a folder that every worker can see, and applies the patches that this
process needs (serve/engine/patches).

Nothing here trusts vLLM's own report of what it loaded. The expected tensors are computed from the file; the loaded
tensors are read from the buffers that the forward pass multiplies with.
"""

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
from vllm.model_executor.model_loader.reload.layerwise import (
    finalize_layerwise_reload,
    initialize_layerwise_reload,
)

from serve.engine.arguments import BACKEND
from serve.engine.patches import amx, private, tied_head
from serve.engine.patches.cpu_lora import GroupedLora
from serve.engine.worker_layout import (
    adapter_in_engine_layout,
    adapter_slot,
    differences,
    digest,
    live_tensors,
    model_in_engine_layout,
    read_tensors,
    weight_files,
)


class WorkerHalf:
    """Mixed into vLLM's worker. `collective_rpc` calls its methods by name."""

    model_runner: Any
    vllm_config: Any

    def ratchet_alive(self) -> list[str]:
        return []

    def ratchet_adapter_digests(self, adapter: int) -> dict[str, str]:
        return {name: digest(tensor) for name, tensor in adapter_slot(self._lora(), adapter).items()}

    def ratchet_adapter_mismatches(self, adapter: int, path: str) -> list[str]:
        lora = self._lora()
        return differences(adapter_slot(lora, adapter), adapter_in_engine_layout(lora, Path(path)))

    def ratchet_model_digests(self) -> dict[str, str]:
        return {name: digest(tensor) for name, tensor in live_tensors(self._model()).items()}

    def ratchet_model_mismatches(self, path: str) -> list[str]:
        parallel = self.vllm_config.parallel_config.tensor_parallel_size
        if parallel > 1:
            return [f"full weights cannot be compared with tensor_parallel={parallel}: every rank holds only a slice"]
        model = self._model()
        live = live_tensors(model)
        return differences(live, model_in_engine_layout(model, live, Path(path)))

    def _model(self) -> torch.nn.Module:
        return self.model_runner.get_model()

    def _lora(self) -> Any:
        return private.lora_manager(self.model_runner)


class FolderTransfer(WeightTransferEngine):
    """Loads weights from a folder of safetensors. Checks the whole folder before it changes any layer."""

    @dataclass
    class Init(WeightTransferInitInfo): ...

    @dataclass
    class Update(WeightTransferUpdateInfo):
        path: str
        like: str
        """Folder of the base model. Names and shapes must be the same."""

    init_info_cls = Init
    update_info_cls = Update

    def init_transfer_engine(self, init_info: Init) -> None: ...

    def start_weight_update(self) -> None:
        """Does nothing: `receive_weights` prepares the layers after it has checked the folder."""

    @torch.no_grad()
    def receive_weights(self, update_info: Update) -> None:
        folder = Path(update_info.path)
        check_same_shapes(folder, Path(update_info.like))
        model: Any = self.model
        initialize_layerwise_reload(model)
        try:
            model.load_weights(read_tensors(folder))
        except BaseException:
            finalize_layerwise_reload(model, self.model_config)  # restores the layers, to be loaded again
            raise

    @torch.no_grad()
    def finish_weight_update(self) -> None:
        finalize_layerwise_reload(self.model, self.model_config)
        tied_head.pack_again(self.model)

    def shutdown(self) -> None: ...


def check_same_shapes(folder: Path, like: Path) -> None:
    """Raises: ValueError that names the first tensor that is missing, unknown or of another shape."""
    found, expected = _shapes(folder), _shapes(like)
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            shapes = f"has shape {found.get(name, 'none')}, the base model's is {expected.get(name, 'none')}"
            raise ValueError(f"{folder}: {name} {shapes}")


def _shapes(folder: Path) -> dict[str, list[int]]:
    shapes: dict[str, list[int]] = {}
    for file in weight_files(folder):
        with safe_open(file, framework="pt") as tensors:
            shapes |= {name: tensors.get_slice(name).get_shape() for name in list(tensors.keys())}
    return shapes


WeightTransferEngineFactory.register_engine(BACKEND, FolderTransfer)
amx.enable()
GroupedLora.install()
