# pyright: basic
"""Objectives by name. One is one function of logits, targets and weights, and the kind of example that it eats."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from core.errors import ObjectiveError
from core.messages import Example, Imitate
from core.protocols import Method
from training.objectives.sft import sft


@dataclass(frozen=True)
class Objective:
    """`function(logits_NV, targets_N, weight_N)` is the weighted sum of the loss over a batch's N completion tokens."""

    name: str
    function: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
    eats: type[Example]


OBJECTIVES = {"sft": Objective("sft", sft, eats=Imitate)}


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
