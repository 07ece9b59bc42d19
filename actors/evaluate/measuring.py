"""What the greedy texts of a version on the report's questions tell: accuracy, and how alike answers and texts are."""

from collections.abc import Sequence

from core.answers import extractor
from core.config import AnswerConfig
from core.messages import Candidate
from core.messages.versions import Question
from core.store.facts import Measured
from methods.flexible import flexible
from methods.monitors import answer_entropy, distinct_n
from training.gate.statistics import accuracy
from training.gate.weighing import answered


def measured(
    version: int, questions: Sequence[Question], said: Sequence[Candidate | None], config: AnswerConfig
) -> Measured:
    """`said`: one greedy answer a question, in the same order; None for a question that could not be asked."""
    extract = extractor(config)
    answers = [answered(question, candidate, extract) for question, candidate in zip(questions, said, strict=True)]
    rate, low, high = accuracy([answer.hit for answer in answers])
    texts = [candidate.text if candidate else "" for candidate in said]
    read = flexible(config, {question.answer for question in questions})
    right = [read(text) == question.answer for text, question in zip(texts, questions, strict=True)] if read else None
    return Measured(
        version=version,
        accuracy=rate,
        low=low,
        high=high,
        n=len(answers),
        hits="".join("1" if answer.hit else "0" for answer in answers),
        flexible_ratio=None if right is None else sum(right) / max(1, len(right)),
        entropy_nats=answer_entropy(answer.value for answer in answers),
        distinct_2_ratio=distinct_n(texts, 2),
    )
