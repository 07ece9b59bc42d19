"""Losses: one file each, a function of the tokens of a forward (training.learner.tokens) and of the objective's
settings (core.objectives), which returns a weighted sum. The learner divides it by the weight of the whole step.

Importing this package must not import torch, so that the start-up check is cheap. Optimizer steps: training/learner.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from core.errors import ObjectiveError
from core.objectives import Objective
from core.protocols import Method


def loss_of(objective: Objective) -> Callable[..., Any]:
    return getattr(import_module(f"{__name__}.{objective.kind}"), objective.kind)


def check(method: Method) -> Objective:
    """Returns the method's objective. Called at start-up, before any slow work.

    Raises: ObjectiveError if the objective does not take the examples that the method makes, with the remedy."""
    objective = method.objective
    if method.rows != objective.rows:
        raise ObjectiveError(
            f"method {method.name!r} makes examples of {method.rows} row(s) and its objective {objective.kind!r} takes "
            f"{objective.rows}; use an objective for {method.rows}, or a selector that makes {objective.rows}"
        )
    missing = [name for name in objective.given if name not in method.columns]
    if missing:
        raise ObjectiveError(
            f"objective {objective.kind!r} needs the column {missing[0]!r}, which the rows of method {method.name!r} "
            f"do not have; make them with methods.rows.row(..., {missing[0]}=True), or use another objective"
        )
    return objective
