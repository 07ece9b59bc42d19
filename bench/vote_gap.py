"""On which tasks is the majority of a model's samples better than its one answer, so that votes can teach it?

Asks the test questions of each family once greedily and `--samples` times at `--temperature`, with the model in this
process. `greedy`, `sample` and `majority` are shares of right answers: of the greedy answer, of one sample (mean), and
of the answer that most samples give. `format`: share of the samples whose answer can be read. `kept`: share of the
questions on which at least half of the samples agree; `precision`: share of those whose majority is right. Only they
become examples. A family is `kind:task:shots[:option=value...]`.
"""

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from actors.cli.model_command import prepared
from actors.cli.offline import offline_policy
from core.answers import extractor
from core.config import Config, load
from core.messages import BASE, Candidate, Sampling
from core.messages.versions import Question
from core.protocols import Extract, Policy
from methods.data import prompts

KEPT_SHARE = 0.5
AT_ONCE = 8
"""Questions asked at once."""
SIZE = 600
"""Questions of a generated task; a fifth of them are test questions."""
FAMILIES = (
    "words:kinds:4",
    "words:opposites:4",
    "reasoning-gym:chain_sum:2:max_terms=3:max_digits=2",
    "words:past:4",
    "words:capitals:4",
    "words:continents:4",
    "reasoning-gym:letter_counting:2:max_words=8",
    "words:comparatives:4",
    "reasoning-gym:spell_backward:2:max_word_len=5",
    "words:plurals:4",
    "words:kinds:0",
    "reasoning-gym:basic_arithmetic:2:max_terms=3:max_digits=2",
    "reasoning-gym:number_sorting:1:max_numbers=5:max_decimals=0",
    "words:cities:4",
    "reasoning-gym:gsm_symbolic:2",
    "reasoning-gym:gcd:2",
    "words:opposites:0",
    "words:capitals:0",
)
SETTINGS = ("model.engine_dtype=float32", "serve.engine.max_seqs=72", "serve.engine.max_tokens=1024")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), metavar="KIND:TASK:SHOTS")
    parser.add_argument("--questions", type=int, default=60)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--temperature", type=float, default=0.7)


def run(options: argparse.Namespace) -> dict[str, Any]:
    if options.quick:
        options.families, options.questions = ["words:kinds:4"], 16
    configs = {family: prepared(load(None, settings(family, options.model))) for family in options.families}
    return {"families": asyncio.run(measured(configs, options))}


def settings(family: str, model: str) -> list[str]:
    kind, task, shots, *more = family.split(":")
    named = [f"prompts.kind={kind}", f"prompts.task={task}", f"prompts.shots={shots}", f"model.path={model}"]
    size = [f"prompts.size={SIZE}"] if kind == "reasoning-gym" else []
    return [*SETTINGS, *named, *size, *(f"prompts.options.{option}" for option in more)]


async def measured(configs: dict[str, Config], options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    async with offline_policy(next(iter(configs.values()))) as (_, policy):
        for family, config in configs.items():
            before = cpu_s()
            asked = await ask_all(policy, config, options)
            rows[family] = {**summary(asked, options.samples), "cpu_s": round(cpu_s() - before)}
            print(f"{time.strftime('%H:%M:%S')} {family} {json.dumps(rows[family])}", file=sys.stderr, flush=True)
    return rows


@dataclass(frozen=True)
class Asked:
    right: str
    greedy: str | None
    samples: tuple[str | None, ...]
    tokens: int
    """Of all samples together."""


async def ask_all(policy: Policy, config: Config, options: argparse.Namespace) -> list[Asked]:
    extract = extractor(config.method.answer)
    questions = prompts.questions(config.report.questions or "", extract=extract)[: options.questions]
    free = asyncio.Semaphore(AT_ONCE)
    most = config.method.sampler.max_tokens

    async def ask(question: Question) -> Asked:
        prompt = question.prompt
        async with free:
            one = Sampling(n=1, temperature=0.0, max_tokens=most)
            drawn = Sampling(n=options.samples, temperature=options.temperature, max_tokens=most)
            (greedy,) = await policy.generate(prompt, one, BASE)  # first and alone: the samples then find its prefix
            samples = await policy.generate(prompt, drawn, BASE)
        tokens = sum(len(sample.completion_ids) // 4 for sample in samples)
        return Asked(question.answer, read(greedy, extract), tuple(read(each, extract) for each in samples), tokens)

    first = await ask(questions[0])  # the others then find the examples in the cache
    return [first, *await asyncio.gather(*map(ask, questions[1:]))]


def read(candidate: Candidate, extract: Extract) -> str | None:
    """The answer; None for a text without one, or one that was cut off."""
    return extract(candidate.text) if candidate.finish == "stop" else None


def summary(asked: Sequence[Asked], samples: int) -> dict[str, Any]:
    majorities = [majority(each) for each in asked]
    kept = [(each, winner) for each, (winner, share) in zip(asked, majorities, strict=True) if share >= KEPT_SHARE]
    drawn = samples * len(asked)
    return {
        "questions": len(asked),
        "greedy": mean(each.greedy == each.right for each in asked),
        "sample": mean(answer == each.right for each in asked for answer in each.samples),
        "majority": mean(winner == each.right for each, (winner, _) in zip(asked, majorities, strict=True)),
        "format": mean(answer is not None for each in asked for answer in each.samples),
        "kept": round(len(kept) / len(asked), 3),
        "precision": mean(winner == each.right for each, winner in kept),
        "tokens": round(sum(each.tokens for each in asked) / drawn, 1),
    }


def majority(asked: Asked) -> tuple[str | None, float]:
    """The answer that most samples give, the earliest of equals, and its share of all samples; None if none has one."""
    votes = Counter(answer for answer in asked.samples if answer is not None)
    if not votes:
        return None, 0.0
    ((winner, count),) = votes.most_common(1)
    return winner, count / len(asked.samples)


def mean(hits: Any) -> float | None:
    """None for nothing at all."""
    found = [float(hit) for hit in hits]
    return round(sum(found) / len(found), 3) if found else None


def cpu_s() -> float:
    """CPU-seconds of this process and its children so far."""
    me = psutil.Process()
    times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
    return sum(each.user + each.system for each in times)
