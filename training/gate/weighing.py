"""Weighs a candidate: asks it and the champion the same questions, greedily, until the gate decides. No torch."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from core.errors import PromptError
from core.messages import BASE, Decision, Evidence, PolicyRef, Sampling
from core.messages.versions import Question
from core.protocols import Extract, Policy
from training.gate.gate import Gate
from training.gate.guards import Answer, broken

BASE_PROBES = 256
"""The base answers so many probes of each weighing, for the guards; with a cache, each question once a run."""

Answers = MutableMapping[tuple[PolicyRef, str], Answer]
"""Greedy answers already known, by version and prompt id: a version's answer to a question never changes."""


async def greedy_answers(
    policy: Policy,
    questions: Sequence[Question],
    ref: PolicyRef,
    extract: Extract,
    max_tokens: int,
    purpose: Literal["gate", "report"] = "gate",
    concurrency: int = 64,
) -> list[Answer]:
    """That version's greedy answer to each question; one cut off or without an extractable value is a miss. Raises
    whatever the policy raises, after cancelling the rest: there is no partial result."""
    sampling = Sampling(n=1, temperature=0.0, max_tokens=max_tokens, purpose=purpose)
    seats = asyncio.Semaphore(concurrency)

    async def ask(question: Question) -> Answer:
        async with seats:
            try:
                (candidate,) = await policy.generate(question.prompt, sampling, ref)
            except PromptError:  # too long for the engine: nobody answers it
                return Answer(hit=False, value=None, tokens=0)
        value = extract(candidate.text) if candidate.finish == "stop" else None
        return Answer(hit=value == question.answer, value=value, tokens=len(candidate.completion_ids) // 4)

    tasks = [asyncio.ensure_future(ask(question)) for question in questions]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def greedy_hits(
    policy: Policy,
    questions: Sequence[Question],
    ref: PolicyRef,
    extract: Extract,
    max_tokens: int,
    purpose: Literal["gate", "report"] = "gate",
    concurrency: int = 64,
) -> list[bool]:
    """Whether each of `greedy_answers` is the expected one."""
    answers = await greedy_answers(policy, questions, ref, extract, max_tokens, purpose, concurrency)
    return [answer.hit for answer in answers]


@dataclass(frozen=True)
class WatchResult:
    """What became of a promoted version that was asked on."""

    result: Literal["crowned", "rollback", "nothing"]
    reason: str
    probes: int


@dataclass
class Weighing:
    """One candidate against the champion, on probes in a random order, gate.config.batch at a time; after a promotion
    the same order is asked on, as a watch.

    `rng` must be new for each candidate and known to nobody who trains. `cache` saves the champion's answers, which
    every later candidate is compared with, and the base's; after every batch `learned` hears whose have grown. Probe
    ids must be unique."""

    policy: Policy
    gate: Gate
    probes: Sequence[Question]
    rng: Random
    candidate: PolicyRef
    champion: PolicyRef
    extract: Extract
    max_tokens: int
    certified: bool
    cache: Answers = field(default_factory=dict[tuple[PolicyRef, str], Answer])
    learned: Callable[[Sequence[PolicyRef]], Awaitable[None]] | None = None
    base: PolicyRef = BASE
    evidence: Evidence = field(init=False)
    decision: Decision | None = field(init=False, default=None)
    _order: list[Question] = field(init=False)
    _answers: dict[PolicyRef, list[Answer]] = field(init=False)

    def __post_init__(self) -> None:
        self._order = list(self.probes)
        self.rng.shuffle(self._order)
        del self._order[self.gate.config.max_probes + self.gate.config.watch_probes :]
        self._answers = {ref: [] for ref in (self.candidate, self.champion, self.base)}
        self.evidence = Evidence(
            candidate=self.candidate,
            champion=self.champion,
            candidate_hits=(),
            champion_hits=(),
            certified=self.certified,
        )

    async def verdict(self) -> Decision:
        """Asks until the gate decides or the probes are used up. Raises: VersionError for another champion."""
        while self.decision is None:
            self.decision = self.gate.decide(self.evidence, exhausted=not self._left, broken=self.broken())
            if self.decision is None:
                await self._ask()
        return self.decision

    def take_up(self, decision: Decision) -> bool:
        """Watch on what was promoted before a restart; False when `cache` does not hold all that it was promoted by."""
        pairs = [all((ref, q.prompt.id) in self.cache for ref in (self.candidate, self.champion)) for q in self._order]
        known = self._order[: (*pairs, False).index(False)]
        guarding = all((self.base, question.prompt.id) in self.cache for question in known[:BASE_PROBES])
        if len(known) < decision.probes or not guarding:
            return False
        self.decision = decision
        self._take(known)
        return True

    def broken(self) -> str | None:
        """The guard that the candidate breaks, see training.gate.guards."""
        others = {str(self.champion): self._answers[self.champion]}
        if self.base != self.champion:
            others["the base"] = self._answers[self.base]
        expected = [question.answer for question in self._order[: self.asked]]
        return broken(self._answers[self.candidate], others, expected, self.gate.config.guards)

    async def crown(self) -> WatchResult | None:
        """After a promotion without a new champion: asks on until the promoted version has shown that it is better,
        or worse, or nothing speaks for its being better any more: None, and `watch` goes on."""
        while True:
            seen = self._seen()
            if seen is not None:
                return seen
            crowned = False if self._promotion.saturated else self.gate.crown(self.evidence)
            if crowned:
                return WatchResult("crowned", f"better than {self.champion}", self.asked)
            if crowned is False or not self._left:
                return None
            await self._ask()

    async def watch(self) -> WatchResult | None:
        """One more batch of a promoted version that did not become champion. None: ask again when there is time."""
        if self._left and self._fresh < self.gate.config.watch_probes:
            await self._ask(growing=False)
        seen = self._seen()
        if seen is None and (not self._left or self._fresh >= self.gate.config.watch_probes):
            return WatchResult("nothing", f"nothing against it on {self._fresh} probes asked since", self.asked)
        return seen

    @property
    def asked(self) -> int:
        return len(self.evidence.candidate_hits)

    @property
    def _promotion(self) -> Decision:
        assert self.decision is not None and self.decision.verdict == "promote", "only what was promoted is watched"
        return self.decision

    @property
    def _fresh(self) -> int:
        return self.asked - self._promotion.probes

    @property
    def _left(self) -> int:
        """Probes not asked yet; those beyond max_probes are the watch's."""
        limit = len(self._order) if self.decision is not None else self.gate.config.max_probes
        return min(limit, len(self._order)) - self.asked

    def _seen(self) -> WatchResult | None:
        promotion = self._promotion
        regret = self.gate.regret(self.evidence, promotion.probes, promotion.saturated)
        if regret is None and self._fresh > 0:
            regret = self.broken()
        return WatchResult("rollback", regret, self.asked) if regret is not None else None

    async def _ask(self, growing: bool = True) -> None:
        """The next batch, of all at once. Batches grow with what was asked: a long weighing needs fewer looks."""
        size = max(self.gate.config.batch, self.asked // 2) if growing else self.gate.config.batch
        batch = self._order[self.asked : self.asked + min(size, self._left)]
        whom = self._whom(batch)
        await asyncio.gather(
            *(_learn(self.policy, some, ref, self.extract, self.max_tokens, self.cache) for ref, some in whom)
        )
        if self.learned is not None:
            await self.learned([ref for ref, _ in whom])
        self._take(batch)

    def _whom(self, batch: Sequence[Question]) -> list[tuple[PolicyRef, Sequence[Question]]]:
        """Who is asked which of the next questions; the base only the first ones."""
        guarding = batch[: max(0, BASE_PROBES - self.asked)]
        asked = {self.base: guarding, self.champion: batch, self.candidate: batch}
        return [(ref, some) for ref, some in asked.items() if some]

    def _take(self, batch: Sequence[Question]) -> None:
        """Their answers, which `cache` holds, are evidence from now on."""
        for ref, some in self._whom(batch):
            self._answers[ref] += [self.cache[ref, question.prompt.id] for question in some]
        self.evidence = self.evidence.model_copy(
            update={
                "candidate_hits": tuple(answer.hit for answer in self._answers[self.candidate]),
                "champion_hits": tuple(answer.hit for answer in self._answers[self.champion]),
            }
        )


async def _learn(
    policy: Policy, batch: Sequence[Question], ref: PolicyRef, extract: Extract, max_tokens: int, cache: Answers
) -> None:
    unknown = [question for question in batch if (ref, question.prompt.id) not in cache]
    answers = await greedy_answers(policy, unknown, ref, extract, max_tokens)
    cache.update({(ref, question.prompt.id): each for question, each in zip(unknown, answers, strict=True)})
