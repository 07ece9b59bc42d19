"""Online DPO: direct preference optimization on fresh pairs (Guo et al. 2024, arXiv 2402.04792).

    loss = -log sigmoid(beta [log p(c)/p_ref(c) - log p(r)/p_ref(r)])          c: the better text, r: the worse one

Why it works: the pairs come from the versions as they are now, so the loss corrects what they still get wrong.
Precondition: a preference that is right more often than not. Supervision: as in xpo, by `oracle`.

Deviation: this is `xpo` with alpha 0, bit for bit. So with oracle=vote one text of a pair is the base model's; in the
paper both are the policy's, and a language model judges them [unverified]. Null control: `flipped`, as in xpo.
"""

from core.protocols import Method
from methods.recipes import Card, Shared
from methods.recipes.xpo import FromBase, Oracle, compose

CARD = Card(
    "Online DPO",
    "arXiv 2402.04792",
    "none",
    "2; with oracle=people one sample",
    "plumbing",
    control="method.options.flipped=true",
)


class Settings(Oracle):
    dpo: FromBase = FromBase()


def build(settings: Settings, shared: Shared) -> Method:
    """Raises: ConfigError for settings with which all samples of an arm are equal."""
    return compose("online_dpo", settings, settings.dpo, shared)
