"""Anchors are kept as they are made: one question that cannot be asked, or an interruption, loses no other's answer."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from actors.cli.offline import make_anchors
from actors.evaluate.anchors import Made
from core.config import Config, load
from core.errors import ArtifactError, ConfigError, PromptError, Unavailable
from core.messages import Prompt
from methods.data.prompts import questions
from methods.scripted_policy import ScriptedPolicy, right_answer

SHOTS = [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}]
TOO_LONG, LAST = "a long story", "2+2?"


class Asking:
    """A call of `make_anchors` on three questions; a policy that is always right stands for the engine."""

    def __init__(self, folder: Path, *content: object) -> None:
        self.to = folder / "new" / "anchors.parquet"
        self.file = folder / "questions.jsonl"
        self.file.write_text("".join(json.dumps({"prompt": each}) + "\n" for each in content))
        self.asked: list[str] = []
        self.breaks_at: str | None = None

    def _fail(self, prompt: Prompt, call: int) -> Exception | None:
        text = prompt.messages[-1].content
        self.asked.append(text)
        if text == TOO_LONG:
            return PromptError("the context has 2000 tokens; this engine accepts 1 to 511")
        return Unavailable("the engine died") if text == self.breaks_at else None

    @asynccontextmanager
    async def _opened(self, config: Config) -> AsyncIterator[tuple[object, ScriptedPolicy]]:
        yield None, ScriptedPolicy(accuracy={0: 1.0}, fail=self._fail)

    def make(self, *settings: str, samples: int = 4) -> Made:
        config = load("configs/tiny.yaml", list(settings))
        pool = config.prompts.model_copy(update={"path": str(self.file), "split": None})
        return make_anchors(pool, config, self.to, samples, 0.3, opened=self._opened)


def test_a_question_that_is_too_long_is_skipped_by_name_and_all_others_are_kept(tmp_path: Path) -> None:
    asking = Asking(tmp_path, "1+1?", TOO_LONG, LAST)
    made = asking.make()
    assert (made.questions, made.anchors) == (3, 2)
    assert made.skipped == [f"'{TOO_LONG}': the context has 2000 tokens; this engine accepts 1 to 511"]
    assert pq.read_table(asking.to)["prompt"].to_pylist() == ["1+1?", LAST]
    assert [file.name for file in asking.to.parent.iterdir()] == ["anchors.parquet"]


def test_the_whole_chat_is_asked_again_as_it_was(tmp_path: Path) -> None:
    asking = Asking(tmp_path, "1+1?", [*SHOTS, {"role": "user", "content": LAST}])
    asking.make("prompts.system=Answer.")
    read = questions(asking.to, system="Answer.")
    assert [[message.content for message in each.prompt.messages] for each in read] == [
        ["Answer.", "1+1?"],
        ["Answer.", "1+1?", "2", LAST],
    ]
    assert [each.answer for each in read] == [right_answer(each.prompt) for each in read]


def test_an_interrupted_call_goes_on_where_it_was(tmp_path: Path) -> None:
    asking = Asking(tmp_path, *(f"{i}+{i}?" for i in range(40)))
    asking.breaks_at = "39+39?"
    with pytest.raises(Unavailable):
        asking.make()
    assert not asking.to.exists()
    unfinished = asking.to.with_name("anchors.parquet.unfinished")
    with unfinished.open("a") as file:
        file.write('["cut of')
    first, asking.asked, asking.breaks_at = set(asking.asked), [], None
    assert asking.make().anchors == 40
    assert len(asking.asked) < 40 and first | set(asking.asked) == {f"{i}+{i}?" for i in range(40)}
    assert asking.asked.count("39+39?") == 1


def test_an_interrupted_call_with_other_settings_is_not_mixed_in(tmp_path: Path) -> None:
    asking = Asking(tmp_path, "1+1?", LAST)
    asking.breaks_at = LAST
    with pytest.raises(Unavailable):
        asking.make()
    with pytest.raises(ConfigError, match=r"anchors\.parquet\.unfinished has answers of another model or other"):
        asking.make(samples=8)


def test_a_target_that_cannot_be_written_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    asking = Asking(tmp_path, "1+1?")
    asking.to = tmp_path / "anchors.jsonl"
    with pytest.raises(ConfigError, match=r"ends in '\.jsonl', expected \.parquet"):
        asking.make()
    asking.to = asking.file / "anchors.parquet"
    with pytest.raises(ArtifactError, match="cannot be written"):
        asking.make()
    assert asking.asked == []
