"""Replay to Remember (2023, arXiv 2307.07280), variant self-anchor.

    y~ = majority of the base model's samples for a share rho of the prompts, of the policy's own for the others
    D = {(x, path) : answer(path) = y~}          max log p(D)

Why it works: a part of old answers in every window holds the policy where it was good, so that it forgets less of what
it is not asked now.
Precondition: as in lmsi, of both versions. Supervision: none; people's votes join the ballot.

Deviation: known from the paper's abstract; its share, frozen layers and learning rate are unverified, 10% is ours.
It adapts a recognizer of speech and mixes in data of the original domain. Here the old data is what the base model
answers to prompts of the same pool, drawn by their ids, so rho is the expected share of prompts, not of tokens: sft
weighs a text by its length, and a prompt on which the base agrees less gives fewer examples. No layers are frozen.
The examples of the base never grow stale.
Null control: a share of 0 is lmsi.
"""

from pydantic import Field

from core.objectives import Sft
from core.protocols import Method
from methods.checks import differ
from methods.recipes import Card, Shared
from methods.samplers.anchored import Anchored
from methods.scorers.majority import Majority
from methods.selectors.winners import Winners
from methods.voting import Voting, won

CARD = Card(
    "Replay to Remember, with answers of the base model",
    "arXiv 2307.07280",
    "none",
    "1",
    "plumbing",
    control="method.options.share=0",
)


class Settings(Voting):
    share: float = Field(default=0.1, ge=0, lt=1)
    """rho: share of the prompts that the base model answers."""


def build(settings: Settings, shared: Shared) -> Method:
    """Raises: ConfigError for settings with which all samples are equal."""
    differ("replay_anchor", shared.sampler)
    return Method(
        name="replay_anchor",
        sample=Anchored(shared.sampler, settings.share),
        score=Majority(shared.extract, shared.votes),
        filters=won(settings),
        select=Winners("replay_anchor", settings.max_winners),
        objective=Sft(),
    )
