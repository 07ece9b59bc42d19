"""Which of its candidates a serving mode gives to the user."""

from collections.abc import Sequence

from core.messages import Candidate, Prompt, Verdict
from core.protocols import ModeAnswer, Policy, Votes
from methods.recipes import Shared
from methods.samplers.iid import grouped
from methods.scorers.majority import Majority, answer_of


async def elected(
    shared: Shared, prompt: Prompt, candidates: Sequence[Candidate], policy: Policy
) -> tuple[Candidate, Verdict]:
    """The first candidate with the winning answer of a vote among these, and the vote. Without a winner: the first that
    was not cut off. No person's vote takes part."""
    (one,) = await Majority(shared.extract, shared.votes)([grouped(prompt, list(candidates))], Votes(), policy)
    judged = zip(candidates, one.verdict.scores, strict=True)
    best, _ = max(judged, key=lambda pair: (pair[1], pair[0].finish == "stop"))  # of equals, max returns the first
    return best, one.verdict


async def voted(shared: Shared, prompt: Prompt, candidates: Sequence[Candidate], policy: Policy) -> ModeAnswer:
    best, verdict = await elected(shared, prompt, candidates, policy)
    return ModeAnswer.of(best, verdict.share)


def last_readable(shared: Shared, *turns: Candidate) -> Candidate:
    """The last of an answer's turns that has an answer; without any the last one. What cannot be read replaces nothing
    that can."""
    return next((turn for turn in reversed(turns) if answer_of(turn, shared.extract) is not None), turns[-1])
