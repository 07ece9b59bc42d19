"""What the greedy texts of a version on the report's questions tell: accuracy, and how alike answers and texts are."""

from collections.abc import Sequence

from core.answers import extractor, same
from core.config import AnswerConfig
from core.messages import Candidate
from core.messages.versions import Question
from core.store.facts import Measured
from methods.flexible import flexible
from methods.monitors import answer_entropy, distinct_n, gv_gap
from methods.scorers.majority import answer_of
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


def sampled(
    questions: Sequence[Question], samples: Sequence[Sequence[Candidate]], config: AnswerConfig
) -> dict[str, float]:
    """What samples of these questions tell: the fields of `Measured` from `sampled_ratio` on. A question that could not
    be asked has no samples and is left out. Empty without samples.

    The verifier is the vote: it keeps the samples that have the most common answer of theirs."""
    extract = extractor(config)
    utilities: list[list[float]] = []
    shares: list[list[float]] = []
    for question, drawn in zip(questions, samples, strict=True):
        answers = [answer_of(candidate, extract) for candidate in drawn]
        utilities.append([float(same(answer, question.answer)) for answer in answers])
        shares.append([0.0 if answer is None else answers.count(answer) / len(answers) for answer in answers])
    kept = [(rights, row) for rights, row in zip(utilities, shares, strict=True) if rights]
    gap = gv_gap([rights for rights, _ in kept], [row for _, row in kept], [max(row) for _, row in kept])
    if gap is None:
        return {}
    rights = [right for row, _ in kept for right in row]
    return {
        "sampled_ratio": sum(rights) / len(rights),
        "pass_n_ratio": sum(any(row) for row, _ in kept) / len(kept),
        "gap": gap.absolute,
        "gap_low": gap.interval.low,
        "gap_high": gap.interval.high,
    }
