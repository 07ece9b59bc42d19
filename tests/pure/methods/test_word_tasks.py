"""The shipped word lists: long enough, readable by their own patterns, and packaged."""

import tomllib
from pathlib import Path

import pytest

from core.answers import extractor
from methods.data import word_tasks
from methods.data.word_tasks import FOLDER, WORDS, listed

ROOT = Path(__file__).parents[3]


def test_each_list_has_a_row_and_a_file_that_is_packaged() -> None:
    assert {file.stem for file in FOLDER.glob("*.tsv")} == WORDS.keys()
    packaged = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["methods"]
    assert packaged == ["data/words/*"] and FOLDER == ROOT / "methods/data/words"


@pytest.mark.parametrize("name", WORDS)
def test_a_list_has_a_source_and_a_thousand_questions_that_are_all_different(name: str) -> None:
    file = (FOLDER / f"{name}.tsv").read_text(encoding="ascii")
    assert file.startswith("# ") and ("Apache-2.0" in file or "CC BY 4.0" in file)
    lines = [line for line in file.splitlines() if not line.startswith("#")]
    assert lines == sorted(lines) and len(lines) == len(listed(name))
    questions = [question for item in word_tasks.task(name).items for question in item.questions]
    assert len(questions) == len(set(questions)) >= 1000


@pytest.mark.parametrize("name", WORDS)
def test_the_pattern_reads_every_answer_as_it_is_to_be_written(name: str) -> None:
    words, task = WORDS[name], word_tasks.task(name)
    extract = extractor(task.answer)
    assert len(task.shots) == word_tasks.SHOTS == len(words.shots)
    for word, (question, reply) in zip(words.shots, task.shots, strict=True):
        assert word in question and extract(reply) == extract(listed(name)[word], stated=True) is not None
        assert extract(question) is None or name not in ("kinds", "continents")  # an echo is no answer
    for word, answer in listed(name).items():
        bare = extract(answer, stated=True)
        sentence = words.reply.format(word=word, answer=words.said.get(answer, answer))
        assert bare is not None and extract(sentence) == bare == extract(f"{answer}.")


@pytest.mark.parametrize(
    ("name", "text", "answer"),
    [
        ("kinds", "A cow is an animal.", "animal"),
        ("kinds", 'A "cow" is a kind of animal', "animal"),
        ("kinds", "Clothing.", "clothing"),
        ("kinds", "A cow is an animal, food, a vehicle or clothing.", None),
        ("kinds", "A cow is not a vehicle.", None),
        ("kinds", "A cow is an animal that gives milk.", None),
        ("opposites", 'The opposite of "hot" is "cold".', "cold"),
        ("opposites", "The opposite of in is out.", "out"),
        ("opposites", "The opposite of out is in.", "in"),
        ("capitals", "The capital of Angola is Luanda.", "luanda"),
        ("capitals", "It is Luanda, a city on the coast.", None),
        ("continents", "Peru is in South America.", "south america"),
        ("continents", "America", None),
        ("cities", "Amsterdam is in the Netherlands.", "netherlands"),
        ("cities", "Utrecht is a city in the Netherlands.", "netherlands"),
        ("plurals", "The plural of city is cities.\nThe plural of box is boxes.", None),
    ],
)
def test_a_text_is_read(name: str, text: str, answer: str | None) -> None:
    assert extractor(word_tasks.task(name).answer)(text) == answer


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("kinds", {"a horse": "animal", "rice": "food", "a ferry": "vehicle", "a scarf": "clothing"}),
        ("opposites", {"empty": None, "full": "empty", "buy": "sell"}),
        ("plurals", {"wife": "wives", "roof": "roofs", "crisis": "crises", "series": "series"}),
        ("past", {"buy": "bought", "refer": "referred", "carry": "carried", "visit": "visited"}),
        ("comparatives", {"good": "better", "dry": "drier", "wet": "wetter", "large": "larger"}),
        ("capitals", {"Australia": "Canberra", "Nevada": "Carson City", "the Philippines": "Manila", "Bolivia": None}),
        ("continents", {"Chad": "Africa", "Cuba": "North America", "Russia": None}),
        ("cities", {"Osaka": "Japan", "Kano": "Nigeria"}),
    ],
)
def test_facts_are_right_and_doubtful_ones_left_out(name: str, facts: dict[str, str | None]) -> None:
    assert {word: listed(name).get(word) for word in facts} == facts
