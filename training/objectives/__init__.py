"""Objectives by name: one file, one function of logits, targets and weights, and the kind of example that it eats.

Importing this loads no torch, so that a start-up check is cheap; the function itself is loaded where it is used."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from core.errors import ObjectiveError
from core.messages import Example, Imitate
from core.protocols import Method


@dataclass(frozen=True)
class Objective:
    """The function of this name in the file of this name."""

    name: str
    eats: type[Example]

    @property
    def function(self) -> Callable[[Any, Any, Any], Any]:
        """`function(logits_NV, targets_N, weight_N)`: the weighted sum of the loss over N completion tokens."""
        return getattr(import_module(f"{__name__}.{self.name}"), self.name)


OBJECTIVES = {objective.name: objective for objective in (Objective("sft", eats=Imitate),)}


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
