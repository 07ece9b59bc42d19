"""Settings that follow from the model: only those that the user left open, and none for the embedded model."""

import json
from pathlib import Path

import pytest

from actors.cli import derived
from actors.cli.derived import learning_rate, with_derived
from core import config as configuration
from core.config import Config
from core.errors import ConfigError


@pytest.fixture
def model(tmp_path: Path) -> Path:
    sizes = {"hidden_size": 2048, "num_hidden_layers": 28, "vocab_size": 1000, "max_position_embeddings": 3000}
    (tmp_path / "config.json").write_text(json.dumps({**sizes, "architectures": ["LlamaForCausalLM"]}))
    return tmp_path


def config(*overrides: str) -> Config:
    return configuration.load(None, list(overrides))


@pytest.mark.parametrize(
    ("hidden", "family", "lora", "rate"),
    [
        (2000, "LlamaForCausalLM", True, 5e-4),
        (2000, "Qwen3ForCausalLM", False, 5e-5),
        (576, "LlamaForCausalLM", True, 1.3e-3),  # 5e-4 * 3.4722^.781 = 1.322e-3
        (4096, "Qwen3ForCausalLM", True, 4.7e-4),  # 5e-4 * .48828^.0775 = 4.730e-4
        (4096, "LlamaForCausalLM", True, 2.9e-4),  # 5e-4 * .48828^.781 = 2.856e-4
    ],
)
def test_the_rate_is_that_of_the_published_rule(hidden: int, family: str, lora: bool, rate: float) -> None:
    assert learning_rate(hidden, family, lora)[0] == pytest.approx(rate)


def test_on_a_cpu_the_engine_keeps_small_steps_and_a_step_has_room(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(derived, "has_gpu", lambda: False)
    before = config(f"model.path={model}")
    after, found = with_derived(before)
    assert (after.learning.lr, after.model.engine_dtype) == (4.9e-4, "float32")
    assert after.method.sampler.max_tokens == 256 and after.serve == before.serve
    assert (after.learning.batch_tokens, after.learning.micro_batch_tokens) == (8 * 512, 2500)
    names = [line.split("=")[0] for line in found]
    assert names == [
        "learning.lr", "model.engine_dtype", "method.sampler.max_tokens", "learning.batch_tokens",
        "learning.micro_batch_tokens",
    ]  # fmt: skip
    again = configuration.load(None, [f"model.path={model}"]).model_validate(after.model_dump())
    assert with_derived(again) == (again, []), "a run that goes on keeps its settings"


def test_a_gpu_brings_room_within_the_models_positions(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(derived, "has_gpu", lambda: True)
    after, _ = with_derived(config(f"model.path={model}"))
    assert (after.serve.engine.max_tokens, after.serve.engine.kv_cache_bytes) == (3000, None)
    assert (after.model.engine_dtype, after.method.sampler.max_tokens) == ("bfloat16", 1500)
    elsewhere, _ = with_derived(config(f"model.path={model}"), here=False)
    assert elsewhere.serve == config().serve and elsewhere.model.engine_dtype == "bfloat16"


def test_what_the_user_set_stays_also_where_it_is_the_default(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(derived, "has_gpu", lambda: False)
    mine = [
        "learning.lr=0.003",
        "model.engine_dtype=bfloat16",
        "method.sampler.max_tokens=110",
        "learning.batch_tokens=9",
    ]
    chosen = config(f"model.path={model}", *mine)
    assert with_derived(chosen) == (chosen, [])


def test_nothing_follows_for_the_embedded_model_or_one_that_is_not_here(model: Path) -> None:
    for path in ("models/word-problems/model", "some/hub-name"):
        chosen = config(f"model.path={path}")
        assert with_derived(chosen) == (chosen, [])
    (model / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"config\.json is not a model's config"):
        with_derived(config(f"model.path={model}"))
