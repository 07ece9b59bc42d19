"""Pairs of texts that people compared, beside the majority vote."""

from collections.abc import Sequence
from dataclasses import dataclass

from core.codec import stable_id
from core.config import VotesConfig
from core.errors import PromptError
from core.messages import BASE, Candidate, Compared, Group, PolicyRef, Prompt, Scored
from core.protocols import Extract, Policy, Votes
from methods.ballot import pairs
from methods.scorers.majority import GUARDED, Majority, answer_of
from methods.scorers.paired import paired
from methods.turns import replied


@dataclass(frozen=True)
class Comparisons:
    """One pair for each comparison that enough people back (`methods.ballot.pairs`). Its texts are attributed to the
    oldest version that sampled the other groups, so that they are as fresh as these; except a text of the base model
    that was compared with another version's: it is the second of its group, which is fixed. Texts that are too long for
    the engine are left out."""

    extract: Extract
    votes: VotesConfig = GUARDED
    flipped: bool = False
    """The null control: see `paired`."""
    improving: str | None = None
    """Both texts answer this request of the user to improve the worse one. None: they answer the prompt itself."""

    async def __call__(
        self, groups: Sequence[Group], votes: Votes, policy: Policy, known: Sequence[Scored] = ()
    ) -> list[Scored]:
        judged = await Majority(self.extract, self.votes)(groups, votes, policy, known)
        made = [await self._pair(groups, better, worse, policy) for better, worse in pairs(votes.cast, self.votes)]
        return [*judged, *(pair for pair in made if pair is not None)]

    async def _pair(self, groups: Sequence[Group], better: Compared, worse: Compared, policy: Policy) -> Scored | None:
        prompt, ref = groups[0].prompt, min((group.policy for group in groups), key=lambda ref: ref.version)
        fixed = (better.by.version == 0) != (worse.by.version == 0)
        swapped = fixed and better.by.version == 0
        if self.improving is not None:
            prompt = replied(prompt, worse.text, self.improving)
        texts = (worse.text, better.text) if swapped else (better.text, worse.text)
        try:
            first = await _written(prompt, texts[0], policy, groups[0].id, ref)
            second = await _written(prompt, texts[1], policy, groups[0].id, BASE if fixed else ref)
        except PromptError:
            return None
        answers = (answer_of(first, self.extract), answer_of(second, self.extract))
        return paired(prompt, (first, second), answers, better=int(swapped), share=1, fixed=fixed, flipped=self.flipped)


async def _written(prompt: Prompt, text: str, policy: Policy, group_id: str, ref: PolicyRef) -> Candidate:
    candidate = await policy.render(prompt, text)
    id = stable_id("compared", group_id, candidate.id)
    return candidate.model_copy(update={"id": id, "start": ref, "end": ref})
