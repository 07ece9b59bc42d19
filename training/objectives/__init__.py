"""Objectives by name. Each is one file with one function of logits, targets and weights, and takes one kind of example.

Importing this package must not import torch, so that the start-up check is cheap. The functions are imported on use.
Optimizer steps and model code belong in training/learner.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal

from core.config import LearningConfig
from core.errors import ObjectiveError
from core.messages import Example, Imitate, Reinforce
from core.protocols import Method

Column = Literal["advantage", "behaviour", "proximal", "reference"]
"""A column has one number for each completion token. advantage: the advantage of the example. The others are
log-probabilities (nats). behaviour: by the engine at sampling. proximal: by the weights before the window's first step.
reference: by the base model."""


@dataclass(frozen=True)
class Terms:
    """The inputs of an objective besides logits, targets and weights, with the settings of this run."""

    columns: tuple[Column, ...] = ()
    """Keyword arguments of the function, each float[N]."""
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Keyword arguments with the same value in every call."""
    mean: Literal["token", "sequence"] = "token"
    """Whether a step's loss is the weighted mean over tokens or over sequences."""


def _plain(learning: LearningConfig) -> Terms:
    return Terms()


def _grpo(learning: LearningConfig) -> Terms:
    chosen = learning.grpo
    reference: tuple[Column, ...] = ("reference",) if chosen.kl > 0 else ()
    return Terms(("advantage", "behaviour", "proximal", *reference), {"settings": chosen}, chosen.mean)


@dataclass(frozen=True)
class Objective:
    """An objective: the function `name` in the file `name`.py."""

    name: str
    eats: type[Example]
    terms: Callable[[LearningConfig], Terms] = _plain

    @property
    def function(self) -> Callable[..., Any]:
        """`function(logits_NV, targets_N, weight_N, **columns)` returns the weighted sum of the loss over N completion
        tokens."""
        return getattr(import_module(f"{__name__}.{self.name}"), self.name)


OBJECTIVES = {
    objective.name: objective
    for objective in (Objective("sft", eats=Imitate), Objective("grpo", eats=Reinforce, terms=_grpo))
}


def objective(name: str) -> Objective:
    """Raises: ObjectiveError naming the objectives that exist."""
    if name not in OBJECTIVES:
        raise ObjectiveError(f"no objective {name!r}; use one of {', '.join(sorted(OBJECTIVES))}")
    return OBJECTIVES[name]


def check(method: Method) -> Objective:
    """Returns the method's objective. Called at start-up, before any slow work.

    Raises: ObjectiveError if the objective does not take the examples that the method makes; names both kinds and the
    remedy."""
    found = objective(method.objective)
    if not issubclass(method.makes, found.eats):
        fitting = [o.name for o in OBJECTIVES.values() if issubclass(method.makes, o.eats)]
        remedy = f"use objective {' or '.join(fitting)}" if fitting else "no objective takes these yet"
        raise ObjectiveError(
            f"method {method.name!r} makes {method.makes.__name__} and its objective {found.name!r} takes "
            f"{found.eats.__name__}; {remedy}, or select {found.eats.__name__} examples"
        )
    return found
