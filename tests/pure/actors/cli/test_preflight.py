"""What cannot work is refused before anything heavy starts, naming the field and the remedy."""

import socket
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.cli import preflight
from actors.storage.run_dir import RunDir
from core.config import Config, load
from core.errors import ConfigError, RunInUse
from methods.data.prompts import as_prompt
from tests.pure.refusing_template import ALTERNATE, tokenizer_with

TINY = "configs/tiny.yaml"
NEAR = "36 of 20000 prompts are nearly the same as gate or report questions, and are left out"


def tiny(*overrides: str) -> Config:
    """With a part of the pool and no probes to keep out of it, which is read faster."""
    quick = ["serve.port=0", "prompts.limit=400", "gate.anchors=null", "report.questions=null"]
    return load(TINY, [*quick, *overrides])


def test_the_shipped_config_passes_and_says_what_is_left_out_of_its_pool() -> None:
    assert preflight.check(load(TINY, ["serve.port=0"])) == [NEAR]


def test_a_recipe_that_reinforces_passes_and_its_replay_is_noted() -> None:
    exact = ["method.recipe=ttrl", "method.sampler.temperature=1"]
    fresh = preflight.check(tiny(*exact, "learning.replay_windows=1"))
    [note] = set(preflight.check(tiny(*exact))) - set(fresh)
    assert note.startswith("recipe ttrl is meant for samples of the current version; learning.replay_windows=4")
    with pytest.raises(ConfigError, match=r"method\.sampler\.temperature=0\.7"):
        preflight.check(tiny("method.recipe=ttrl"))


def test_a_missing_model_folder_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.path='models/nothing' is not a folder"):
        preflight.check(tiny("model.path=models/nothing"))


def test_a_context_longer_than_the_model_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"serve\.engine\.max_tokens=1025 exceeds the 1024 positions"):
        preflight.check(tiny("serve.engine.max_tokens=1025"))
    preflight.check(tiny("serve.engine.max_tokens=1024"))


def test_a_port_in_use_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"serve\.port={port} .* choose another with serve\.port=N"):
            preflight.check(tiny(f"serve.port={port}"))


def test_probes_that_stand_in_the_pool_are_refused(tmp_path: Path) -> None:
    shared = "What is   ONE plus one?"
    pq.write_table(pa.table({"prompt": [shared, "another"]}), tmp_path / "pool.parquet")
    pq.write_table(pa.table({"prompt": ["what is one plus one?"], "answer": ["2"]}), tmp_path / "probes.parquet")
    given = [f"prompts.path={tmp_path}/pool.parquet", "prompts.split=null"]
    with pytest.raises(ConfigError, match=r"are both in .*pool\.parquet and in the gate's probes"):
        preflight.check(tiny(*given, f"gate.anchors={tmp_path}/probes.parquet", "gate.split=null"))


def test_a_file_that_breaks_its_split_promise_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"pool\.parquet.*split"):
        preflight.check(tiny("prompts.split.allowed=[1]"))


def test_too_little_memory_is_refused_with_what_to_lower() -> None:
    with pytest.raises(ConfigError, match=r"needs about .* GiB .*serve\.engine\.kv_cache_bytes"):
        preflight.check(tiny("serve.engine.kv_cache_bytes=1099511627776"))


def test_the_memory_estimate_adds_up_for_the_embedded_model() -> None:
    model = Path("models/word-problems/model")
    parameters = preflight.parameters_of(model)
    assert 700_000 < parameters < 900_000
    shape = {"hidden_size": 128, "num_hidden_layers": 4, "vocab_size": 416, "intermediate_size": 352}
    need = preflight.memory(tiny(), parameters, shape)
    assert need.kv_caches == 2**28
    assert need.total == need.engines + need.kv_caches + need.trainer + need.ray
    full = preflight.memory(load("configs/tiny-full.yaml"), parameters, shape)
    grpo = load("configs/tiny-full.yaml", ["method.recipe=ttrl", "method.sampler.temperature=1"])
    assert preflight.memory(grpo, parameters, shape).trainer == full.trainer + 4 * parameters
    assert full.engines == 2 * need.engines
    a_fifth = preflight.memory(tiny("learning.micro_batch_tokens=500"), parameters, shape)
    assert need.trainer - a_fifth.trainer == 2000 * 4 * (
        16 * shape["hidden_size"] * shape["num_hidden_layers"] + 3 * shape["vocab_size"]
    )
    two = preflight.memory(tiny("learning.devices=2"), parameters, shape)
    assert two.trainer == need.trainer + preflight.TRAINER_FIXED_BYTES + 4 * parameters
    assert two.ray == need.ray + preflight.RAY_TRAIN_BYTES


def test_an_unknown_recipe_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean lmsi"):
        preflight.check(tiny("method.recipe=lmsj"))


def test_a_run_directory_in_use_is_refused(tmp_path: Path) -> None:
    config = tiny(f"run.dir={tmp_path}/run")
    first = RunDir.open(config)
    with pytest.raises(RunInUse, match="in use by process"):
        RunDir.open(config)
    first.close()
    RunDir.open(config).close()


def test_prompts_that_the_chat_template_refuses_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    config = tiny(f"model.path={tokenizer_with(tmp_path)}")
    user = {"role": "user", "content": "How many?"}
    fine, two = as_prompt([user]), as_prompt([{"role": "user", "content": "Two of us."}, user])
    first = "the first, 'How many?': the model's chat template refuses these messages (user, user): " + ALTERNATE
    assert preflight.check_template(config, {"prompts.path": [fine, two, two], "report.questions": []}) == [
        f"2 of 3 prompts of prompts.path cannot be asked; {first}"
    ]
    assert preflight.check_template(config, {"prompts.path": [fine]}) == []
    with pytest.raises(ConfigError, match=r"no prompt of prompts\.path can be asked; .* correct the roles"):
        preflight.check_template(config, {"prompts.path": [two]})
    with pytest.raises(ConfigError, match=r"System role not supported; correct the roles, or prompts\.system"):
        preflight.check_template(config, {"prompts.path": [as_prompt("How many?", system="Be brief.")]})
