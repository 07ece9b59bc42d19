"""Make the embedded model and everything that ships with it from nothing:

    python models/word-problems/make.py --seed 0 [--out DIR] [--quick]

    tokenizer -> base model -> numbers on test -> anchors -> pool, test -> manifest

The output folder then holds `model/` (transformers and vLLM load it), `pool.parquet` (prompts only), `anchors.parquet`
(dev questions with the base's own majority answers; no true answer is read for them), `test.parquet` (the only file
with true answers) and `manifest.json`. Everything is drawn from the seed. Files are written aside and renamed, so a
reader never sees half of one; the model comes first and the manifest last, and a digest ties the anchors to the model.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import measure
import pyarrow as pa
import pyarrow.parquet as pq
import task
import tokenizer
import torch
from llama import Llama, export, largest_difference
from task import OPERATIONS, Problem, bucket_of, draw_problem, draw_split
from train import STAGES, Corpus, Stage, encode_example, pretrain
from transformers import PreTrainedTokenizerFast

VOCABULARY_PROBLEMS = 30_000
USER_SAMPLES = 6


@dataclass(frozen=True)
class Sizes:
    stages: tuple[Stage, ...]
    pool: int
    test_each: int
    """Test questions for each number of operations."""
    audited_each: int
    """Of those, how many are also answered by many samples (majority, one sample)."""
    dev: int


FULL = Sizes(stages=STAGES, pool=20_000, test_each=400, audited_each=100, dev=4_500)
QUICK = Sizes(
    stages=tuple(replace(stage, tokens=stage.tokens // 20) for stage in STAGES),
    pool=600,
    test_each=20,
    audited_each=5,
    dev=60,
)


@dataclass(frozen=True)
class AnchorRule:
    samples: int = 32
    temperature: float = 0.7
    max_new_tokens: int = 110
    least_share: float = 0.3


@dataclass(frozen=True)
class Anchor:
    prompt: str
    answer: int
    share: float


class Clock:
    """CPU seconds of each stage, printed as they end."""

    def __init__(self) -> None:
        self.cpu_s: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.process_time()
        yield
        self.cpu_s[name] = round(time.process_time() - started, 1)
        print(f"[{name}] {self.cpu_s[name]} CPU seconds", flush=True)


# ---------------------------------------------------------------- tokenizer and questions


def make_tokenizer() -> tuple[PreTrainedTokenizerFast, dict[str, int]]:
    """The same for every seed: the words of the templates do not depend on it."""
    rng = random.Random("vocabulary")
    problems = (draw_problem(rng, OPERATIONS[index % len(OPERATIONS)]) for index in range(VOCABULARY_PROBLEMS))
    texts = (text for problem in problems for text in (problem.question, *problem.solutions))
    vocab = tokenizer.vocabulary(texts, task.PEOPLE)
    return tokenizer.build(vocab), vocab


def distinct_problems(split: str, each: Sequence[int], seed: int) -> list[Problem]:
    """`each[i]` distinct problems of `OPERATIONS[i]`, in shuffled order."""
    found: dict[str, Problem] = {}
    for operations, count in zip(OPERATIONS, each, strict=True):
        stream = draw_split(random.Random(f"{split} {seed} {operations}"), split, (operations,))
        wanted = len(found) + count
        while len(found) < wanted:
            problem = next(stream)
            found.setdefault(problem.question, problem)
    problems = list(found.values())
    random.Random(f"{split} {seed} order").shuffle(problems)
    return problems


def spread(count: int) -> list[int]:
    """`count` divided over the numbers of operations as evenly as it goes."""
    return [count // len(OPERATIONS) + (index < count % len(OPERATIONS)) for index in range(len(OPERATIONS))]


def assert_disjoint(texts: dict[str, set[str]]) -> None:
    """Each split holds only its own buckets, and no text is in two."""
    for split, questions in texts.items():
        strays = [question for question in questions if bucket_of(question) not in task.SPLITS[split]]
        assert not strays, f"{len(strays)} questions of {split} lie in buckets of another split, e.g. {strays[0]!r}"
    for (split, questions), (other, others) in combinations(texts.items(), 2):
        shared = questions & others
        assert not shared, f"{split} and {other} share {len(shared)} questions"


# ---------------------------------------------------------------- anchors


def make_anchors(
    model: Llama, vocab: dict[str, int], questions: Sequence[str], rule: AnchorRule, seed: int
) -> list[Anchor]:
    """Questions with the base's majority answer where enough samples agree. It is handed no true answer."""
    drawn = measure.ballots(model, vocab, questions, rule.samples, rule.temperature, seed, rule.max_new_tokens)
    anchors = []
    for question, ballot in zip(questions, drawn, strict=True):
        answer, share = measure.majority(ballot)
        if answer is not None and share >= rule.least_share:
            anchors.append(Anchor(question, answer, share))
    return anchors


def audit(anchors: Sequence[Anchor], problems: Sequence[Problem]) -> float:
    """How many anchors are right; for the report alone, nothing is filtered by it."""
    truth = {problem.question: problem.answer for problem in problems}
    return round(sum(truth[anchor.prompt] == anchor.answer for anchor in anchors) / max(1, len(anchors)), 4)


# ---------------------------------------------------------------- files


def write_aside(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a path beside `path`, then put it in place at once."""
    aside = path.with_name(f".{path.name}.new")
    write(aside)
    os.replace(aside, path)


def write_parquet(path: Path, columns: dict[str, list[Any]], facts: dict[str, str] | None = None) -> None:
    table = pa.table(columns).replace_schema_metadata(facts or {})
    write_aside(path, lambda aside: pq.write_table(table, aside, compression="zstd", compression_level=9))


def write_model(folder: Path, model: Llama, fast: PreTrainedTokenizerFast, vocab: dict[str, int]) -> str:
    """Export beside `folder`, check against this network, move the files in place; return the weights' digest."""
    aside = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(aside, ignore_errors=True)
    twin = export(model, aside)
    tokenizer.save(fast, aside)
    problem = draw_problem(random.Random(3), 4)
    ids = encode_example(vocab, problem.question, problem.solutions[0]).ids
    assert fast(f"{problem.question}\n{problem.solutions[0]}")["input_ids"] == ids[:-1]
    assert (difference := largest_difference(model, twin, ids)) < 1e-4, f"transformers differs by {difference}"
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(aside.iterdir()):
        file.chmod(0o644)  # safetensors writes for the owner alone
        os.replace(file, folder / file.name)
    aside.rmdir()
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def write_questions(out: Path, pool: list[str], test: list[Problem]) -> None:
    write_parquet(out / "pool.parquet", {"prompt": pool})
    write_parquet(
        out / "test.parquet",
        {
            "prompt": [problem.question for problem in test],
            "answer": [str(problem.answer) for problem in test],
            "operations": [problem.operations for problem in test],
        },
    )


def write_anchors(out: Path, anchors: list[Anchor], rule: AnchorRule, digest: str) -> None:
    columns = {
        "prompt": [anchor.prompt for anchor in anchors],
        "answer": [str(anchor.answer) for anchor in anchors],
        "share": [anchor.share for anchor in anchors],
    }
    write_parquet(out / "anchors.parquet", columns, {"model_sha256": digest, "rule": json.dumps(asdict(rule))})


def measured(model: Llama, vocab: dict[str, int], test: list[Problem], audited_each: int, seed: int) -> dict[str, Any]:
    """Scores on the test split, by number of operations; key 0 is all of them."""
    audited = [
        problem
        for operations in OPERATIONS
        for problem in [problem for problem in test if problem.operations == operations][:audited_each]
    ]
    return {
        "greedy": measure.greedy_accuracy(model, vocab, test),
        "greedy_questions": len(test),
        "majority_of_32": measure.majority_accuracy(model, vocab, audited, 32, 0.7, seed),
        "pass_at_1_temperature_1": measure.single_sample_accuracy(model, vocab, audited, 16, seed),
        "sampled_questions": len(audited),
    }


# ---------------------------------------------------------------- all of it


def make(seed: int, out: Path, sizes: Sizes) -> dict[str, Any]:
    clock, rule = Clock(), AnchorRule()
    out.mkdir(parents=True, exist_ok=True)
    with clock.stage("tokenizer"):
        fast, vocab = make_tokenizer()
    with clock.stage("questions"):
        test = distinct_problems("test", [sizes.test_each] * len(OPERATIONS), seed)
        dev = distinct_problems("dev", spread(sizes.dev), seed)
        pool = [problem.question for problem in distinct_problems("pool", spread(sizes.pool), seed)]
    with clock.stage("base"):
        corpus = Corpus(vocab, seed)
        model = pretrain(corpus, seed, sizes.stages, lambda line: print(line, flush=True))
    digest = write_model(out / "model", model, fast, vocab)
    assert_disjoint(
        {
            "base": corpus.questions,
            "pool": set(pool),
            "dev": {problem.question for problem in dev},
            "test": {problem.question for problem in test},
        }
    )
    with clock.stage("anchors"):
        anchors = make_anchors(model, vocab, [problem.question for problem in dev], rule, seed)
    with clock.stage("numbers"):
        numbers = measured(model, vocab, test, sizes.audited_each, seed)
    write_questions(out, pool, test)
    write_anchors(out, anchors, rule, digest)
    manifest = {
        "name": "word-problems",
        "seed": seed,
        "model_sha256": digest,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "split": {
            "hash": "sha1 of the UTF-8 question text, as an integer, modulo buckets",
            "buckets": task.BUCKETS,
            **task.SPLITS,
        },
        "stages": [asdict(stage) for stage in sizes.stages],
        "base_questions": len(corpus.questions),
        "pool": len(pool),
        "test": len(test),
        "anchors": {**asdict(rule), "asked": len(dev), "kept": len(anchors), "audited_precision": audit(anchors, dev)},
        "measured": numbers,
        "try": try_questions(seed, {problem.question for problem in test}),
        "cpu_s": clock.cpu_s,
    }
    write_aside(out / "manifest.json", lambda aside: aside.write_text(json.dumps(manifest, indent=2) + "\n"))
    return manifest


def try_questions(seed: int, taken: set[str]) -> list[str]:
    """One question of each length for a user to try: of the pool split, so that no measurement meets it."""
    questions = []
    for operations in OPERATIONS:
        stream = draw_split(random.Random(f"try {seed} {operations}"), "pool", (operations,))
        questions.append(next(problem.question for problem in stream if problem.question not in taken))
    return questions


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the embedded model, its data and its manifest.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument(
        "--quick", action="store_true", help="everything tiny: a check of the script, not a usable model"
    )
    parser.add_argument(
        "--dev", type=int, help="ask this many dev questions for anchors (4500; a tenth of the time at 450)"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sizes = QUICK if arguments.quick else FULL
    manifest = make(
        arguments.seed, arguments.out, sizes if arguments.dev is None else replace(sizes, dev=arguments.dev)
    )
    print(json.dumps({key: manifest[key] for key in ("model_sha256", "anchors", "measured", "cpu_s")}, indent=2))


if __name__ == "__main__":
    main()
