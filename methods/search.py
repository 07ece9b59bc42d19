"""Search in a tree of partial answers: beam, Levin and UCT. Pure control; what a step is and what it is worth is given.

Sources: MindStar, arXiv 2405.16265 (beam, Levin: path rewards are products); AlphaLLM, arXiv 2404.12253 (UCT, a new
child before any choice among old ones, terminal rewards kept). A tree is asked for children only by `grow`, so whoever
gives it keeps the budget.
"""

import heapq
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

State = TypeVar("State")
Grow = Callable[[State, int], Awaitable[Sequence["Step[State]"]]]
"""Up to so many next steps of a state, best guess first, without equal ones."""


@dataclass(frozen=True)
class Step(Generic[State]):
    state: State
    value: float
    """What the step is worth, 0 to 1 for Levin and beam."""
    final: bool
    """The answer ends here."""


@dataclass
class Node(Generic[State]):
    step: Step[State]
    reward: float
    """The product of the values along the path."""
    depth: int
    children: "list[Node[State]]" = field(default_factory=list["Node[State]"])
    visits: int = 0
    total: float = 0.0

    @property
    def mean(self) -> float:
        return self.total / self.visits if self.visits else 0.0


async def levin(root: State, grow: Grow[State], width: int, depth: int) -> Node[State]:
    """The first final node that is taken, where the node with the least depth / reward is always next. Without one: the
    best node that was found. Classic Levin tree search divides by the policy's probability (Orseau et al. 2018)."""
    start = _root(root)
    waiting, number, best = [(0.0, 0, start)], 0, start
    while waiting:
        _, _, node = heapq.heappop(waiting)
        if node.step.final:
            return node
        best = max(best, node, key=lambda one: (one.depth > 0, one.reward))
        if node.depth >= depth:
            continue
        for child in await _children(node, grow, width):
            number += 1
            cost = child.depth / child.reward if child.reward > 0 else math.inf
            heapq.heappush(waiting, (cost, number, child))
    return best


async def beam(root: State, grow: Grow[State], width: int, depth: int) -> Node[State]:
    """The best of the children at each level, with no way back."""
    node = _root(root)
    while not node.step.final and node.depth < depth:
        children = await _children(node, grow, width)
        if not children:
            break
        node = max(children, key=lambda child: child.reward)
    return node


async def uct(
    root: State, grow: Grow[State], simulations: int, widths: Callable[[int], int], depth: int, c: float = 1.0
) -> Node[State]:
    """The root after so many simulations. Each goes down by UCT, adds one child to the first node that has fewer than
    `widths(its depth)`, and backs up that child's value; a final node backs up its own value again."""
    start = _root(root)
    for _ in range(simulations):
        path = [start]
        while True:
            node = path[-1]
            if node.step.final or node.depth >= depth:
                break
            if len(node.children) < widths(node.depth):
                found = await _children(node, grow, 1)
                if found:
                    path.append(found[0])
                    break
                if not node.children:
                    break
            path.append(max(node.children, key=lambda child: bound(child, node.visits, c)))
        for node in path:
            node.visits += 1
            node.total += path[-1].step.value
    return start


def bound(node: Node[State], parent_visits: int, c: float = 1.0) -> float:
    """The upper confidence bound of a child."""
    return node.mean + c * math.sqrt(math.log(max(1, parent_visits)) / node.visits) if node.visits else math.inf


def best_path(node: Node[State]) -> Node[State]:
    """The node at the end of the path of greatest means; of equals, of most visits."""
    while node.children:
        node = max(node.children, key=lambda child: (child.mean, child.visits))
    return node


def _root(state: State) -> Node[State]:
    return Node(Step(state, 1.0, final=False), 1.0, 0)


async def _children(node: Node[State], grow: Grow[State], width: int) -> list[Node[State]]:
    made = [Node(step, node.reward * step.value, node.depth + 1) for step in await grow(node.step.state, width)]
    node.children += made
    return made
