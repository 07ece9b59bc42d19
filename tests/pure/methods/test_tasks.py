"""Tasks become files: split by item, with shots in every prompt, and answers in the report's file only."""

import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from core.answers import extractor
from core.config import Config, NumberAnswer, PatternAnswer, dump, load
from core.errors import ConfigError
from methods.data import prompts, word_tasks
from methods.data.held_out import kept_out
from methods.data.samples import examples, sample_chats
from methods.data.task_items import Item
from methods.data.tasks import made, splits, with_task
from methods.data.text import asked_text

PARTS = ("pool", "held_out", "test")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RATCHET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def words(task: str, *more: str) -> Config:
    return load(None, ["prompts.kind=words", f"prompts.task={task}", *more])


def asked(folder: Path, part: str) -> list[str]:
    column = pq.read_table(folder / f"{part}.parquet").column("prompt").to_pylist()
    return [prompt if isinstance(prompt, str) else prompt[-1]["content"] for prompt in column]


def test_a_file_stays_as_it_is() -> None:
    assert with_task(load(None)) == load(None)


def test_no_item_is_in_two_parts_whatever_its_phrasing(cache: Path) -> None:
    folder = Path(with_task(words("capitals")).prompts.path).parent
    listed = word_tasks.listed("capitals")
    in_part = {part: {word for word in listed for text in asked(folder, part) if _about(text, word)} for part in PARTS}
    shots = set(word_tasks.WORDS["capitals"].shots)
    assert in_part["pool"] | in_part["held_out"] | in_part["test"] == listed.keys() - shots
    assert sum(map(len, in_part.values())) == len(listed) - len(shots)
    assert {part: len(asked(folder, part)) for part in PARTS} == {"pool": 612, "held_out": 276, "test": 220}


def _about(text: str, word: str) -> bool:
    return any(text == phrasing.format(word=word) for phrasing in word_tasks.WORDS["capitals"].phrasings)


def test_a_word_and_its_opposite_are_one_item() -> None:
    parts = splits(made(words("opposites").prompts).items).values()
    keys = [{item.key for item in items} for items in parts]
    assert len(set.union(*keys)) == sum(map(len, keys)) < sum(map(len, parts))
    (together,) = [items for items in parts if "even odd" in {item.key for item in items}]
    assert sorted(item.answer for item in together if item.key == "even odd") == ["even", "odd"]
    assert not [key for each in keys for key in each if "impossible" in key.split()]


def test_splits_are_seeded_and_do_not_depend_on_the_order_of_items() -> None:
    items = [Item(f"w{n % 60}", (f"q{n}",), "a") for n in range(80)]
    shuffled = random.Random(1).sample(items, len(items))

    def keys(found: dict[str, list[Item]]) -> dict[str, list[str]]:
        return {part: sorted({item.key for item in items}) for part, items in found.items()}

    assert keys(splits(items)) == keys(splits(shuffled)) != keys(splits(items, seed=1))
    assert {part: len(names) for part, names in keys(splits(items)).items()} == {"pool": 33, "held_out": 15, "test": 12}


def test_a_size_bounds_the_questions_of_all_parts_together(cache: Path) -> None:
    folder = Path(with_task(words("kinds", "prompts.size=100")).prompts.path).parent
    assert sum(len(asked(folder, part)) for part in PARTS) == 100


def test_shots_are_turns_before_every_question_and_in_no_part(cache: Path) -> None:
    config = with_task(words("kinds"))
    folder = Path(config.prompts.path).parent
    questions = {text for part in PARTS for text in asked(folder, part)}
    for path in (config.prompts.path, config.gate.held_out, config.report.questions):
        for prompt in pq.read_table(path).column("prompt").to_pylist():
            assert [turn["role"] for turn in prompt] == ["user", "assistant"] * 4 + ["user"]
            assert prompt[1]["content"] == "A cow is an animal."
            assert not {turn["content"] for turn in prompt[:-1]} & questions
    assert (
        pq.read_schema(folder / "pool.parquet").names == pq.read_schema(folder / "held_out.parquet").names == ["prompt"]
    )


def test_without_shots_a_prompt_is_a_text_and_the_split_is_the_same(cache: Path) -> None:
    without = Path(with_task(words("kinds", "prompts.shots=0")).prompts.path).parent
    assert isinstance(pq.read_table(without / "test.parquet").column("prompt").to_pylist()[0], str)
    assert asked(without, "test") == asked(Path(with_task(words("kinds")).prompts.path).parent, "test")


def test_every_part_of_a_run_gets_the_whole_chat(cache: Path) -> None:
    config = with_task(words("kinds", "prompts.system=Be brief."))
    chat = ["system", *["user", "assistant"] * 4, "user"]
    pool = prompts.read(config.prompts)
    assert [message.role for message in pool[0].messages] == chat
    questions = prompts.questions(config.report.questions or "", extract=extractor(config.method.answer))
    assert len(questions) == 456 and {each.answer for each in questions} == {"animal", "food", "vehicle", "clothing"}
    assert [turn["role"] for turn in sample_chats(config)[0]] == chat[1:]
    assert [turn["content"] for turn in examples(config)][-1] == "A sock is clothing."
    assert sample_chats(config)[0][-1]["content"] == asked_text(pool[0])


def test_questions_with_the_same_phrasing_are_not_taken_for_duplicates(cache: Path) -> None:
    config = with_task(words("kinds"))
    held = kept_out(config)
    assert not any(held.holds(prompt) for prompt in prompts.read(config.prompts))


def test_settings_of_the_user_stay(cache: Path) -> None:
    given = [
        "prompts.path=mine.jsonl",
        "report.questions=null",
        "gate.anchors=a.parquet",
        "gate.anchor_precision=0.9",
        "gate.held_out=h.jsonl",
        "gate.near_duplicate=0.7",
        "method.answer.kind=number",
        "method.sampler.max_tokens=50",
    ]
    before = words("kinds", *given)
    assert with_task(before) == before
    assert before.method.answer == NumberAnswer()


def test_defaults_are_those_of_the_task(cache: Path) -> None:
    config = with_task(load("configs/tiny.yaml", ["prompts.kind=words", "prompts.task=past"]))
    assert config.method.answer == PatternAnswer(pattern=word_tasks.WORDS["past"].pattern)
    assert config.method.sampler.max_tokens == 20 and config.method.sampler.n == 8
    assert config.gate.anchors is None and config.gate.anchor_precision is None and config.gate.near_duplicate == 1.0
    assert config.prompts.split is config.gate.split is config.report.split is None
    assert config.gate.held_out == str(Path(config.prompts.path).with_name("held_out.parquet"))


def test_the_shipped_config_of_a_real_model_has_a_task(cache: Path) -> None:
    config = with_task(load("configs/smollm2.yaml"))
    assert config.prompts.task == "kinds" and config.method.sampler.max_tokens == 20
    assert [turn["role"] for turn in sample_chats(config)[0]] == ["user", "assistant"] * 4 + ["user"]
    assert len(prompts.read(config.prompts)) == 552 and config.report.final == 200


def test_a_run_goes_on_with_the_files_that_it_began_with(cache: Path, tmp_path: Path) -> None:
    config = with_task(words("kinds"))
    (tmp_path / "config.yaml").write_text(dump(config))
    assert with_task(load(tmp_path / "config.yaml")) == config


def test_files_are_made_once_and_a_damaged_one_is_named(cache: Path) -> None:
    pool = Path(with_task(words("kinds")).prompts.path)
    at = pool.stat().st_mtime_ns
    assert with_task(words("kinds")).prompts.path == str(pool) and pool.stat().st_mtime_ns == at
    pool.write_bytes(b"x")
    with pytest.raises(Exception, match=r"pool\.parquet has digest"):
        with_task(words("kinds"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["prompts.kind=words"], "needs the name of a task; set prompts.task"),
        (["prompts.task=kinds"], "prompts.task is for prompts.kind=words or prompts.kind=reasoning-gym"),
        (["prompts.shots=0"], "prompts.shots is for prompts.kind=words"),
        (["prompts.kind=words", "prompts.task=kind"], "'kind' is no word list; nearest: kinds"),
        (["prompts.kind=words", "prompts.task=kinds", "prompts.options.a=1"], "word lists have none"),
        (["prompts.kind=words", "prompts.task=kinds", "prompts.shots=5"], "prompts.shots=5: the task kinds has 4"),
        (["prompts.kind=word"], "Input should be 'file', 'words' or 'reasoning-gym'"),
    ],
)
def test_a_wrong_setting_is_named_with_the_remedy(cache: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        with_task(load(None, overrides))
