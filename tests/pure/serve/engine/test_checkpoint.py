"""A checkpoint that the engine could not hold as a whole is refused by name, with the remedy, before any start."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from core.config import Full, Lora, ModelConfig
from core.errors import ArtifactError
from serve.engine.checkpoint import fitting

WIDTH, INNER, VOCABULARY = 8, 16, 32
LAYER = {
    "self_attn.q_proj": (WIDTH, WIDTH),
    "self_attn.v_proj": (WIDTH // 2, WIDTH),
    "mlp.down_proj": (WIDTH, INNER),
}
CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": VOCABULARY,
    "tie_word_embeddings": True,
}
ADAPTER = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "bias": "none"}
PREFIX = "base_model.model.model.layers"


def base_tensors() -> dict[str, np.ndarray]:
    shapes = {f"model.layers.{i}.{name}.weight": shape for i in range(2) for name, shape in LAYER.items()}
    shapes |= {"model.embed_tokens.weight": (VOCABULARY, WIDTH), "model.norm.weight": (WIDTH,)}
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


def whole(folder: Path, tensors: dict[str, Any] | None = None, **config: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    save_file(base_tensors() if tensors is None else tensors, folder / "model.safetensors")
    return folder


def pair(module: str, rank: int = 4, dtype: type = np.float32) -> dict[str, np.ndarray]:
    height, width = LAYER[module.split(".", 1)[1]]
    return {
        f"{PREFIX}.{module}.lora_A.weight": np.ones((rank, width), dtype),
        f"{PREFIX}.{module}.lora_B.weight": np.ones((height, rank), dtype),
    }


def adapter(folder: Path, tensors: dict[str, Any] | None = None, **config: object) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(ADAPTER | config))
    save_file(pair("0.self_attn.q_proj") if tensors is None else tensors, folder / "adapter_model.safetensors")
    return folder


@pytest.fixture
def model(tmp_path: Path) -> ModelConfig:
    return ModelConfig(path=str(whole(tmp_path / "base")), weights=Lora(rank=2, targets=("v_proj",)))


def test_an_engine_gets_the_rank_and_the_layers_of_the_checkpoint_beside_those_of_the_run(
    model: ModelConfig, tmp_path: Path
) -> None:
    tensors = pair("0.self_attn.q_proj") | pair("1.mlp.down_proj", dtype=np.float16)
    folder = adapter(tmp_path / "c", tensors, use_rslora=True, layers_to_transform=[0, 1], lora_dropout=0.1)
    weights = fitting(folder, model).weights
    assert isinstance(weights, Lora)
    assert (weights.rank, weights.targets) == (4, ("v_proj", "down_proj", "q_proj"))
    assert fitting(whole(tmp_path / "w", use_cache=False, pad_token_id=0), model).weights == Full()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("alpha_pattern", {"q_proj": 32}),
        ("rank_pattern", {"q_proj": 2}),
        ("modules_to_save", ["lm_head"]),
        ("use_dora", True),
        ("bias", "all"),
        ("lora_bias", True),
        ("fan_in_fan_out", True),
        ("target_parameters", ["mlp.experts.gate_up_proj"]),
        ("trainable_token_indices", [1, 2]),
        ("layer_replication", [[0, 2]]),
        ("use_qalora", True),
        ("alora_invocation_tokens", [5]),
        ("a_setting_of_tomorrow", 1),
        ("init_lora_weights", "pissa"),
        ("peft_type", "IA3"),
    ],
)
def test_a_setting_that_the_engine_ignores_is_refused(
    model: ModelConfig, tmp_path: Path, field: str, value: object
) -> None:
    with pytest.raises(ArtifactError, match=rf"{field}=.*merge_and_unload.*folder of the whole model"):
        fitting(adapter(tmp_path / "c", **{field: value}), model)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("base_model.model.lm_head.lora_A.weight", (4, WIDTH)),
        ("base_model.model.model.embed_tokens.lora_embedding_A", (4, VOCABULARY)),
        ("base_model.model.model.embed_tokens.lora_A.weight", (4, WIDTH)),
        ("base_model.model.model.embed_tokens.weight", (VOCABULARY, WIDTH)),
        (f"{PREFIX}.0.self_attn.q_proj.lora_magnitude_vector", (WIDTH,)),
        (f"{PREFIX}.0.self_attn.q_proj.base_layer.bias", (WIDTH,)),
        (f"{PREFIX}.0.self_attn.q_proj.lora_A.default.weight", (4, WIDTH)),
        (f"{PREFIX}.2.self_attn.q_proj.lora_A.weight", (4, WIDTH)),
        ("base_model.model.model.norm.lora_A.weight", (4, WIDTH)),
        ("module.model.layers.0.self_attn.q_proj.lora_A.weight", (4, WIDTH)),
    ],
)
def test_a_tensor_that_the_engine_leaves_out_is_refused(
    model: ModelConfig, tmp_path: Path, name: str, shape: tuple[int, ...]
) -> None:
    folder = adapter(tmp_path / "c", pair("0.self_attn.q_proj") | {name: np.zeros(shape, np.float32)})
    with pytest.raises(ArtifactError, match="merge_and_unload") as error:
        fitting(folder, model)
    assert name in str(error.value)


def test_an_adapter_that_does_not_fit_is_refused(model: ModelConfig, tmp_path: Path) -> None:
    half = pair("0.self_attn.q_proj")
    del half[f"{PREFIX}.0.self_attn.q_proj.lora_B.weight"]
    for name, tensors, config, said in (
        ("half", half, {}, "lora_A only"),
        ("rank", pair("0.self_attn.q_proj", rank=3), {}, r"shape \[3, 8\], expected \[4, 8\] by r=4"),
        ("kind", pair("0.self_attn.q_proj", dtype=np.int8), {}, "is I8"),
        ("wide", None, {"r": 512}, "r=512"),
        ("none", {}, {}, "no safetensors tensor"),
    ):
        with pytest.raises(ArtifactError, match=said):
            fitting(adapter(tmp_path / name, tensors, **config), model)
    two = adapter(tmp_path / "two")
    save_file(pair("1.self_attn.q_proj"), two / "more.safetensors")
    with pytest.raises(ArtifactError, match=r"more\.safetensors beside its adapter"):
        fitting(two, model)
    (two / "more.safetensors").write_bytes(b"cut off")
    with pytest.raises(ArtifactError, match=r"more\.safetensors is not a safetensors file"):
        fitting(two, model)


def test_an_adapter_is_no_version_of_a_run_of_whole_models(model: ModelConfig, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="whole models; merge it"):
        fitting(adapter(tmp_path / "c"), model.model_copy(update={"weights": Full()}))


def test_a_whole_model_has_the_tensors_of_the_base_and_no_others(model: ModelConfig, tmp_path: Path) -> None:
    tensors, norm = base_tensors(), "model.norm.weight"
    for name, changed, said in (
        ("missing", {n: t for n, t in tensors.items() if n != norm}, f"lacks {norm}"),
        ("more", tensors | {"lm_head.weight": np.zeros((VOCABULARY, WIDTH), np.float32)}, r"has lm_head\.weight"),
        (
            "grown",
            tensors | {"model.embed_tokens.weight": np.zeros((VOCABULARY + 1, WIDTH), np.float32)},
            r"shape \[33, 8\], expected \[32, 8\]",
        ),
        ("packed", tensors | {norm: np.zeros(WIDTH, np.uint8)}, "is U8.*quantization"),
    ):
        with pytest.raises(ArtifactError, match=said):
            fitting(whole(tmp_path / name, changed), model)
    halves = {name: tensor.astype(np.float16) for name, tensor in tensors.items()}
    assert fitting(whole(tmp_path / "halves", halves, torch_dtype="float16"), model).weights == Full()


def test_the_shards_of_a_whole_model_are_all_there_and_each_tensor_once(model: ModelConfig, tmp_path: Path) -> None:
    folder = whole(tmp_path / "sharded")
    (folder / "model.safetensors").unlink()
    tensors = base_tensors()
    files = {name: f"model-{1 + i % 2}-of-2.safetensors" for i, name in enumerate(tensors)}
    for file in set(files.values()):
        save_file({name: tensors[name] for name in tensors if files[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    assert fitting(folder, model).weights == Full()
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ArtifactError, match=r"is in model-\d-of-2.safetensors, model.safetensors"):
        fitting(folder, model)
    (folder / "model.safetensors").unlink()
    (folder / "model-2-of-2.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"lists model-2-of-2\.safetensors, which is not there"):
        fitting(folder, model)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rope_theta", 5e5),
        ("rms_norm_eps", 1e-3),
        ("hidden_act", "gelu"),
        ("tie_word_embeddings", False),
        ("architectures", ["MistralForCausalLM"]),
        ("quantization_config", {"quant_method": "fp8"}),
    ],
)
def test_a_whole_model_that_computes_otherwise_is_refused(
    model: ModelConfig, tmp_path: Path, field: str, value: object
) -> None:
    said = "rope" if field == "rope_theta" else field
    with pytest.raises(ArtifactError, match=rf"config\.json has {said}.*the engine would use the base's"):
        fitting(whole(tmp_path / "c", **{field: value}), model)
