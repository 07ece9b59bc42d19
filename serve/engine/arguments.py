"""The arguments of vLLM, and the environment variables of the engine process."""

import os
from pathlib import Path
from typing import Any

from core.config import EngineConfig, Lora, ModelConfig
from core.errors import ConfigError
from core.messages import BASE
from serve.engine import tensor_parallel

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256)
"""The LoRA ranks that vLLM supports. Adapters of other ranks are padded to the next one."""

CPU_BLOCK = 32
"""Tokens per block of the KV cache: the smallest that vLLM's CPU attention accepts. The samples of a prompt share its
full blocks, so small blocks save work: a fifth more tokens per CPU-second at 60 tokens a prompt."""

ARENAS = "2"
"""Number of malloc arenas in glibc, by default eight per core. The threads of a replica (Ray 2.60, vLLM 0.31) free
memory that other threads allocated, and an arena's free memory is useless to the other arenas: replicas grew by 0.7 kB
a generation without keeping any object."""

BACKEND = "ratchet"
"""Name of the weight-transfer backend that serve.engine.worker registers."""


def environment(model: ModelConfig, engine: EngineConfig, *, gpu: bool = False) -> dict[str, str]:
    """The environment variables that must be set before the engine process starts."""
    always = {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "TOKENIZERS_PARALLELISM": "false",
        "MALLOC_ARENA_MAX": ARENAS,
    }
    if Path(model.path).is_dir():
        always["HF_HUB_OFFLINE"] = "1"
    if gpu:
        return always
    return always | {
        "TORCH_COMPILE_DISABLE": "1",  # compiling delays the first batch by 19 s
        "OMP_NUM_THREADS": str(engine.threads),  # unlimited threads of engine and trainer spin against each other
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    }


def vllm_arguments(model: ModelConfig, engine: EngineConfig, max_versions: int, seed: int) -> dict[str, Any]:
    """Raises: ConfigError for settings that the engine cannot run with."""
    from transformers import AutoConfig

    positions = getattr(AutoConfig.from_pretrained(model.path).get_text_config(), "max_position_embeddings", 0)
    if positions and engine.max_tokens > positions:
        raise ConfigError(
            f"serve.engine.max_tokens={engine.max_tokens} is over the {positions} positions of the model; lower it"
        )
    # vLLM samples at least one token, also when it only scores. A scored sequence that fills the context needs room for
    # that token. Its position is never computed, so it may be past the model's last position.
    os.environ["VLLM_ALLOW_LONG_MAX_MODEL_LEN"] = "1"
    common: dict[str, Any] = {
        "model": model.path,
        "served_model_name": [str(BASE)],
        "dtype": model.engine_dtype,
        "seed": seed,
        "max_model_len": engine.max_tokens + 1,
        "max_num_seqs": engine.max_seqs,
        "kv_cache_memory_bytes": engine.kv_cache_bytes,
        "scheduling_policy": "priority",
        "generation_config": "vllm",
        "enable_prefix_caching": True,
        "logprobs_mode": "processed_logprobs",
        "disable_log_stats": True,
        "worker_extension_cls": "serve.engine.worker.WorkerHalf",
    }
    return common | _version_arguments(model, max_versions) | _device_arguments(engine)


def _version_arguments(model: ModelConfig, max_versions: int) -> dict[str, Any]:
    weights = model.weights
    if not isinstance(weights, Lora):
        from vllm.config.weight_transfer import WeightTransferConfig

        return {"weight_transfer_config": WeightTransferConfig(backend=BACKEND)}
    if not _has_gpu() and (wrong := {"embed_tokens", "lm_head"} & set(weights.targets)):
        raise ConfigError(
            f"model.weights.targets has {sorted(wrong)}, but on a CPU adapters support linear layers only; remove them"
        )
    return {
        "enable_lora": True,
        "max_loras": max_versions,
        "max_cpu_loras": max_versions,
        "max_lora_rank": next(rank for rank in LORA_RANKS if rank >= weights.rank),
        "lora_target_modules": list(weights.targets),
    }


def _device_arguments(engine: EngineConfig) -> dict[str, Any]:
    if _has_gpu():  # ran once on an H100; no test covers it
        return {
            "gpu_memory_utilization": engine.gpu_memory_ratio,
            **tensor_parallel.vllm(engine),
        }
    if engine.tensor_parallel > 1:
        raise ConfigError(f"serve.engine.tensor_parallel={engine.tensor_parallel} needs GPUs; set it to 1")
    return {
        "enforce_eager": True,
        "distributed_executor_backend": "uni",
        # most short prompts fit into one of vLLM's default blocks of 128 tokens, and only full blocks are shared
        "block_size": CPU_BLOCK,
        # a CPU has nothing to overlap, and vLLM would return a step's tokens only after it computed the next step
        "async_scheduling": False,
    }


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
