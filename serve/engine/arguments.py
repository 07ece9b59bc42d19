"""What vLLM is told: the environment of an engine's process, and its arguments."""

import os
from pathlib import Path
from typing import Any

from core.config import EngineConfig, Lora, ModelConfig
from core.errors import ConfigError
from core.messages import BASE
from serve.engine import tensor_parallel

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256)
"""The ranks that vLLM has slots for; an adapter of another one is padded."""

CPU_BLOCK = 32
"""Tokens of a block of the KV cache, the least that vLLM's attention on a CPU takes. Whole blocks of a prompt are
computed once for all its samples: a fifth more tokens per CPU-second at 60 tokens a prompt."""

ARENAS = "2"
"""Of glibc's malloc, which by default has eight a core. The threads of a replica (Ray 2.60, vLLM 0.31) free what others
made, and what is free in one arena is of no use to the rest: replicas grew by 0.7 kB a generation, keeping nothing."""

BACKEND = "ratchet"
"""Of weight transfer, registered by serve.engine.worker."""


def environment(model: ModelConfig, engine: EngineConfig, *, gpu: bool = False) -> dict[str, str]:
    """What must be in the environment before the process of an engine starts."""
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
        "TORCH_COMPILE_DISABLE": "1",  # else the first batch compiles for 19 s
        "OMP_NUM_THREADS": str(engine.threads),  # else engine and trainer spin against each other
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    }


def vllm_arguments(model: ModelConfig, engine: EngineConfig, max_versions: int, seed: int) -> dict[str, Any]:
    """Raises: ConfigError for settings that no engine takes."""
    from transformers import AutoConfig

    positions = getattr(AutoConfig.from_pretrained(model.path).get_text_config(), "max_position_embeddings", 0)
    if positions and engine.max_tokens > positions:
        raise ConfigError(f"serve.engine.max_tokens={engine.max_tokens} is over the {positions} positions of the model")
    # Scoring a sequence that fills the context needs room for the one token that vLLM insists on sampling; its
    # position is never computed, so it may lie past the model's last one.
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
        raise ConfigError(f"model.weights.targets has {sorted(wrong)}: on a CPU adapters are of linear layers only")
    return {
        "enable_lora": True,
        "max_loras": max_versions,
        "max_cpu_loras": max_versions,
        "max_lora_rank": next(rank for rank in LORA_RANKS if rank >= weights.rank),
        "lora_target_modules": list(weights.targets),
    }


def _device_arguments(engine: EngineConfig) -> dict[str, Any]:
    if _has_gpu():  # run once on an H100, and by no test
        return {
            "gpu_memory_utilization": engine.gpu_memory_ratio,
            **tensor_parallel.vllm(engine),
        }
    if engine.tensor_parallel > 1:
        raise ConfigError(f"serve.engine.tensor_parallel={engine.tensor_parallel} needs GPUs; set it to 1")
    return {
        "enforce_eager": True,
        "distributed_executor_backend": "uni",
        # vLLM's 128 tokens would hold most short prompts whole, and share none between the samples of one
        "block_size": CPU_BLOCK,
        # a CPU has nothing to overlap: vLLM computes the next step before it tells of this one's tokens
        "async_scheduling": False,
    }


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
