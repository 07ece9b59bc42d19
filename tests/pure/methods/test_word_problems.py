"""The embedded model's task, tokenizer and data files are as models/word-problems documents them."""

import hashlib
import importlib.util
import json
import random
import re
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

FOLDER = Path(__file__).parents[3] / "models" / "word-problems"


def load(name: str) -> ModuleType:
    """Imports a module of the folder under a unique name: the folder's name has a hyphen, and `task` is too general."""
    spec = importlib.util.spec_from_file_location(f"word_problems_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up their module while it loads
    spec.loader.exec_module(module)
    return module


task = load("task")
STEP = re.compile(r"(\d+)([-+*/])(\d+)=(\d+)")
ARITHMETIC = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "/": int.__floordiv__}


@pytest.fixture(scope="module")
def problems() -> list:
    rng = random.Random(5)
    return [task.draw_problem(rng, 1 + index % 6) for index in range(1200)]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(FOLDER / "model" / "tokenizer.json"))


def wrong_steps(solution: str) -> list[int]:
    """Indices of the steps whose arithmetic does not hold."""
    steps = STEP.findall(solution)
    return [
        index
        for index, (left, operator, right, result) in enumerate(steps)
        if ARITHMETIC[operator](int(left), int(right)) != int(result)
    ]


# ---------------------------------------------------------------- the task


def test_every_step_of_every_careful_solution_is_right(problems):
    for problem in problems:
        for solution in problem.solutions:
            assert not wrong_steps(solution), solution
            assert task.extract_answer(solution) == problem.answer, solution


def test_a_division_leaves_no_remainder(problems):
    steps = [step for problem in problems for step in problem.equations if step.operator == "/"]
    assert steps and all(step.left % step.right == 0 for step in steps)


def test_a_problem_has_the_operations_asked_for_and_values_in_range(problems):
    for index, problem in enumerate(problems):
        assert problem.operations == len(problem.equations) == 1 + index % 6
        assert all(1 <= step.result <= task.LARGEST_VALUE for step in problem.equations)
        assert problem.equations[-1].result == problem.answer


def test_the_last_step_of_every_style_arrives_at_the_answer(problems):
    for problem in problems:
        assert all(int(STEP.findall(solution)[-1][3]) == problem.answer for solution in problem.solutions)


def test_the_same_seed_draws_the_same_problems():
    first, second = random.Random(9), random.Random(9)
    assert [task.draw_problem(first, 4) for _ in range(20)] == [task.draw_problem(second, 4) for _ in range(20)]


def test_about_three_in_ten_problems_hold_a_distractor(problems):
    mark = re.compile(r" also has \d+|years old\.|miles away\.")
    assert 0.25 < sum(bool(mark.search(problem.question)) for problem in problems) / len(problems) < 0.35


def test_a_careless_author_drops_the_last_step_or_gets_it_wrong_by_1_or_10(problems):
    rng, kinds = random.Random(1), Counter()
    for problem in problems:
        solution = task.careless_solution(rng, problem)
        steps = STEP.findall(solution)
        assert task.extract_answer(solution) == int(steps[-1][3])
        if len(steps) == len(problem.equations):
            kinds["wrong"] += 1
            assert wrong_steps(solution) == [len(steps) - 1]
            assert abs(int(steps[-1][3]) - problem.answer) in (1, 10)
        else:
            kinds["short"] += 1
            assert len(steps) == len(problem.equations) - 1 and not wrong_steps(solution)
    assert min(kinds["wrong"], kinds["short"]) > 300


def test_authors_write_in_the_ratios_asked_for(problems):
    rng = random.Random(2)
    written = [(problem, task.corpus_solution(rng, problem, 0.28, 0.15)) for problem in problems]
    answers_only = sum(solution == f"The answer is {problem.answer}." for problem, solution in written) / len(written)
    careful = sum(solution in problem.solutions for problem, solution in written) / len(written)
    assert abs(answers_only - 0.28) < 0.05 and abs(careful - 0.57) < 0.05


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("17+26=43. The answer is 43.", 43),
        ("The answer is -7", -7),
        ("The answer is 4. The answer is 5.", 5),
        ("The answer is 43. Yes.", None),
        ("43", None),
        ("", None),
    ],
)
def test_only_a_final_answer_sentence_counts(text, answer):
    assert task.extract_answer(text) == answer


def test_the_buckets_of_the_splits_cover_all_twenty_once():
    buckets = [bucket for split in task.SPLITS.values() for bucket in split]
    assert sorted(buckets) == list(range(task.BUCKETS))


def test_a_split_draws_only_its_own_buckets():
    for split, buckets in task.SPLITS.items():
        stream = task.draw_split(random.Random(3), split)
        assert all(task.bucket_of(next(stream).question) in buckets for _ in range(50))


# ---------------------------------------------------------------- the tokenizer


@pytest.mark.parametrize(
    "text",
    [
        "Zoë paid 5 € — 日本語 \u2028 \ufeff",
        "👩‍👩‍👧 🇪🇺 \U0010ffff",
        json.dumps({"tool": "add", "arguments": {"a": [1, 2.5, -3e9], "b": 'ü"\n'}}, indent=2),
        "\x00\x01\x1b[0m\x7f\r\n\t  two  spaces ",
        "<0x41><0xFF> <unk> </s>",
        " ",
        "def f(x):\n\treturn x_1 ** 2  # ...\n",
    ],
)
def test_any_text_survives_the_tokenizer(tokenizer, text):
    encoded = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(encoded.ids, skip_special_tokens=False) == text
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=True) == text


def test_every_single_character_below_3000_survives_the_tokenizer(tokenizer):
    for point in range(3000):
        ids = tokenizer.encode(chr(point), add_special_tokens=False).ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == chr(point)


def test_words_of_the_task_are_single_tokens_and_digits_stand_alone(tokenizer, problems):
    for problem in problems[:200]:
        for text in (problem.question, *problem.solutions):
            tokens = tokenizer.encode(text, add_special_tokens=False).tokens
            assert "".join(tokens) == text
            assert tokens == re.findall(r" ?[A-Za-z]+|\. |\d|[\s\S]", text)


def test_special_tokens_are_pad_0_bos_1_eos_2_and_the_vocabulary_is_a_multiple_of_8(tokenizer):
    assert [tokenizer.id_to_token(index) for index in range(3)] == ["<pad>", "<bos>", "<eos>"]
    assert tokenizer.get_vocab_size() % 8 == 0
    assert all(tokenizer.token_to_id(f"<0x{byte:02X}>") is not None for byte in range(256))
    assert json.loads((FOLDER / "model" / "config.json").read_text())["vocab_size"] == tokenizer.get_vocab_size()


def test_the_chat_template_renders_one_user_message_as_bos_question_newline():
    jinja2 = pytest.importorskip("jinja2")
    config = json.loads((FOLDER / "model" / "tokenizer_config.json").read_text())
    template = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(config["chat_template"])
    facts = {"bos_token": "<bos>", "eos_token": "<eos>"}
    one = [{"role": "user", "content": "Q"}]
    four = [{"role": "system", "content": "S"}, *one, {"role": "assistant", "content": "A"}, *one]
    for add_generation_prompt in (True, False):
        render = {"add_generation_prompt": add_generation_prompt, **facts}
        assert template.render(messages=one, **render) == "<bos>Q\n"
        assert template.render(messages=four, **render) == "<bos>S\nQ\nA<eos>Q\n"


# ---------------------------------------------------------------- the files


@pytest.fixture(scope="module")
def manifest() -> dict:
    return json.loads((FOLDER / "manifest.json").read_text())


@pytest.mark.parametrize(("file", "split"), [("pool", "pool"), ("anchors", "dev"), ("test", "test")])
def test_a_data_file_holds_distinct_questions_of_its_own_split(file, split):
    prompts = pq.read_table(FOLDER / f"{file}.parquet")["prompt"].to_pylist()
    assert len(set(prompts)) == len(prompts)
    assert all(task.bucket_of(prompt) in task.SPLITS[split] for prompt in prompts)


def test_the_pool_holds_twenty_thousand_prompts_and_no_answers():
    table = pq.read_table(FOLDER / "pool.parquet")
    assert table.column_names == ["prompt"] and table.num_rows == 20_000
    assert not any("answer is" in prompt or "=" in prompt for prompt in table["prompt"].to_pylist())


def test_the_anchors_belong_to_the_model_beside_them(manifest):
    digest = hashlib.sha256((FOLDER / "model" / "model.safetensors").read_bytes()).hexdigest()
    table = pq.read_table(FOLDER / "anchors.parquet")
    assert digest == manifest["model_sha256"] == table.schema.metadata[b"model_sha256"].decode()
    assert table.column_names == ["prompt", "answer", "share"]
    assert table.num_rows == manifest["anchors"]["kept"] >= 2_000
    assert min(table["share"].to_pylist()) >= manifest["anchors"]["least_share"]


def test_the_test_file_asks_each_number_of_operations_equally_often():
    table = pq.read_table(FOLDER / "test.parquet")
    assert table.column_names == ["prompt", "answer", "operations"]
    assert Counter(table["operations"].to_pylist()) == dict.fromkeys(task.OPERATIONS, 400)


def test_the_questions_to_try_are_in_no_measurement(manifest):
    assert len(manifest["try"]) == 6
    assert all(task.split_of(question) == "pool" for question in manifest["try"])
