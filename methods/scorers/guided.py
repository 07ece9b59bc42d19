"""Guided answers for prompts that lack own right texts: the model is told the answer and writes how to get there."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from core.answers import folded
from core.codec import stable_id
from core.config import SamplerConfig, VotesConfig
from core.errors import PromptError
from core.messages import Candidate, Group, Prompt, Scored, Verdict, Vote
from core.protocols import Extract, Policy, Votes
from methods.ballot import backed, newest
from methods.samplers.iid import sampling_of
from methods.scorers.majority import Majority, answer_of

STATEMENT = frozenset(("so", "thus", "therefore", "hence", "the", "final", "correct", "right", "answer", "is"))
"""Words that state an answer and give no reason for it."""


@dataclass(frozen=True)
class Guided:
    """The majority vote, and an extra group of guided answers to a prompt whose winning answer too few samples have.

    oracle=people    no sample reached the winning answer, and enough people (`backed`) voted for it
    oracle=vote      the winning answer has at least `min_share` of the ballot, and fewer than `min_right` samples

    The prompt with the answer as a hint is sampled one by one, at most `rounds` times, until `min_right` texts are
    right. Each text is then rendered under the prompt itself, so the hint is in no context that is learned from. A text
    wins if it has the winning answer, says more than that, and does not speak of a hint."""

    extract: Extract
    votes: VotesConfig
    sampler: SamplerConfig
    oracle: Literal["people", "vote"] = "people"
    min_right: int = 4
    rounds: int = 8
    min_share: float = 0.5
    wrong_hint: bool = False
    """The null control: the hint is another sample's answer, drawn by the group's id."""

    async def __call__(
        self, groups: Sequence[Group], votes: Votes, policy: Policy, known: Sequence[Scored] = ()
    ) -> list[Scored]:
        judged = await Majority(self.extract, self.votes)(groups, votes, policy, known)
        sampled = judged[: len(groups)]
        winner, missing = sampled[0].verdict.winner, self.missing(sampled, votes.cast)
        hint = self._hint(sampled) if missing else None
        if winner is None or hint is None:
            return judged
        id = stable_id("guided", groups[0].id, winner, hint)
        group = next((one.group for one in known if one.group.id == id), None)
        if group is None:
            candidates = await self._sampled(groups[0].prompt, winner, hint, missing, policy)
            group = Group(id=id, prompt=groups[0].prompt, candidates=tuple(candidates))
        share = 1.0 if self.oracle == "people" else sampled[0].verdict.share
        verdict = Verdict(
            scores=tuple(float(self._is_right(candidate, winner)) for candidate in group.candidates),
            answers=tuple(answer_of(candidate, self.extract) for candidate in group.candidates),
            winner=winner,
            share=share,
            margin=share,
        )
        return [*judged, Scored(group=group, verdict=verdict)]

    def missing(self, sampled: Sequence[Scored], cast: Sequence[Vote]) -> int:
        """The number of guided answers that the prompt needs."""
        winner, share = sampled[0].verdict.winner, sampled[0].verdict.share
        answers = [answer for one in sampled for answer in one.verdict.answers]
        if winner is None or not any(answers):
            return 0
        right = answers.count(winner)
        if self.oracle == "people":
            reached = right > 0 or not backed([v for v in newest(cast) if self._is_for(v, winner)], self.votes)
        else:
            reached = share < self.min_share
        return 0 if reached else max(0, self.min_right - right)

    def _is_for(self, vote: Vote, winner: str) -> bool:
        text = vote.answer if vote.answer is not None else vote.correction
        return text is not None and self.extract(text, stated=True) == winner

    def _hint(self, sampled: Sequence[Scored]) -> str | None:
        winner = sampled[0].verdict.winner
        if not self.wrong_hint:
            return winner
        others = sorted({a for one in sampled for a in one.verdict.answers if a is not None and a != winner})
        return random.Random(stable_id("hint", sampled[0].group.id)).choice(others) if others else None

    async def _sampled(self, prompt: Prompt, winner: str, hint: str, missing: int, policy: Policy) -> list[Candidate]:
        """Guided answers in the context of the prompt; fewer if the prompt with the hint is too long for the engine."""
        asked, sampling = hinted(prompt, hint), sampling_of(self.sampler, n=1)
        made: list[Candidate] = []
        while len(made) < self.rounds and sum(self._is_right(candidate, winner) for candidate in made) < missing:
            try:
                (guided,) = await policy.generate(asked, sampling)
                own = await policy.render(prompt, guided.text)
            except PromptError:
                break
            about = {"id": stable_id("guided", guided.id), "start": guided.start, "end": guided.end}
            made.append(own.model_copy(update={**about, "finish": guided.finish}))
        return made

    def _is_right(self, candidate: Candidate, winner: str) -> bool:
        return answer_of(candidate, self.extract) == winner and has_step(candidate.text, winner)


def hinted(prompt: Prompt, answer: str) -> Prompt:
    *before, last = prompt.messages
    told = (
        f"{last.content}\n\nHint: the answer is {answer}. Write the steps that lead to it, and do not mention the hint."
    )
    return prompt.model_copy(
        update={
            "id": stable_id("hinted", prompt.id, answer),
            "messages": (*before, last.model_copy(update={"content": told})),
            "origin": "generated",
        }
    )


def has_step(text: str, answer: str) -> bool:
    """Whether the text says more than the answer, and nothing of a hint."""
    words = set(folded(text).split())
    return "hint" not in words and bool(words - STATEMENT - set(folded(answer).split()))
