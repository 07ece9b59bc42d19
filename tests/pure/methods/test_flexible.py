"""The answer that a text names last, in whatever form."""

import pytest

from core.config import AnswerConfig, ChoiceAnswer, MathAnswer, NumberAnswer, PatternAnswer, TextAnswer
from methods.flexible import flexible

SAID = PatternAnswer(pattern="answer: (.+)")


@pytest.mark.parametrize(
    ("config", "expected", "text", "read"),
    [
        (NumberAnswer(), ["7"], "3 plus 4 is 7, I th", "7"),
        (NumberAnswer(), ["7"], "seven", None),
        (ChoiceAnswer(choices="ABCD"), ["B"], "A or C? It is B, not D. So B!", "B"),
        (ChoiceAnswer(choices="ABCD"), ["B"], "BAD CAB", None),
        (SAID, ["21", "7"], "It is 1,200 apples", "1200"),
        (SAID, ["a fruit", "fruit", "animal"], "An Animal? No: a **fruit**.", "a fruit"),
        (SAID, ["fruit", "animal"], "fruits", None),
        (TextAnswer(), ["yes", "no"], "Well, no ... Yes.", "yes"),
        (SAID, [], "anything", None),
    ],
)
def test_the_last_answer_counts_whatever_stands_around_it(
    config: AnswerConfig, expected: list[str], text: str, read: str | None
) -> None:
    found = flexible(config, expected)
    assert found is not None and found(text) == read


def test_formulas_have_no_other_form() -> None:
    assert flexible(MathAnswer(), ["$x$"]) is None
