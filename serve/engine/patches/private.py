"""Reads and calls private parts of vLLM (0.31). No other file names them.

tests/real/serve/engine/test_patches.py fails when one of them moves. `worker_layout` reads LoRA slots and packed
layers, which have no underscore but are internal too.
"""

from typing import Any


def lora_manager(model_runner: Any) -> Any:
    """The holder of the LoRA slots: vllm/lora/worker_manager.py `WorkerLoRAManager._adapter_manager`."""
    return model_runner.lora_manager._adapter_manager


def stop_listening(llm: Any) -> None:
    """End the task that reads the engine's outputs (vllm/v1/engine/async_llm.py `AsyncLLM.output_handler`), because it
    reports an intended stop as a crash."""
    if llm.output_handler is not None:
        llm.output_handler.cancel()


def name_adapter(models: Any, lora: Any) -> None:
    """Register an adapter in vLLM's OpenAI app (vllm/entrypoints/openai/models/serving.py `OpenAIServingModels`). Its
    own `load_lora_adapter` also loads the adapter, under a number that it does not return."""
    models.lora_requests[lora.lora_name] = lora


def forget_adapter(models: Any, name: str) -> None:
    models.lora_requests.pop(name, None)


def name_base(models: Any, names: list[str], path: str) -> None:
    """Set the names under which the app answers with the model itself; vLLM has no call for it. Changes the list in
    place, because vLLM's registry holds the same list."""
    from vllm.entrypoints.openai.models.protocol import BaseModelPath

    models.base_model_paths[:] = [BaseModelPath(name=name, model_path=path) for name in names]
