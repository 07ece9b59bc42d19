"""Chats that go on from a sampled answer: the tokens of that answer stay as they were sampled."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from core.chat_template import PLAIN_TEMPLATE, context_ids, rendered
from core.codec import pack_ids, unpack_ids
from core.errors import PromptError
from core.messages import BASE, Candidate, ChatMessage, Finish, Prompt
from methods.data.prompts import as_prompt
from methods.turns import going_on, then
from tests.pure.refusing_template import tokenizer_with

CLOSING = (
    "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
"""Closes each turn with the stop token and a new line, as ChatML does."""
FORGETFUL = "{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] + '\n' }}{% endif %}{% endfor %}"
QUESTION = as_prompt("How many apples?")


class Chats:
    def __init__(self, folder: Path, template: str) -> None:
        self.tokenizer, self.template = AutoTokenizer.from_pretrained(tokenizer_with(folder)), template
        self.eos: int = self.tokenizer.eos_token_id

    def context(self, prompt: Prompt) -> list[int]:
        return context_ids(self.tokenizer, self.template, prompt)

    def answer(self, prompt: Prompt, text: str, finish: Finish = "stop") -> Candidate:
        """As an engine would sample it, but in tokens of one character, as no tokenizer would cut it."""
        ids = [i for character in text for i in self.tokenizer.encode(character, add_special_tokens=False)]
        return Candidate(
            id=f"{text} {finish}",
            start=BASE,
            end=BASE,
            context_ids=pack_ids(self.context(prompt)),
            completion_ids=pack_ids([*ids, self.eos] if finish == "stop" else ids),
            text=text,
            finish=finish,
            render_id="r",
        )


@pytest.mark.parametrize("template", [CLOSING, PLAIN_TEMPLATE])
@pytest.mark.parametrize("finish", ["stop", "length"])
def test_a_further_turn_is_what_the_template_shows_around_the_sampled_tokens(
    tmp_path: Path, template: str, finish: Finish
) -> None:
    chats = Chats(tmp_path, template)
    answer = chats.answer(QUESTION, "5 apples", finish)
    prompt = then(QUESTION, answer, "Are you sure?")
    assert [m.role for m in prompt.messages] == ["user", "assistant", "user"] and prompt.id != QUESTION.id
    ids = chats.context(prompt)
    text = chats.tokenizer.apply_chat_template(
        [m.model_dump() for m in prompt.messages], chat_template=template, add_generation_prompt=True, tokenize=False
    )
    assert chats.tokenizer.decode(ids) == text, "neither a token too many nor one missing"
    words = [[i for i in each if i != chats.eos] for each in (ids, unpack_ids(prompt.sampled_ids))]
    assert words[0][: len(words[1])] == words[1], "the answer's tokens are not those that were sampled"
    assert ids != rendered(chats.tokenizer, template, prompt.messages), "the text was tokenized again"
    again = then(prompt, chats.answer(prompt, "7"), "Really?")
    assert chats.context(again)[: len(ids)] == ids, "each turn is behind the one before"


@pytest.mark.parametrize("finish", ["stop", "length", "stop_string"])
def test_an_answer_goes_on_without_its_stop_token_and_without_a_new_turn(tmp_path: Path, finish: Finish) -> None:
    chats = Chats(tmp_path, CLOSING)
    first = chats.answer(QUESTION, "5 and ", finish)
    prompt = going_on(QUESTION, first)
    more = chats.context(prompt)
    assert more == [*unpack_ids(first.context_ids), *(i for i in unpack_ids(first.completion_ids) if i != chats.eos)]
    second = chats.answer(prompt, "2 are 7")
    third = going_on(prompt, second)
    assert third.messages[-1].content == "5 and 2 are 7" and len(third.messages) == 2, "it is one answer"
    assert chats.context(third)[: len(more)] == more
    asked = then(prompt, second, "Why?")
    assert chats.tokenizer.decode(chats.context(asked)).count("[assistant]") == 2


def test_a_template_that_drops_earlier_answers_is_refused_with_the_remedy(tmp_path: Path) -> None:
    chats = Chats(tmp_path, FORGETFUL)
    prompt = then(QUESTION, chats.answer(QUESTION, "5"), "Sure?")
    with pytest.raises(PromptError, match="drops the answer that is to be gone on from; use one that keeps"):
        chats.context(prompt)
    assert chats.context(QUESTION) == rendered(chats.tokenizer, FORGETFUL, QUESTION.messages)


def test_only_a_chat_with_an_answer_can_go_on_from_its_tokens() -> None:
    with pytest.raises(ValueError, match="goes on from sampled tokens, but its chat has no assistant message"):
        Prompt(id="p", messages=(ChatMessage(role="user", content="?"),), sampled_ids=pack_ids([1]))
