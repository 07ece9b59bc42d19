"""ENT: entropy minimization (TENT, Wang et al. 2020, as in Rusak et al. 2021, arXiv 2104.12928).

    loss = mean over the places of a text of - sum_v p_v log p_v

The text only says where: what is learned is the policy's own distribution at each of its places.

Why it works: a model that is surer is right more often, as long as its likeliest token is right more often than not. A
small step does not change the likeliest token of the place itself; what one place learns carries over to others.
Precondition: the likeliest tokens are right. Supervision: none; people's votes join the ballot that picks the texts.
Warning: nothing holds it back. Entropy can fall to 0 while accuracy falls too: a user of the authors' code reports
61.8% -> 67.6, 47.6, 34.8% after 1, 2, 3 epochs (DequanWang/tent#7). Use one epoch, a low learning rate, and the gate.

Deviation: as in rpl. Learning rate and epochs of the paper are unverified.
Null control: `scrambled` takes the places of the same tokens in a random order.
"""

from core.objectives import Entropy
from core.protocols import Method
from methods.recipes import Card, Shared
from methods.recipes.rpl import Texts, compose

CARD = Card(
    "ENT: entropy minimization",
    "arXiv 2104.12928",
    "none",
    "1 (greedy: 1/n)",
    "plumbing",
    control="method.options.scrambled=true",
    overrides=("learning.replay_windows=1",),
)


Settings = Texts


def build(settings: Settings, shared: Shared) -> Method:
    """Raises: ConfigError if majority texts are asked for and all samples are equal."""
    return compose("ent", settings, Entropy(), shared)
