"""Private parts of vLLM that are only read, or called, each named here and nowhere else (vLLM 0.31).

tests/real/serve/engine/test_patches.py fails when one of them has moved. What `worker_layout` reads (LoRA slots, packed
layers) has no underscore, but is as internal.
"""

from typing import Any


def lora_manager(model_runner: Any) -> Any:
    """What holds the LoRA slots: vllm/lora/worker_manager.py `WorkerLoRAManager._adapter_manager`."""
    return model_runner.lora_manager._adapter_manager


def stop_listening(llm: Any) -> None:
    """End the task that reads the engine's outputs (vllm/v1/engine/async_llm.py `AsyncLLM.output_handler`): it reports
    an end that we want as a crash."""
    if llm.output_handler is not None:
        llm.output_handler.cancel()


def name_adapter(models: Any, lora: Any) -> None:
    """In vLLM's OpenAI app (vllm/entrypoints/openai/models/serving.py `OpenAIServingModels`). Its own way to do so,
    `load_lora_adapter`, loads the adapter too, under a number that it does not tell."""
    models.lora_requests[lora.lora_name] = lora


def forget_adapter(models: Any, name: str) -> None:
    models.lora_requests.pop(name, None)


def name_base(models: Any, names: list[str], path: str) -> None:
    """The names under which the app answers with the model itself; it has no way of its own to change them. In place,
    because its registry holds the same list."""
    from vllm.entrypoints.openai.models.protocol import BaseModelPath

    models.base_model_paths[:] = [BaseModelPath(name=name, model_path=path) for name in names]
