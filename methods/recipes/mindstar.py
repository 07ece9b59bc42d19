"""MindStar: the path that a search among steps finds is learned (Kang et al. 2024, arXiv 2405.16265).

    next: the node with the least depth / reward (levin), or the best of a level (beam)        max log p(path | x)

Why it works: as in alphallm. The paper searches at inference time only; to learn the path found is ours.
Precondition: values that know more than the policy. Supervision: none in this variant. Null control: as in alphallm.

Variant mstar-rollout: the paper's steps are valued by a reward model that was trained on labelled steps; here by the
part of their rollouts that reach the majority's answer. The serving mode `mstar` lost to a vote of as many tokens.
"""

from core.protocols import Method
from methods.recipes import Card, Shared, alphallm
from methods.samplers.tree import Search

CARD = Card(
    "MindStar: the path of a search is learned (variant: by votes)",
    "arXiv 2405.16265",
    "none",
    "2",
    "plumbing",
    control="method.options.unvoted=true",
)


class Settings(alphallm.Settings):
    search: Search = "levin"
    width: int = 3


def build(settings: Settings, shared: Shared) -> Method:
    """Raises: ConfigError for settings with which all samples are equal."""
    return alphallm.build(settings, shared, name="mindstar")
