"""Objectives by name: one file, one function of logits, targets and weights, and the kind of example that it eats.

Importing this loads no torch, so that a start-up check is cheap; the function itself is loaded where it is used."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal

from core.config import LearningConfig
from core.errors import ObjectiveError
from core.messages import Example, Imitate, Reinforce
from core.protocols import Method

Column = Literal["advantage", "behaviour", "proximal", "reference"]
"""One number a completion token. advantage: the example's. The others are log-probabilities (nats): behaviour, of the
engine as sampled; proximal, of the weights before the window's first step; reference, of the base model."""


@dataclass(frozen=True)
class Terms:
    """What an objective wants besides logits, targets and weights, with the settings of this run."""

    columns: tuple[Column, ...] = ()
    """Keyword arguments of the function, each float[N]."""
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Keyword arguments that stay the same."""
    mean: Literal["token", "sequence"] = "token"
    """Over what a step's loss is the mean, weights apart."""


def _plain(learning: LearningConfig) -> Terms:
    return Terms()


def _grpo(learning: LearningConfig) -> Terms:
    chosen = learning.grpo
    reference: tuple[Column, ...] = ("reference",) if chosen.kl > 0 else ()
    return Terms(("advantage", "behaviour", "proximal", *reference), {"settings": chosen}, chosen.mean)


@dataclass(frozen=True)
class Objective:
    """The function of this name in the file of this name."""

    name: str
    eats: type[Example]
    terms: Callable[[LearningConfig], Terms] = _plain

    @property
    def function(self) -> Callable[..., Any]:
        """`function(logits_NV, targets_N, weight_N, **columns)`: the weighted sum of the loss over N completion
        tokens."""
        return getattr(import_module(f"{__name__}.{self.name}"), self.name)


OBJECTIVES = {
    objective.name: objective
    for objective in (Objective("sft", eats=Imitate), Objective("grpo", eats=Reinforce, terms=_grpo))
}


def objective(name: str) -> Objective:
    """Raises: ObjectiveError naming those that exist."""
    if name not in OBJECTIVES:
        raise ObjectiveError(f"no objective {name!r}; there are {', '.join(sorted(OBJECTIVES))}")
    return OBJECTIVES[name]


def check(method: Method) -> Objective:
    """The method's objective, if it eats what the method makes. For start-up, before anything heavy.

    Raises: ObjectiveError naming both kinds and the remedy."""
    found = objective(method.objective)
    if not issubclass(method.makes, found.eats):
        fitting = [o.name for o in OBJECTIVES.values() if issubclass(method.makes, o.eats)]
        remedy = f"use objective {' or '.join(fitting)}" if fitting else "no objective eats those yet"
        raise ObjectiveError(
            f"method {method.name!r} makes {method.makes.__name__} and its objective {found.name!r} eats "
            f"{found.eats.__name__}; {remedy}, or select {found.eats.__name__} examples"
        )
    return found
