"""Weighs a candidate: asks it and the champion the same questions, greedily, until the gate decides. No torch."""

import asyncio
import math
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from core.errors import PromptError
from core.messages import Decision, Evidence, PolicyRef, Prompt, Sampling
from core.protocols import Extract, Policy
from training.gate import Gate

Z95 = 1.959964
Z95_ONE_SIDED = 1.644854

Hits = MutableMapping[tuple[PolicyRef, str], bool]
"""Greedy outcomes already known, by version and prompt id: a version's answer to a question never changes."""


@dataclass(frozen=True)
class Question:
    """A prompt with the answer that counts as a hit: a key, or an anchor (the base's frozen majority answer)."""

    prompt: Prompt
    answer: str


async def greedy_hits(
    policy: Policy,
    questions: Sequence[Question],
    ref: PolicyRef,
    extract: Extract,
    max_tokens: int,
    purpose: Literal["gate", "report"] = "gate",
    concurrency: int = 64,
) -> list[bool]:
    """Whether that version's greedy answer to each question is the expected one; an answer cut off or without an
    extractable value is a miss. Raises whatever the policy raises, after cancelling the rest: there is no partial
    result."""
    sampling = Sampling(n=1, temperature=0.0, max_tokens=max_tokens, purpose=purpose)
    seats = asyncio.Semaphore(concurrency)

    async def ask(question: Question) -> bool:
        async with seats:
            try:
                (candidate,) = await policy.generate(question.prompt, sampling, ref)
            except PromptError:  # too long for the engine: nobody answers it
                return False
        return candidate.finish == "stop" and extract(candidate.text) == question.answer

    tasks = [asyncio.ensure_future(ask(question)) for question in questions]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass
class Weighing:
    """One candidate against the champion, on probes in a random order, gate.config.batch at a time.

    `rng` must be new for each candidate and known to nobody who trains. `cache` saves the champion's answers, which
    every later candidate is compared with. Probe ids must be unique."""

    policy: Policy
    gate: Gate
    probes: Sequence[Question]
    rng: Random
    candidate: PolicyRef
    champion: PolicyRef
    extract: Extract
    max_tokens: int
    certified: bool
    cache: Hits = field(default_factory=dict[tuple[PolicyRef, str], bool])
    evidence: Evidence = field(init=False)
    _order: list[Question] = field(init=False)

    def __post_init__(self) -> None:
        self._order = list(self.probes)
        self.rng.shuffle(self._order)
        del self._order[self.gate.config.max_probes :]
        self.evidence = Evidence(
            candidate=self.candidate,
            champion=self.champion,
            candidate_hits=(),
            champion_hits=(),
            certified=self.certified,
        )

    async def verdict(self) -> Decision:
        """Asks until the gate decides or the probes are used up. Raises: VersionError for another champion."""
        while True:
            decision = self.gate.decide(self.evidence, exhausted=not self._left)
            if decision is not None:
                return decision
            await self._ask()

    async def crown(self) -> bool:
        """After a promotion without a new champion: asks on until the promoted version has shown that it is better,
        or nothing speaks for it any more."""
        while True:
            crowned = self.gate.crown(self.evidence)
            if crowned is not None or not self._left:
                return bool(crowned)
            await self._ask()

    @property
    def _left(self) -> int:
        return len(self._order) - len(self.evidence.candidate_hits)

    async def _ask(self) -> None:
        """The next batch, of both at once. Batches grow with what was asked: a long weighing needs fewer looks."""
        asked = len(self.evidence.candidate_hits)
        batch = self._order[asked : asked + max(self.gate.config.batch, asked // 2)]
        both = (self.candidate, self.champion)
        await asyncio.gather(
            *(_learn(self.policy, batch, ref, self.extract, self.max_tokens, self.cache) for ref in both)
        )
        self.evidence = self.evidence.model_copy(
            update={
                "candidate_hits": self.evidence.candidate_hits + _known(self.cache, self.candidate, batch),
                "champion_hits": self.evidence.champion_hits + _known(self.cache, self.champion, batch),
            }
        )


async def _learn(
    policy: Policy, batch: Sequence[Question], ref: PolicyRef, extract: Extract, max_tokens: int, cache: Hits
) -> None:
    unknown = [question for question in batch if (ref, question.prompt.id) not in cache]
    hits = await greedy_hits(policy, unknown, ref, extract, max_tokens)
    cache.update({(ref, question.prompt.id): hit for question, hit in zip(unknown, hits, strict=True)})


def _known(cache: Mapping[tuple[PolicyRef, str], bool], ref: PolicyRef, batch: Sequence[Question]) -> tuple[bool, ...]:
    return tuple(cache[ref, question.prompt.id] for question in batch)


def accuracy(hits: Sequence[bool]) -> tuple[float, float, float]:
    """Rate with its 95% interval (low, high). Source: Wilson 1927. Without outcomes: (0, 0, 1)."""
    n = len(hits)
    if n == 0:
        return 0.0, 0.0, 1.0
    rate = sum(hits) / n
    centre = (rate + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(rate * (1 - rate) / n + Z95**2 / (4 * n * n))
    return rate, max(0.0, centre - half), min(1.0, centre + half)


def paired_difference(a: Sequence[bool], b: Sequence[bool]) -> tuple[float, float]:
    """Mean of a less b on the same questions, and its one-sided 95% lower bound (normal; for 30 questions or more).

    Pairing counts: questions on which both agree add nothing to the variance. Raises: ValueError when unpaired."""
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} outcomes are no pairs; ask both the same questions")
    n = len(a)
    if n < 2:
        return (float(a[0]) - float(b[0]) if n else 0.0), -1.0
    d = [int(x) - int(y) for x, y in zip(a, b, strict=True)]
    mean = sum(d) / n
    variance = sum((x - mean) ** 2 for x in d) / (n - 1)
    return mean, max(-1.0, mean - Z95_ONE_SIDED * math.sqrt(variance / n))
