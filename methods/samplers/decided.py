"""Candidates as `Iid` draws them, but no more than the vote needs: samples that cannot change the winner any more are
not drawn."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from core.config import SamplerConfig
from core.messages import Candidate, Group, Prompt
from core.protocols import UNTUNED, Extract, Policy, Tuned
from methods.samplers.iid import grouped, sampling_of
from methods.scorers.majority import answer_of


@dataclass(frozen=True)
class Decided:
    """Up to `n` candidates of one version in one group, in at most `rounds` rounds."""

    config: SamplerConfig
    extract: Extract
    n: int
    rounds: int
    drawn: Callable[[int], None] = lambda count: None
    """Is told how many are drawn after each round."""

    async def __call__(self, prompt: Prompt, policy: Policy, tuned: Tuned = UNTUNED) -> list[Group]:
        temperature = tuned.get("temperature", self.config.temperature)
        candidates: list[Candidate] = []
        for last in (*(False,) * (self.rounds - 1), True):
            answers = [answer_of(candidate, self.extract) for candidate in candidates]
            wanted = still_needed(answers, self.n)
            if not wanted:
                break
            more = self.n - len(candidates) if last else wanted
            candidates += await policy.generate(prompt, sampling_of(self.config, n=more, temperature=temperature))
            self.drawn(len(candidates))
        return [grouped(prompt, candidates)]


def still_needed(answers: Sequence[str | None], n: int) -> int:
    """The least number of further samples, of `n` in all, that can decide the ballot. 0: all are drawn, or those that
    are left cannot change the winner, also not by a tie."""
    ranked = [count for _, count in Counter(answer for answer in answers if answer is not None).most_common(2)]
    lead = sum(ranked[:1]) - sum(ranked[1:])
    out = n - len(answers)
    if lead > out:
        return 0
    return min(out, (out - lead) // 2 + 1)
