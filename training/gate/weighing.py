"""Weighs a candidate: asks it and the champion the same questions, with greedy decoding, until the gate decides."""

import asyncio
import unicodedata
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from core.answers import folded
from core.errors import PromptError
from core.messages import BASE, Candidate, Decision, Evidence, PolicyRef, Sampling
from core.messages.versions import Question
from core.protocols import Extract, Policy
from training.gate.gate import Gate, differences
from training.gate.guards import Answer, broken
from training.gate.power import would_decide
from training.gate.sight import Sight, sight
from training.gate.slices import held

BASE_PROBES = 256
"""Number of probes of each weighing that the base answers, for the guards. A cache keeps each answer for the run."""

Answers = MutableMapping[tuple[PolicyRef, str], Answer]
"""Known greedy answers, by version and prompt id. A version's greedy answer to a question never changes."""


async def greedy_candidates(
    policy: Policy,
    questions: Sequence[Question],
    ref: PolicyRef,
    max_tokens: int,
    purpose: Literal["gate", "report"] = "gate",
    concurrency: int = 64,
) -> list[Candidate | None]:
    """The greedy text of version `ref` for each question; None if it is too long for the engine, as it then is for
    every version. Raises: the policy's error, after all other requests are canceled; there is no partial result."""
    sampling = Sampling(n=1, temperature=0.0, max_tokens=max_tokens, purpose=purpose)
    seats = asyncio.Semaphore(concurrency)

    async def ask(question: Question) -> Candidate | None:
        async with seats:
            try:
                (candidate,) = await policy.generate(question.prompt, sampling, ref)
            except PromptError:
                return None
        return candidate

    tasks = [asyncio.ensure_future(ask(question)) for question in questions]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def answered(question: Question, candidate: Candidate | None, extract: Extract) -> Answer:
    """An answer that is missing, is cut off or has no extractable value is a miss."""
    if candidate is None:
        return Answer(hit=False, value=None, tokens=0)
    value = extract(candidate.text) if candidate.finish == "stop" else None
    return Answer(hit=value == question.answer, value=value, tokens=len(candidate.completion_ids) // 4)


@dataclass(frozen=True)
class WatchResult:
    """The result of asking a promoted version more probes."""

    result: Literal["crowned", "rollback", "nothing"]
    reason: str
    probes: int


@dataclass
class Weighing:
    """Compares one candidate with the champion on probes in a random order, in batches of gate.config.batch or more.
    After a promotion, the watch continues in the same order.

    `rng` must be new for each candidate, and the trainer must not know its seed. `cache` keeps the answers of the
    champion and the base for later candidates. After every batch `learned` is called with the versions that have new
    answers. Probe ids must be unique. Of probes that ask the same (see `distinct`) only the first is asked, because a
    second answer to the same question is no evidence of its own."""

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
        self._order = distinct(self.probes)
        self.rng.shuffle(self._order)
        del self._order[self.gate.config.max_probes + self.gate.config.watch_probes :]
        self._answers = {ref: [] for ref in (self.candidate, self.champion, self.base)}
        self.evidence = Evidence(
            candidate=self.candidate,
            champion=self.champion,
            candidate_hits=(),
            champion_hits=(),
            certified=self.certified,
            held_slices=held(self._order, self.gate.config),
        )

    async def verdict(self) -> Decision:
        """Asks probes until the gate decides or no probes are left. Raises: VersionError for another champion."""
        while self.decision is None:
            self.decision = self.gate.decide(self.evidence, not self._left, self.broken(), self.sight())
            if self.decision is None:
                await self._ask()
        return self._advised(self.decision)

    def _advised(self, decision: Decision) -> Decision:
        """A hold for want of probes also tells how many would do."""
        config = self.gate.config
        sees = self.asked > 1 and self.sight().least > config.delta
        unsure = any(found.result == "open" for found in decision.slices.values())
        if decision.verdict != "hold" or not sees or unsure or self.gate.saturated(self.certified):
            return decision
        advice = would_decide(config, differences(self.evidence), self.gate.ledger.weighed)
        return decision.model_copy(update={"reason": f"{decision.reason}; {advice}"})

    def take_up(self, decision: Decision) -> bool:
        """Continue the watch of a version promoted before a restart. False if `cache` lacks answers of its weighing."""
        pairs = [all((ref, q.prompt.id) in self.cache for ref in (self.candidate, self.champion)) for q in self._order]
        known = self._order[: (*pairs, False).index(False)]
        guarding = all((self.base, question.prompt.id) in self.cache for question in known[:BASE_PROBES])
        if len(known) < decision.probes or not guarding:
            return False
        self.decision = decision
        self._take(known)
        return True

    def broken(self) -> str | None:
        """The guard that the candidate breaks, or None; see training.gate.guards."""
        others = {str(self.champion): self._answers[self.champion]}
        if self.base != self.champion:
            others["the base"] = self._answers[self.base]
        return broken(self._answers[self.candidate], others, self._expected, self.gate.config.guards)

    def sight(self) -> Sight:
        """Whether hits depend on the questions; see training.gate.sight."""
        versions = {str(ref): self._answers[ref] for ref in (self.champion, self.candidate)}
        return sight(versions, self._expected, "gate.keys" if self.certified else "gate.anchors")

    async def crown(self) -> WatchResult | None:
        """After a promotion without a new champion: asks more probes until the promoted version is shown to be better
        or worse. None if the evidence no longer suggests that it is better; then call `watch`."""
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
        """Ask one more batch of a promoted version that did not become champion. None: call `watch` again later."""
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
    def _expected(self) -> list[str]:
        return [question.answer for question in self._order[: self.asked]]

    @property
    def _promotion(self) -> Decision:
        assert self.decision is not None and self.decision.verdict == "promote", "only a promoted version is watched"
        return self.decision

    @property
    def _fresh(self) -> int:
        return self.asked - self._promotion.probes

    @property
    def _left(self) -> int:
        """Number of probes not asked yet. Those beyond max_probes are for the watch only."""
        limit = len(self._order) if self.decision is not None else self.gate.config.max_probes
        return min(limit, len(self._order)) - self.asked

    def _seen(self) -> WatchResult | None:
        promotion = self._promotion
        regret = self.gate.regret(self.evidence, promotion.probes, promotion.saturated)
        if regret is None and self._fresh > 0:
            regret = self.broken()
        return WatchResult("rollback", regret, self.asked) if regret is not None else None

    async def _ask(self, growing: bool = True) -> None:
        """Ask the next batch of all versions concurrently. Batches grow with the number of probes asked, so that a long
        weighing needs fewer looks."""
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
        """Version -> the questions of the batch to ask it. The base is asked only the first BASE_PROBES probes."""
        guarding = batch[: max(0, BASE_PROBES - self.asked)]
        asked = {self.base: guarding, self.champion: batch, self.candidate: batch}
        return [(ref, some) for ref, some in asked.items() if some]

    def _take(self, batch: Sequence[Question]) -> None:
        """Add the answers to this batch to the evidence. `cache` must have them."""
        for ref, some in self._whom(batch):
            self._answers[ref] += [self.cache[ref, question.prompt.id] for question in some]
        self.evidence = self.evidence.model_copy(
            update={
                "candidate_hits": tuple(answer.hit for answer in self._answers[self.candidate]),
                "champion_hits": tuple(answer.hit for answer in self._answers[self.champion]),
                "slices": (*self.evidence.slices, *(question.slice for question in batch)),
            }
        )


def distinct(probes: Sequence[Question]) -> list[Question]:
    """The first of all probes that ask the same and expect the same, up to case, punctuation, spacing and Unicode's
    compatibility forms."""
    found: dict[tuple[str, ...], Question] = {}
    for probe in probes:
        asked = (folded(unicodedata.normalize("NFKC", message.content)) for message in probe.prompt.messages)
        found.setdefault((probe.answer, *asked), probe)
    return list(found.values())


async def _learn(
    policy: Policy, batch: Sequence[Question], ref: PolicyRef, extract: Extract, max_tokens: int, cache: Answers
) -> None:
    unknown = [question for question in batch if (ref, question.prompt.id) not in cache]
    said = await greedy_candidates(policy, unknown, ref, max_tokens)
    asked = zip(unknown, said, strict=True)
    cache.update({(ref, question.prompt.id): answered(question, each, extract) for question, each in asked})
