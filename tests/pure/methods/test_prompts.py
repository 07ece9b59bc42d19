import hashlib
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.answers import extractor
from core.config import ChoiceAnswer, NumberAnswer, PromptsConfig, SplitByHash, load
from core.errors import ConfigError, PromptError
from core.messages.versions import Question
from core.redact import redacted
from methods.data.held_out import probes_of, report_questions
from methods.data.probes import overlap, refuse_overlap
from methods.data.prompts import Prompts, as_prompt, questions, read
from methods.data.text import asked_text
from serve.http.modes import ChatRequest


def jsonl(folder: Path, *lines: object) -> str:
    path = folder / "pool.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return str(path)


def parquet(folder: Path, **columns: Any) -> str:
    path = folder / "pool.parquet"
    pq.write_table(pa.table(columns), path)
    return str(path)


def read_lines(folder: Path, *lines: object, **settings: Any) -> Prompts:
    return read(PromptsConfig(path=jsonl(folder, *lines), **settings))


def texts(prompts: Prompts) -> list[str]:
    return [asked_text(prompt) for prompt in prompts]


def test_jsonl_and_parquet_give_the_same_prompts(tmp_path: Path) -> None:
    asked = ["one?", "two?"]
    lines = read_lines(tmp_path, *({"prompt": text} for text in asked))
    table = read(PromptsConfig(path=parquet(tmp_path, prompt=asked, other=[1, 2])))
    assert list(lines) == list(table) and texts(lines) == asked


def test_chat_messages_and_a_system_message_are_kept(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    from_lines = next(iter(read_lines(tmp_path, {"prompt": chat}, system="Be brief.")))
    from_table = next(iter(read(PromptsConfig(path=parquet(tmp_path, prompt=[chat]), system="Be brief."))))
    assert from_lines == from_table
    assert [message.role for message in from_lines.messages] == ["system", "user", "assistant", "user"]


def test_an_id_is_the_digest_of_the_content_alone() -> None:
    assert as_prompt("q").id == as_prompt([{"role": "user", "content": "q"}], origin="live").id
    assert len({as_prompt("q").id, as_prompt("q ").id, as_prompt("q", system="s").id}) == 3


@given(st.integers(1, 40), st.integers(0, 9), st.integers(0, 4))
def test_every_epoch_deals_every_prompt_once(length: int, seed: int, epoch: int) -> None:
    prompts = Prompts([as_prompt(f"q{index}") for index in range(length)], seed)
    places = range(epoch * length, (epoch + 1) * length)
    assert {prompts[place].id for place in places} == {prompt.id for prompt in prompts}


def test_epochs_and_seeds_have_their_own_order_and_a_place_keeps_its_prompt() -> None:
    asked = [as_prompt(f"q{index}") for index in range(50)]
    prompts, again, other = Prompts(asked, 1), Prompts(asked, 1), Prompts(asked, 2)
    first = [prompts[place].id for place in range(50)]
    assert first == [again[place].id for place in range(50)]
    assert first != [prompts[50 + place].id for place in range(50)]
    assert first != [other[place].id for place in range(50)]
    with pytest.raises(IndexError, match="places count from 0"):
        prompts[-1]


WRONG_LINES: list[tuple[object, str]] = [
    ("{", "not JSON"),
    ("[1]", "list, expected an object"),
    ({"question": "x"}, "no field 'prompt' (there are: 'question')"),
    ({"prompt": 5}, "not 5"),
    ({"prompt": "  "}, "not empty"),
    ({"prompt": []}, "must end with a message of the user"),
    ({"prompt": [{"role": "assistant", "content": "x"}]}, "must end with a message of the user"),
    ({"prompt": [{"role": "robot", "content": "x"}]}, "not a chat message: role"),
    ({"prompt": [{"role": "user"}]}, "not a chat message: content"),
    ({"prompt": None}, "not None"),
    ('{"prompt": "\\ud800"}', "not valid Unicode"),
]


@pytest.mark.parametrize(("line", "why"), WRONG_LINES)
def test_an_invalid_line_is_refused_or_skipped_with_its_number(line: object, why: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_lines(tmp_path, {"prompt": "good"}, line)
    assert "pool.jsonl:2: " in str(caught.value) and why in str(caught.value)
    prompts = read_lines(tmp_path, {"prompt": "good"}, line, on_invalid="skip")
    assert texts(prompts) == ["good"] and len(prompts.reports) == 1 and why in prompts.reports[0]


def test_many_invalid_lines_are_counted_and_some_shown(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?s)^8 invalid lines; .*:5: .*and 3 more$"):
        read_lines(tmp_path, *["{"] * 8, {"prompt": "good"})


def test_bytes_that_are_no_utf8_are_reported_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "pool.jsonl"
    path.write_bytes(b'{"prompt": "good"}\n\n{"prompt": "\xe9"}\n')
    assert "pool.jsonl:3: " in read(PromptsConfig(path=str(path), on_invalid="skip")).reports[0]


def test_a_null_in_a_parquet_column_is_reported_with_its_row(tmp_path: Path) -> None:
    prompts = read(PromptsConfig(path=parquet(tmp_path, prompt=["good", None]), on_invalid="skip"))
    assert len(prompts) == 1 and "pool.parquet, row 2: " in prompts.reports[0]


def test_duplicates_are_folded_and_the_limit_counts_what_is_left(tmp_path: Path) -> None:
    lines = [{"prompt": text} for text in ("a", "a", "b", "a", "c")]
    prompts = read_lines(tmp_path, *lines)
    assert texts(prompts) == ["a", "b", "c"] and prompts.duplicates == 2
    assert texts(read_lines(tmp_path, *lines, limit=2)) == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.jsonl", None, "there is no file"),
        ("pool.csv", b"prompt", r"ends in '.csv'; expected .jsonl or .parquet"),
        ("pool.parquet", b"no parquet", "not a Parquet file"),
        ("empty.jsonl", b"\n", "holds no valid prompt"),
    ],
)
def test_a_file_without_prompts_is_refused_by_name(
    name: str, content: bytes | None, message: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read(PromptsConfig(path=str(tmp_path / name)))


def test_a_missing_column_is_named_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no column 'prompt' \(there are: question\)"):
        read(PromptsConfig(path=parquet(tmp_path, question=["q"])))


def test_a_text_that_breaks_the_promise_of_the_split_is_named(tmp_path: Path) -> None:
    bucket = int(hashlib.sha1(b"a").hexdigest(), 16) % 20
    held = SplitByHash(allowed=(bucket,))
    broken = SplitByHash(allowed=((bucket + 1) % 20,))
    assert len(read_lines(tmp_path, {"prompt": "a"}, split=held)) == 1
    with pytest.raises(ConfigError, match=rf"pool\.jsonl:1 is in bucket {bucket} of 20, but prompts\.split allows"):
        read_lines(tmp_path, {"prompt": "a"}, split=broken, on_invalid="skip")


def test_questions_come_with_their_answers_each_once(tmp_path: Path) -> None:
    path = parquet(tmp_path, prompt=["a", "b", "a"], answer=["5", " 6 ", "5.0"])
    assert [(asked_text(each.prompt), each.answer) for each in questions(path)] == [("a", "5"), ("b", "6")]
    numbers = parquet(tmp_path, prompt=["a"], answer=[5])
    assert questions(numbers)[0].answer == "5"


def test_a_question_without_an_answer_or_with_two_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="row 2: an answer is a text or a number, not None"):
        questions(parquet(tmp_path, prompt=["a", "b"], answer=["5", None]))
    with pytest.raises(ConfigError, match="row 2: the answer '6', but an earlier line"):
        questions(parquet(tmp_path, prompt=["a", "a"], answer=["5", "6"]))
    with pytest.raises(ConfigError, match="no column 'answer'"):
        questions(parquet(tmp_path, prompt=["a"]))


NUMBER, CHOICE = extractor(NumberAnswer()), extractor(ChoiceAnswer())


def test_a_key_is_read_as_an_answer_is(tmp_path: Path) -> None:
    table = parquet(tmp_path, prompt=["a", "b", "c"], answer=[47.0, 0.5, 1e16])
    assert [each.answer for each in questions(table, extract=NUMBER)] == ["47", "0.5", "10000000000000000"]
    keys = ["1,200", "$5", "48/2 = <<48/2=24>>24\n#### 72", "1/2"]
    table = parquet(tmp_path, prompt=["a", "b", "c", "d"], answer=keys)
    assert [each.answer for each in questions(table, extract=NUMBER)] == ["1200", "5", "72", "0.5"]
    letters = parquet(tmp_path, prompt=["a", "b"], answer=["b", "(C)"])
    assert [each.answer for each in questions(letters, extract=CHOICE)] == ["B", "C"]
    exact = parquet(tmp_path, prompt=["a"], answer=[Decimal("47.00")])
    assert questions(exact, extract=NUMBER)[0].answer == "47"


@pytest.mark.parametrize("key", ["Paris.", "NaN", "Infinity", "1,5", float("nan"), float("inf"), True, ["5"]])
def test_a_key_that_cannot_be_read_is_refused_by_its_line(key: object, tmp_path: Path) -> None:
    path = jsonl(tmp_path, {"prompt": "a", "answer": "5"}, {"prompt": "b", "answer": key})
    with pytest.raises(ConfigError, match=r"(?s)1 of 2 lines of .*pool.jsonl:2: .*answer"):
        questions(path, extract=NUMBER)


@pytest.mark.parametrize("setting", ["gate.keys", "gate.anchors", "report.questions"])
def test_every_file_of_answers_is_read_by_the_runs_extractor(setting: str, tmp_path: Path) -> None:
    def held_out(path: str) -> list[Question]:
        config = load(
            "configs/tiny.yaml",
            ["gate.anchors=null", "report.questions=null", "gate.split=null", "report.split=null", f"{setting}={path}"],
        )
        return [*probes_of(config)[0], *report_questions(config)]

    assert [each.answer for each in held_out(parquet(tmp_path, prompt=["a", "b"], answer=[47.0, 5.0]))] == ["47", "5"]
    with pytest.raises(ConfigError, match=r"pool.parquet, row 2: no answer can be read from 'Paris.'"):
        held_out(parquet(tmp_path, prompt=["a", "b"], answer=["5", "Paris."]))


def test_questions_that_measure_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"all 6 questions of .* have the answer '7'"):
        questions(parquet(tmp_path, prompt=list("abcdef"), answer=[7.0] * 6), extract=NUMBER)
    with pytest.raises(ConfigError, match=r"all 6 lines of .* ask the same question"):
        questions(parquet(tmp_path, prompt=["a"] * 6, answer=["7"] * 6))


AS_SDKS_SEND_IT: list[list[dict[str, Any]]] = [
    [
        {"role": "developer", "content": "s", "name": None},
        {"role": "user", "content": [{"type": "text", "text": "a"}]},
        {"role": "assistant", "content": "b", "refusal": None, "tool_calls": None, "audio": None, "annotations": []},
        {"role": "user", "content": [{"type": "text", "text": "c", "image_url": None}], "function_call": None},
    ],
    [
        {"role": "system", "content": [{"text": "s", "type": "text"}], "tool_calls": []},
        {"role": "user", "content": "a", "refusal": None},
        {"role": "assistant", "content": "b", "function_call": None, "reasoning_content": None},
        {"role": "user", "content": "c"},
    ],
]


@pytest.mark.parametrize("chat", AS_SDKS_SEND_IT)
def test_a_chat_as_sdks_send_it_is_the_plain_chat(chat: list[dict[str, Any]], tmp_path: Path) -> None:
    plain = [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c")]
    expected = as_prompt([{"role": role, "content": text} for role, text in plain])
    assert as_prompt(chat).id == expected.id
    redacted_chat = redacted(chat, str.upper)
    assert redacted_chat is not None and [message["content"] for message in redacted_chat] == ["S", "A", "B", "C"]
    assert as_prompt(redacted(chat, str)).id == expected.id
    parts = [
        {**each, "content": [{"type": "text", "text": text, "image_url": None}]}
        for each, (_, text) in zip(chat, plain, strict=True)
    ]
    assert next(iter(read(PromptsConfig(path=parquet(tmp_path, prompt=[parts]))))).id == expected.id
    assert ChatRequest.model_validate({"messages": chat}).prompt().id == expected.id


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ({"content": [{"type": "image_url", "image_url": {"url": "x"}}]}, "'image_url'; only parts of type 'text'"),
        ({"content": [{"type": "text", "text": "a", "image_url": {"url": "x"}}]}, "only parts of type 'text'"),
        ({"content": []}, "a text or a list of parts of text"),
        ({"content": 5}, "a text or a list of parts of text"),
        ({"content": "a", "tool_calls": [{"id": "x"}]}, "not a chat message: tool_calls"),
        ({"content": None}, "not a chat message: content"),
    ],
)
def test_what_a_text_model_does_not_read_is_refused_with_the_reason(message: dict[str, Any], why: str) -> None:
    with pytest.raises(PromptError, match=why):
        as_prompt([{"role": "user", **message}])


def test_an_overlap_is_found_through_case_punctuation_and_spacing_only() -> None:
    pool = [as_prompt("Tom has 17 eggs.  How many?"), as_prompt("Tom has 18 eggs. How many?")]
    probes = [as_prompt("tom has 17 eggs; how many", system="s"), as_prompt("Ann has 18 eggs. How many?")]
    assert overlap(pool, probes) == [(pool[0], probes[0])]
    refuse_overlap(pool[1:], probes, "pool", "anchors")
    with pytest.raises(ConfigError, match=r"(?s)1 questions are both in pool and in anchors.*17 eggs"):
        refuse_overlap(pool, probes, "pool", "anchors")


def test_what_is_no_prompt_is_a_prompt_error() -> None:
    with pytest.raises(PromptError):
        as_prompt({"role": "user", "content": "x"})
