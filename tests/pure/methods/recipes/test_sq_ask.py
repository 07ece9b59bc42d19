"""sq_ask: questions are learned beside answers."""

import asyncio
import math
from collections import Counter

import pytest
import torch

from core.codec import unpack_ids
from core.messages import Example, Prompt
from core.protocols import Votes
from methods.explore import NO_HISTORY, settle
from methods.scripted_policy import ScriptedPolicy
from tests.pure.methods.recipes.people import PROMPT, built, group, learned
from tests.pure.training.tabular import sums
from training.objectives.sft import sft

TEXTS = ("2+3=5. The answer is 5.", "The answer is 5.", "The answer is 6.")
QUESTION = PROMPT.messages[-1].content
LEARNED = QUESTION[1:]
"""Nothing predicts the first token of all."""


def examples(name: str, *options: str, prompt: Prompt = PROMPT) -> list[Example]:
    work = settle(built(name, *options), [group(*TEXTS, prompt=prompt)], Votes(), NO_HISTORY, ScriptedPolicy())
    return list(asyncio.run(work).examples)


def test_the_question_of_a_kept_prompt_is_one_example_with_the_weight_of_the_ratio() -> None:
    *answers, question = examples("sq_ask")
    assert [(learned(e.rows[0]), e.weight) for e in answers] == [(TEXTS[0], 1.0), (TEXTS[1], 1.0)]
    assert (learned(question.rows[0]), question.weight) == (LEARNED, 0.3)
    assert unpack_ids(question.rows[0].token_ids) == list(QUESTION.encode()), "the context alone, all of it learned"
    assert len({e.id for e in (*answers, question)}) == 3
    assert question.policy.version == 3


def test_a_ratio_of_0_is_lmsi() -> None:
    fields = {"id", "method"}
    mine, theirs = examples("sq_ask", "method.options.ratio=0"), examples("lmsi")
    assert [e.model_dump(exclude=fields) for e in mine] == [e.model_dump(exclude=fields) for e in theirs]
    assert mine and [e.rows for e in examples("sq_ask")[:-1]] == [e.rows for e in theirs]


@pytest.mark.parametrize("origin", ["live", "asked", "generated"])
def test_what_people_asked_is_only_learned_if_that_is_turned_on(origin: str) -> None:
    prompt = PROMPT.model_copy(update={"origin": origin})
    assert [learned(e.rows[0]) for e in examples("sq_ask", prompt=prompt)] == [*TEXTS[:2]]
    live = examples("sq_ask", "method.options.live=true", prompt=prompt)
    assert learned(live[-1].rows[0]) == LEARNED


def test_a_dropped_prompt_teaches_no_question() -> None:
    assert not examples("sq_ask", "method.options.min_share=0.9")


def test_the_null_control_keeps_the_tokens_of_a_question_and_not_their_order() -> None:
    (*_, honest), (*answers, null) = examples("sq_ask"), examples("sq_ask", "method.options.shuffled=true")
    (first, second) = (unpack_ids(e.rows[0].token_ids) for e in (honest, null))
    assert Counter(first) == Counter(second) and first != second
    assert [e.rows for e in answers] == [e.rows for e in examples("sq_ask")[:-1]]


def test_its_loss_worked_by_hand() -> None:
    question, answer = [-1.0, -2.0, -0.5], [-0.2, -0.4]

    def mean(weights: list[float]) -> float:
        tokens = sums([[lp] for lp in question + answer], [[0.0]] * 5)
        tokens.weight_N = torch.tensor(weights, dtype=torch.float64)
        return sft(tokens, built("sq_ask").objective).item() / math.fsum(weights)  # type: ignore[arg-type]

    assert mean([0, 0, 0, 1, 1]) == pytest.approx(0.3)
    assert mean([1] * 5) == pytest.approx(0.82)
    assert mean([0.3, 0.3, 0.3, 1, 1]) == pytest.approx((0.3 * 3.5 + 0.6) / 2.9)
