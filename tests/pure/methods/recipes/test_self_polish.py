"""Rewordings: which question gets one, and which rewording is asked."""

import asyncio

from core.messages import Candidate, PolicyRef, Prompt, Sampling, Scored
from methods.data.prompts import as_prompt
from methods.scripted_policy import ScriptedPolicy
from tests.pure.methods.recipes.hand_made import PROMPT, group, method, settled


class Rewriter(ScriptedPolicy):
    def __init__(self, text: str, finish: str = "stop") -> None:
        super().__init__()
        self.text, self.finish, self.asked = text, finish, list[str]()

    async def generate(self, prompt: Prompt, sampling: Sampling, ref: PolicyRef | None = None) -> list[Candidate]:
        self.asked.append(prompt.messages[-1].content)
        made = await super().generate(prompt, sampling)
        return [each.model_copy(update={"text": self.text, "finish": self.finish}) for each in made]


def asked(policy: Rewriter, scored: tuple[Scored, ...], prompt: Prompt = PROMPT) -> list[Prompt]:
    made = method("self_polish")

    async def ask() -> list[Prompt]:
        assert made.ask is not None
        return list(await made.ask(prompt, policy, scored))

    return asyncio.run(ask())


UNSURE = settled(method("self_polish", "method.options.min_share=0"), group("7", "7", "8", "9")).scored
SURE = settled(method("self_polish"), group("7", "7", "7", "9")).scored
BETTER = "Ann has 3 apples and 4 pears. How many fruits does she have in all?"


def test_an_unsure_question_is_reworded_and_the_rewording_is_asked_in_its_place() -> None:
    policy = Rewriter(f" {BETTER}\n")
    (found,) = asked(policy, UNSURE)
    assert found.messages[-1].content == BETTER and found.origin == "generated"
    assert PROMPT.messages[-1].content in policy.asked[0] and "Rewrite the question" in policy.asked[0]
    chat = as_prompt([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "3 and 4?"}])
    (found,) = asked(Rewriter("What are 3 and 4 together?"), UNSURE, chat)
    assert [message.content for message in found.messages] == ["Be brief.", "What are 3 and 4 together?"]


def test_sure_questions_and_rewordings_are_not_reworded() -> None:
    policy = Rewriter(BETTER)
    assert asked(policy, SURE) == [] and asked(policy, UNSURE, as_prompt("3 and 4?", origin="generated")) == []
    assert policy.asked == []


def test_a_rewording_that_loses_a_number_or_is_cut_off_or_empty_or_the_same_is_not_asked() -> None:
    same = PROMPT.messages[-1].content
    for text, finish in (("How many fruits?", "stop"), (BETTER, "length"), ("", "stop"), (same, "stop")):
        assert asked(Rewriter(text, finish), UNSURE) == []
