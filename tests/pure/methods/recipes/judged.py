"""Samples and judges for the tests of recipes that judge."""

import asyncio
import re
from collections.abc import Callable, Mapping

from core import config as configuration
from core.clock import ManualClock
from core.messages import Candidate, Example, Group, Outcome, PolicyRef, Prompt, Sampling, Scored, Verdict
from core.protocols import History, Method, Tuned
from methods import recipes
from methods.data.prompts import as_prompt
from methods.explore import explore
from methods.scripted_policy import ScriptedPolicy

Say = Callable[[Prompt, int], str]


def built(name: str, *more: str) -> Method:
    overrides = (f"method.recipe={name}", *recipes.card(name).overrides, *more)
    return recipes.build(configuration.load(None, overrides).method)


def shown(prompt: Prompt, label: str = "Answer") -> str:
    """The text that a judge prompt shows under a label."""
    return prompt.messages[0].content.partition(f"{label}:\n")[2].partition("\n\n")[0]


class Texts(ScriptedPolicy):
    """Samples these texts, in this order."""

    def __init__(self, texts: tuple[str, ...], judge: Say, words: Mapping[str, float] | None = None) -> None:
        super().__init__(judge=judge)
        self.texts, self.words, self.asked = texts, words or {}, 0

    async def generate(self, prompt: Prompt, sampling: Sampling, ref: PolicyRef | None = None) -> list[Candidate]:
        candidates = await super().generate(prompt, sampling, ref)
        if sampling.purpose == "judge":
            return candidates
        rendered = [await self.render(prompt, text) for text in self.texts[: sampling.n]]
        ids = [{"id": each.id} for each in candidates]
        return [made.model_copy(update=name) for made, name in zip(rendered, ids, strict=False)]

    async def logprobs(self, prompt: Prompt, text: str, ref: PolicyRef | None = None) -> list[float]:
        """`words`: an answer -> how much likelier (nats) the first word is than the second."""
        self.asked += 1
        return [self.words[shown(prompt)] if text in ("Yes", "Correct") else 0.0, -5.0]


def explored(method: Method, policy: ScriptedPolicy, prompt: str = "Why?", tuned: Tuned | None = None) -> Outcome:
    history = History(tuned={**method.tuned, **(tuned or {})})
    work = explore(method, as_prompt(prompt), policy, lease_id="l", place=0, clock=ManualClock(1.0), history=history)
    outcome = asyncio.run(work)
    assert outcome.failure is None, outcome.failure
    return outcome


def learned(outcome: Outcome) -> list[tuple[str, ...]]:
    """The texts of each example's rows."""
    return [rows(example, outcome) for example in outcome.examples]


def rows(example: Example, outcome: Outcome) -> tuple[str, ...]:
    group = next(one.group for one in outcome.scored if one.group.id == example.group_id)
    texts = {c.context_ids + c.completion_ids: c.text for c in group.candidates}
    return tuple(texts[row.token_ids] for row in example.rows)


def scored(policy: ScriptedPolicy, texts: tuple[str, ...], scores: tuple[float, ...], name: str = "g") -> Scored:
    """A group with these scores; a text that ends with `?` has no answer."""
    prompt = as_prompt("Why?")
    made = [asyncio.run(policy.render(prompt, text)) for text in texts]
    group = Group(id=name, prompt=prompt, candidates=tuple(made))
    answers = tuple(None if text.endswith("?") else text for text in texts)
    return Scored(group=group, verdict=Verdict(scores=scores, answers=answers, winner=None, share=0, margin=0))


def number_in(text: str) -> int:
    found = re.findall(r"\d+", text)
    return int(found[-1])
