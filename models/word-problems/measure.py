"""What a model scores: greedy, majority of many, and one sample; the only place that compares with the true answers."""

from collections import Counter
from collections.abc import Sequence

import torch
from llama import Llama, sample
from task import Problem, extract_answer
from train import encode_prompt

Ballot = list[int | None]


def ballots(
    model: Llama,
    vocab: dict[str, int],
    questions: Sequence[str],
    samples: int,
    temperature: float,
    seed: int,
    max_new_tokens: int = 110,
) -> list[Ballot]:
    """The answers of `samples` completions to each question; None where a completion gave none."""
    words = {index: token for token, index in vocab.items()}
    drawn = sample(
        model,
        [encode_prompt(vocab, question) for question in questions],
        samples,
        temperature,
        torch.Generator().manual_seed(seed),
        max_new_tokens,
    )
    return [
        [None if ids is None else extract_answer("".join(words[index] for index in ids)) for ids in completions]
        for completions in drawn.completions
    ]


def majority(ballot: Ballot) -> tuple[int | None, float]:
    """The most common answer, the earliest of equals, and its share of all samples."""
    counted = Counter(answer for answer in ballot if answer is not None)
    if not counted:
        return None, 0.0
    answer, votes = counted.most_common(1)[0]
    return answer, votes / len(ballot)


def greedy_accuracy(model: Llama, vocab: dict[str, int], problems: Sequence[Problem]) -> dict[int, float]:
    """Exact match by number of operations, and over all of them under 0."""
    drawn = ballots(model, vocab, [problem.question for problem in problems], 1, 0.0, 0)
    return _by_operations(
        problems, [float(ballot[0] == problem.answer) for ballot, problem in zip(drawn, problems, strict=True)]
    )


def majority_accuracy(
    model: Llama, vocab: dict[str, int], problems: Sequence[Problem], samples: int, temperature: float, seed: int
) -> dict[int, float]:
    drawn = ballots(model, vocab, [problem.question for problem in problems], samples, temperature, seed)
    right = [float(majority(ballot)[0] == problem.answer) for ballot, problem in zip(drawn, problems, strict=True)]
    return _by_operations(problems, right)


def single_sample_accuracy(
    model: Llama, vocab: dict[str, int], problems: Sequence[Problem], samples: int, seed: int
) -> dict[int, float]:
    """pass@1 at temperature 1, averaged over `samples` draws of each question."""
    drawn = ballots(model, vocab, [problem.question for problem in problems], samples, 1.0, seed)
    right = [ballot.count(problem.answer) / samples for ballot, problem in zip(drawn, problems, strict=True)]
    return _by_operations(problems, right)


def _by_operations(problems: Sequence[Problem], right: Sequence[float]) -> dict[int, float]:
    scores = {0: sum(right) / len(right)}
    for operations in sorted({problem.operations for problem in problems}):
        chosen = [score for score, problem in zip(right, problems, strict=True) if problem.operations == operations]
        scores[operations] = sum(chosen) / len(chosen)
    return {key: round(score, 4) for key, score in scores.items()}
