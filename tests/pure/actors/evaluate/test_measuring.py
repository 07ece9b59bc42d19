"""What a version's greedy texts tell, by hand."""

import math

import pytest

from actors.evaluate.measuring import measured
from core.config import MathAnswer, PatternAnswer
from core.messages import BASE, Candidate, ChatMessage, Finish, Prompt
from core.messages.versions import Question


def said(text: str, finish: Finish = "stop") -> Candidate:
    return Candidate(
        id="c", start=BASE, end=BASE, context_ids=b"", completion_ids=b"", text=text, finish=finish, render_id="r"
    )


def questions(*answers: str) -> list[Question]:
    asked = [Prompt(id=f"q{n}", messages=(ChatMessage(role="user", content=f"{n}?"),)) for n in range(len(answers))]
    return [Question(prompt, answer) for prompt, answer in zip(asked, answers, strict=True)]


def test_a_right_answer_in_another_format_or_cut_off_is_a_miss_that_only_the_flexible_match_counts() -> None:
    """One of five is as asked; a second has another form, a third is cut off, one is wrong, one could not be asked.
    Read answers: 7, 9 (cut off: none). Pairs of words: 2 + 1 + 3 + 2, of which `answer: 9` and `answer: 7` differ."""
    texts = [said("answer: 7"), said("it's 8"), said("answer: 7 or", "length"), said("answer: 9"), None]
    found = measured(3, questions("7", "8", "7", "7", "7"), texts, PatternAnswer(pattern="answer: ([0-9]+)"))
    assert (found.version, found.n, found.hits, found.accuracy) == (3, 5, "10000", 0.2)
    assert found.flexible_ratio == 0.6
    assert found.entropy_nats == pytest.approx(math.log(2))
    assert found.distinct_2_ratio == pytest.approx(4 / 5)


def test_what_is_not_defined_for_a_kind_of_answer_is_none() -> None:
    found = measured(1, questions("$x$"), [None], MathAnswer())
    assert (found.flexible_ratio, found.entropy_nats, found.distinct_2_ratio, found.accuracy) == (None, None, None, 0)
