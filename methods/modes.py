"""Serving modes: answer users with the sampler and scorer of training. `model="policy:vote"` uses the mode `vote`.

A mode is a function of a sampler, a scorer, the prompt and the policy, and a row in `modes`. The policy that it gets
counts all tokens.
"""

from functools import partial

from core.answers import extractor
from core.config import MethodConfig
from core.messages import Prompt
from core.protocols import Mode, ModeAnswer, Policy, Sampler, Scorer, Votes
from methods.samplers.iid import Iid
from methods.scorers.majority import Majority

NO_VOTES = Votes()


def modes(config: MethodConfig) -> dict[str, Mode]:
    """The modes that these settings allow, by name. They pickle with cloudpickle, as arguments of a deployment must.

    Raises: ConfigError for an invalid pattern or invalid choices in `config.answer`."""
    sampler = config.sampler
    if sampler.n < 2 or sampler.temperature == 0:  # every ballot would be unanimous
        return {}
    return {"vote": partial(vote, Iid(sampler), Majority(extractor(config.answer), config.votes))}


async def vote(sample: Sampler, score: Scorer, prompt: Prompt, policy: Policy) -> ModeAnswer:
    """Self-consistency, arXiv 2203.11171: the first of the samples with the most common answer.

    Deviation: the paper returns only the answer; here the client gets the sample's whole text. If no sample has an
    answer, the result is the first sample that was not cut off, with a share of 0."""
    scored = await score(await sample(prompt, policy), NO_VOTES, policy)
    judged = [
        (candidate, value)
        for one in scored
        for candidate, value in zip(one.group.candidates, one.verdict.scores, strict=True)
    ]
    best, _ = max(judged, key=lambda pair: (pair[1], pair[0].finish == "stop"))  # of equals, max returns the first
    return ModeAnswer(text=best.text, finish=best.finish, share=scored[0].verdict.share)
