"""Answers as a tree of steps, grown by a search; each step has rollouts."""

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from core.messages import Group, Prompt
from core.protocols import UNTUNED, ModeAnswer, Policy, Tuned
from methods.recipes import Shared
from methods.search import beam, levin, uct
from methods.steps import Partial, Steps, StepShape

Search = Literal["uct", "levin", "beam"]


class Shape(StepShape):
    """The settings of every recipe that searches among steps."""

    search: Search = "uct"
    simulations: int = Field(default=6, ge=1, le=64)
    """Of uct: each adds one step."""
    root_width: int = Field(default=4, ge=1, le=16)
    """The most first steps of uct."""
    width: int = Field(default=2, ge=1, le=16)
    """The most steps that go on from another one."""


@dataclass(frozen=True)
class Tree:
    """The steps and rollouts of one search in groups, one for each partial answer that was taken up."""

    shared: Shared
    shape: Shape

    async def __call__(self, prompt: Prompt, policy: Policy, tuned: Tuned = UNTUNED) -> list[Group]:
        shape = self.shape
        steps = Steps(self.shared, policy, _Unheard(), shape.stop, shape.rollouts)
        root = Partial(prompt)

        def widths(depth: int) -> int:
            return shape.width if depth else shape.root_width

        match shape.search:
            case "uct":
                await uct(root, steps.grow, shape.simulations, widths, shape.depth)
            case "levin":
                await levin(root, steps.grow, shape.width, shape.depth)
            case "beam":
                await beam(root, steps.grow, shape.width, shape.depth)
        return steps.groups()


class _Unheard:
    """Nobody waits for the answer."""

    def aside(self, text: str) -> None: ...

    def so_far(self, answer: ModeAnswer) -> None: ...
