"""Serving modes: answer with what training learns from. `model="policy:vote"` is the mode `vote`.

A mode is a function of a sampler, a scorer, the prompt and the policy, and a row in `modes`. What it costs is not its
business: the policy that it gets counts every token.
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
    """Every mode that these settings allow, by name. They pickle with cloudpickle, as arguments of a deployment do.

    Raises: ConfigError for an answer that cannot be read so."""
    sampler = config.sampler
    if sampler.n < 2 or sampler.temperature == 0:  # every ballot would be unanimous, and mean nothing
        return {}
    return {"vote": partial(vote, Iid(sampler), Majority(extractor(config.answer), config.votes))}


async def vote(sample: Sampler, score: Scorer, prompt: Prompt, policy: Policy) -> ModeAnswer:
    """Self-consistency, arXiv 2203.11171: of the samples that say what most say, the first, word for word.

    Deviation: the paper weighs answers alone; here a reader gets the text that came with it. Where no sample has an
    answer nothing won: the first that was not cut off, with a share of 0."""
    scored = await score(await sample(prompt, policy), NO_VOTES, policy)
    judged = [
        (candidate, value)
        for one in scored
        for candidate, value in zip(one.group.candidates, one.verdict.scores, strict=True)
    ]
    best, _ = max(judged, key=lambda pair: (pair[1], pair[0].finish == "stop"))  # of equals, the first
    return ModeAnswer(text=best.text, finish=best.finish, share=scored[0].verdict.share)
