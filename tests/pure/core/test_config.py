from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.config import Config, Full, Lora, ModelConfig, NumberAnswer, PatternAnswer, dump, load
from core.errors import ConfigError


def written(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


def test_no_file_and_no_override_give_the_defaults() -> None:
    assert load(None) == Config()


def test_overrides_win_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    path = written(tmp_path, "method: {sampler: {n: 4, temperature: 1}}\nlearning: {lr: 1.0e-4}\n")
    config = load(path, ["method.sampler.n=16", "gate.keys=null", "run.sinks=[wandb]", "learning.beta1=1e-1"])
    assert (config.method.sampler.n, config.method.sampler.temperature) == (16, 1.0)
    assert (config.learning.lr, config.learning.beta1) == (1e-4, 0.1)
    assert config.run.sinks == ("wandb",)


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    assert load(written(tmp_path, "# nothing yet\n")) == Config()


@settings(max_examples=40)  # each writes and reads the whole config for the sake of four fields
@given(st.integers(1, 56), st.floats(0, 5, allow_nan=False), st.sampled_from([Lora(rank=3), Full()]), st.text())
def test_the_resolved_config_loads_as_itself(n: int, temperature: float, weights: Lora | Full, column: str) -> None:
    import tempfile

    config = Config.model_validate(
        {
            "method": {"sampler": {"n": n, "temperature": temperature}, "answer": NumberAnswer().model_dump()},
            "model": {"weights": weights.model_dump()},
            "prompts": {"column": column},
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        assert load(written(Path(folder), dump(config))) == config


def test_an_override_of_a_choice_keeps_its_default_kind() -> None:
    assert load(None, ["model.weights.rank=4"]).model.weights == Lora(rank=4)
    assert load(None, ["method.answer.pattern=(.)"]).method.answer == PatternAnswer(pattern="(.)")
    assert load(None, ["method.answer.kind=number"]).method.answer == NumberAnswer()


def test_an_override_opens_a_part_that_is_null(tmp_path: Path) -> None:
    config = load(written(tmp_path, "prompts: {split: null}\n"), ["prompts.split.allowed=[3]"])
    assert config.prompts.split is not None and config.prompts.split.allowed == (3,)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lerning.lr=1", "unknown setting lerning; did you mean learning?"),
        ("model.weights.rnk=1", "unknown setting model.weights.rnk; did you mean model.weights.rank?"),
        ("model.weights.rank=0", "model.weights.rank: Input should be greater than or equal to 1 (got 0)"),
        ("method.answer.patern=x", "unknown setting method.answer.patern; did you mean method.answer.pattern?"),
        ("learning.lr=.inf", "learning.lr: Input should be a finite number (got inf)"),
        ("learning.lr=.nan", "learning.lr: Input should be a finite number (got nan)"),
        ("prompts.split.allowed=[20]", "bucket 20 is not one of the 20 buckets 0 to 19"),
        ("prompts.split.allowed=[]", "prompts.split.allowed: Tuple should have at least 1 item"),
        ("run.sinks=[smoke]", "run.sinks.0: Input should be 'tensorboard' or 'wandb' (got 'smoke')"),
        ("method.sampler.n=60", "does not fit the 56 seats"),
        ("method.sampler.max_tokens=512", "leaves no room for a prompt"),
        ("serve.reserve_seats=64", "leaves no seat for learning"),
        ("method.recipe.x=1", "method.recipe: Input should be a valid string"),
        ("method=5", "method: Input should be a valid dictionary"),
        ("learning=[1]", "learning: Input should be a valid dictionary"),
        ("method={min_share: 0.7, options: 5}", "method.options: Input should be a valid dictionary"),
        ("x", "'x' is not an override; expected the form"),
        ("=1", "'=1' is not an override; expected the form"),
        ("learning.lr=[", "is not YAML"),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_expected(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, [override])
    assert message in str(caught.value)


def test_an_override_through_a_value_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="goes through 'recipe', which is a value"):
        load(written(tmp_path, "method: {recipe: lmsi}\n"), ["method.recipe.x=1"])


def test_every_wrong_field_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(written(tmp_path, "learning: {lr: -1, epochs: 0}\ngate: {alpha: 2}\n"))
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == [
        "learning.lr",
        "learning.epochs",
        "gate.alpha",
    ]


def test_a_file_that_is_no_config_is_refused_in_one_line_that_names_it(tmp_path: Path) -> None:
    for text, message in (("[]", "holds list"), ("0", "holds int"), ("a: b: c", "is not YAML")):
        with pytest.raises(ConfigError, match=message):
            load(written(tmp_path, text))
    (tmp_path / "latin").write_bytes(b"a: \xe9\n")
    for path, message in (
        (tmp_path, "cannot be read"),
        (tmp_path / "latin", "not YAML"),
        (tmp_path / "no", "no config"),
    ):
        with pytest.raises(ConfigError, match=message):
            load(path)


def test_a_config_of_an_older_run_may_name_removed_settings_with_what_holds_anyway(tmp_path: Path) -> None:
    old = written(tmp_path, "run: {shards: 1, seed: 3}\ncollect: {max_collectors: null, collectors: 2}\n")
    config = load(old)
    assert (config.run.seed, config.collect.collectors) == (3, 2)


def test_what_became_an_option_of_a_recipe_is_moved_there_and_a_default_is_dropped(tmp_path: Path) -> None:
    old = "method: {recipe: ttrl, min_share: 0.7, max_winners: 64, distinct: true, train_n: 4, divide_by_std: false}\n"
    path = written(tmp_path, old + "learning: {lr: 1.0e-4, grpo: {kl: 0.0, mean: sequence}}\n")
    grpo = {"kl": 0.0, "mean": "sequence"}
    config = load(path)
    assert config.method.options == {"min_share": 0.7, "train_n": 4, "divide_by_std": False, "grpo": grpo}
    assert config.learning.lr == 1e-4
    assert load(written(tmp_path, dump(config))) == config


def test_what_became_an_option_may_be_overridden_by_its_old_name_or_its_new_one_which_wins() -> None:
    assert load(None, ["method.min_share=0.9"]).method.options == {"min_share": 0.9}
    assert load(None, ["method.options.min_share=0.9"]) == load(None, ["method.min_share=0.9"])
    assert load(None, ["method.min_share=0.9", "method.options.min_share=0.1"]).method.options == {"min_share": 0.1}


def test_old_settings_of_another_recipe_s_objective_are_dropped() -> None:
    assert load(None, ["learning.grpo.kl=0.5"]) == load(None, ["method.min_share=0.5"]) == Config()


@pytest.mark.parametrize("setting", ["run.shards=2", "collect.max_collectors=4"])
def test_a_removed_setting_that_asks_for_something_is_refused_with_the_remedy(setting: str) -> None:
    with pytest.raises(ConfigError, match=rf"{setting} was removed, expected .+; "):
        load(None, [setting])


def test_a_path_that_the_current_folder_does_not_have_is_that_of_the_shipped_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = load("configs/tiny-full.yaml", ["gate.keys=models/none.parquet"])
    assert config.model.weights == Full()
    paths = [config.model.path, config.prompts.path, config.gate.anchors or "", config.report.questions or ""]
    assert all(Path(path).is_absolute() and Path(path).exists() for path in paths)
    assert config.gate.keys == "models/none.parquet"
    own = tmp_path / ModelConfig().path
    own.mkdir(parents=True)
    assert load(None).model.path == ModelConfig().path
    assert load(None, ["prompts.path=models/../__init__.py"]).prompts.path == "models/../__init__.py"


def test_a_budget_of_tokens_needs_a_run_with_an_end() -> None:
    assert load(None, ["run.tokens=1000", "run.versions=5"]).run.tokens == 1000
    with pytest.raises(ConfigError, match=r"run\.tokens=1000 needs run\.versions as well"):
        load(None, ["run.tokens=1000"])
