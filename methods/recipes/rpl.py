"""RPL: Robust Pseudo-Labeling (Rusak et al. 2021, arXiv 2104.12928), variant rpl-text.

    loss = mean over tokens of (1 - p^q) / q          p: the probability of the target token

The targets are the winning texts of a vote (`given`), or the likeliest tokens at their places (`argmax`).

Why it works: own targets may be wrong. Their gradient is p^q times that of cross entropy, so a token that the model
finds unlikely pulls less, and one wrong text cannot pull it far. q -> 0 is lmsi.
Precondition: as in lmsi. Supervision: none; people's votes join the ballot.
Warning: with `argmax` and with `greedy` texts nothing but its own certainty says what is right. It becomes surer of
its errors too, and accuracy first rises and then falls with the number of steps, as users report of the related ENT
(see ent). Use one epoch, a low learning rate, and the gate.

Deviation: the paper classifies images at test time, with the argmax of the same forward as the target, and trains the
affine parameters of normalizations; here tokens are the classes, and whatever the run trains is trained. Its learning
rate belongs to that setting. Majority texts are ours. Versions are streamed.
Null control: `scrambled` trains on the same tokens in a random order.
"""

from typing import Literal

from core.objectives import Gce, Objective
from core.protocols import Method
from methods.checks import differ
from methods.recipes import Card, Shared
from methods.samplers.greedy import greedy
from methods.samplers.iid import Iid
from methods.scorers.majority import Majority
from methods.selectors.scrambled import Scrambled
from methods.selectors.winners import Winners
from methods.voting import Voting, won

CARD = Card(
    "RPL: robust pseudo-labeling of texts",
    "arXiv 2104.12928",
    "none",
    "1 (greedy: 1/n)",
    "plumbing",
    control="method.options.scrambled=true",
    overrides=("learning.replay_windows=1",),
)


class Texts(Voting):
    """The settings that `rpl` and `ent` share."""

    texts: Literal["majority", "greedy"] = "majority"
    """The texts to learn from: the winners of a vote, or the one text that is likeliest."""
    scrambled: bool = False
    """True: the null control, which shuffles the tokens of each text."""


class Settings(Texts):
    gce: Gce = Gce()


def build(settings: Settings, shared: Shared) -> Method:
    """Raises: ConfigError if majority texts are asked for and all samples are equal."""
    return compose("rpl", settings, settings.gce, shared)


def compose(name: str, settings: Texts, objective: Objective, shared: Shared) -> Method:
    if settings.texts == "majority":
        differ(name, shared.sampler)
    winners = Winners(name, settings.max_winners)
    return Method(
        name=name,
        sample=Iid(shared.sampler) if settings.texts == "majority" else greedy(shared.sampler),
        score=Majority(shared.extract, shared.votes),
        filters=won(settings),
        select=Scrambled(winners) if settings.scrambled else winners,
        objective=objective,
    )
