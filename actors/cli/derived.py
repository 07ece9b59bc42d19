"""Settings that follow from the model where the user names none. The defaults fit the embedded model only.

The learning rate for adapters is the rule of Thinking Machines' Tinker (docs: "Supervised learning hyperparameters";
"LoRA Without Regret", 2025): 5e-5 (2000 / hidden size)^P, tenfold for LoRA; P is .0775 for Qwen, .781 for Llama. It was
fitted on supervised fine-tuning of models from 1B; here two small Llamas were tuned by hand: 3e-3 at a hidden size of
128 (the rule says 4.3e-3) and 1e-3 at 576 (1.3e-3).
"""

from functools import reduce
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from actors.cli.preflight import has_gpu, shape_of
from core import shipped
from core.config import Config, Lora, ModelConfig

BASE_LR, LORA_FACTOR, HIDDEN = 5e-5, 10.0, 2000
EXPONENT = {"qwen": 0.0775}
OTHER_EXPONENT = 0.781
EXAMPLES_PER_STEP = 8
"""Whole answers, of the longest kind, that a step has room for at least."""
GPU_MAX_TOKENS = 4096

SomePart = TypeVar("SomePart", bound=BaseModel)


def with_derived(config: Config, here: bool = True) -> tuple[Config, list[str]]:
    """The config with what follows from its model, and each setting so found as `name=value (why)`. Nothing is changed
    that the user set, nor for the embedded model or one whose folder is not here. `here`: whether the engines run on
    this machine, so that its devices count. Raises: ConfigError for a config.json that cannot be read."""
    embedded = shipped.found(ModelConfig.model_fields["path"].default)
    file = Path(config.model.path) / "config.json"
    if not file.is_file() or Path(config.model.path).resolve() == Path(embedded).resolve():
        return config, []
    shape = shape_of(file)
    found: list[str] = []

    def derive(part: str, name: str, value: object, why: str) -> None:
        nonlocal config
        path = part.split(".")
        holder: BaseModel = reduce(getattr, path, config)
        if name in holder.model_fields_set or getattr(holder, name) == value:
            return
        config = _replaced(config, path, name, value)
        found.append(f"{part}.{name}={value} ({why})")

    lora = isinstance(config.model.weights, Lora)
    rate, why = learning_rate(shape["hidden_size"], file.read_text(encoding="utf-8"), lora)
    derive("learning", "lr", rate, why)
    if here and lora and not has_gpu():
        derive("model", "engine_dtype", "float32", "on a CPU; bfloat16 swallows part of a small step")
    if here and has_gpu():
        derive("serve.engine", "kv_cache_bytes", None, "the memory of the GPU")
        room = min(GPU_MAX_TOKENS, shape["max_position_embeddings"] or GPU_MAX_TOKENS)
        derive("serve.engine", "max_tokens", room, "with a GPU, within the model's positions")
    if config.prompts.kind == "file":  # a task brings its own
        derive("method.sampler", "max_tokens", config.serve.engine.max_tokens // 2, "half of serve.engine.max_tokens")
    longest = min(config.serve.engine.max_tokens, 2 * config.method.sampler.max_tokens)
    before = config.learning.batch_tokens
    derive("learning", "batch_tokens", max(before, EXAMPLES_PER_STEP * longest), f"{EXAMPLES_PER_STEP} long examples")
    if config.learning.batch_tokens > before:
        derive("learning", "micro_batch_tokens", before, "a step in parts, for its memory")
    return config, found


def learning_rate(hidden: int, architecture: str, lora: bool) -> tuple[float, str]:
    """For a model of this hidden size, to two digits, with its reason. `architecture`: a text that names the family,
    such as the model's config.json."""
    exponent = next((p for family, p in EXPONENT.items() if family in architecture.lower()), OTHER_EXPONENT)
    rate = BASE_LR * (LORA_FACTOR if lora else 1.0) * (HIDDEN / hidden) ** exponent
    return float(f"{rate:.1e}"), f"hidden size {hidden}, {'LoRA' if lora else 'all weights'}"


def _replaced(part: SomePart, path: list[str], name: str, value: object) -> SomePart:
    """A copy of the config, or of a part of it, with one setting changed."""
    if path:
        name, value = path[0], _replaced(getattr(part, path[0]), path[1:], name, value)
    return part.model_copy(update={name: value})
