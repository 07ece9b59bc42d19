"""Tree search by hand: what is expanded in which order, and what is returned."""

import asyncio
import math
from collections.abc import Mapping, Sequence

import pytest

from methods.search import Node, Step, beam, best_path, bound, levin, uct

Tree = Mapping[str, Sequence[tuple[str, float, bool]]]
"""State -> its steps: state, value, whether it is final."""
MINDSTAR: Tree = {
    "": [("A", 0.9, False), ("B", 0.6, False)],
    "A": [("A1", 0.5, True), ("A2", 0.4, True)],
    "B": [("B1", 0.95, True)],
}


class Planted:
    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.expanded: list[str] = []
        self.given: dict[str, int] = {}

    async def grow(self, state: str, width: int) -> list[Step[str]]:
        """Children that were not given before."""
        at = self.given.get(state, 0)
        found = [Step(*each) for each in self.tree.get(state, ())[at : at + width]]
        self.given[state] = at + len(found)
        self.expanded += [state] if width > 1 else [step.state for step in found]
        return found


def test_levin_goes_back_where_beam_cannot() -> None:
    planted = Planted(MINDSTAR)
    found = asyncio.run(levin("", planted.grow, width=2, depth=3))
    assert (found.step.state, planted.expanded) == ("B1", ["", "A", "B"]) and sum(planted.given.values()) == 5
    assert found.reward == pytest.approx(0.57) and found.depth / found.reward == pytest.approx(3.5088, abs=1e-4)
    planted = Planted(MINDSTAR)
    found = asyncio.run(beam("", planted.grow, width=2, depth=3))
    assert found.step.state == "A1" and found.reward == pytest.approx(0.45) and planted.expanded == ["", "A"]


def test_levin_without_a_final_node_returns_the_best_that_it_found() -> None:
    assert asyncio.run(levin("", Planted(MINDSTAR).grow, width=2, depth=1)).step.state == "A"
    zero: Tree = {"": [("A", 0.0, True), ("B", 0.5, False)], "B": [("B1", 0.5, True)]}
    assert asyncio.run(levin("", Planted(zero).grow, width=2, depth=3)).step.state == "B1", "worth nothing: taken last"


def test_beam_asks_for_no_more_than_width_times_depth() -> None:
    deep: Tree = {"x" * i: [("x" * (i + 1), 0.9, False)] * 4 for i in range(9)}
    planted = Planted(deep)
    assert asyncio.run(beam("", planted.grow, width=4, depth=3)).step.state == "xxx"
    assert sum(planted.given.values()) == 12


def test_the_bound_by_hand() -> None:
    assert bound(Node(Step("a", 0, False), 1, 1, visits=2, total=0.8), 5) == pytest.approx(1.2971, abs=1e-4)
    assert bound(Node(Step("b", 0, False), 1, 1, visits=3, total=0.9), 5) == pytest.approx(1.0324, abs=1e-4)
    assert bound(Node(Step("c", 0, False), 1, 1), 5) == math.inf


def test_uct_visits_two_arms_as_reckoned_by_hand() -> None:
    arms: Tree = {"": [("A", 0.9, True), ("B", 0.1, True)]}
    orders: list[str] = []
    for simulations in range(1, 11):
        root = asyncio.run(uct("", Planted(arms).grow, simulations, lambda depth: 2, 3))
        orders.append("".join(child.step.state * child.visits for child in root.children))
    assert orders[-1] == "AAAAAAAABB" and root.mean == pytest.approx(0.74)
    visits = [
        "A" if len(b) and b.count("A") > a.count("A") else "B" for a, b in zip(["", *orders], orders, strict=False)
    ]
    assert "".join(visits) == "ABAAAAABAA"


def test_uct_backs_up_through_a_tree_as_reckoned_by_hand() -> None:
    tree: Tree = {
        "": [("A", 0.5, False), ("B", 0.4, True)],
        "A": [("A1", 1.0, True), ("A2", 0.0, True)],
    }
    planted = Planted(tree)
    root = asyncio.run(uct("", planted.grow, 8, lambda depth: 2, 3))
    a, b = root.children
    assert [(n.step.state, n.visits, round(n.total, 9)) for n in (a, b, *a.children)] == [
        ("A", 5, 3.5),
        ("B", 3, 1.2),
        ("A1", 3, 3.0),
        ("A2", 1, 0.0),
    ]
    assert (root.visits, round(root.total, 9)) == (8, 4.7) and planted.expanded == ["A", "B", "A1", "A2"]
    assert best_path(root).step.state == "A1"


def test_uct_finds_a_branch_that_greedy_misses_and_with_random_rewards_it_does_not_prefer_it() -> None:
    tree: Tree = {
        "": [("easy", 0.6, False), ("hard", 0.4, False)],
        "easy": [("easy1", 0.3, True), ("easy2", 0.3, True)],
        "hard": [("hard1", 1.0, True), ("hard2", 0.2, True)],
    }
    root = asyncio.run(uct("", Planted(tree).grow, 40, lambda depth: 2, 3))
    share = {child.step.state: child.visits / root.visits for child in root.children}
    assert share["hard"] > 0.5 and best_path(root).step.state == "hard1"
    assert asyncio.run(beam("", Planted(tree).grow, 2, 3)).step.state == "easy1"
    flat: Tree = {state: [(name, 0.5, final) for name, _, final in steps] for state, steps in tree.items()}
    root = asyncio.run(uct("", Planted(flat).grow, 40, lambda depth: 2, 3))
    assert {child.visits for child in root.children} == {20}, "the null control: equal rewards, equal visits"


def test_a_tree_without_steps_ends() -> None:
    empty: Tree = {}
    for found in (levin("", Planted(empty).grow, 2, 3), beam("", Planted(empty).grow, 2, 3)):
        assert asyncio.run(found).step.state == ""
    root = asyncio.run(uct("", Planted(empty).grow, 5, lambda depth: 2, 3))
    assert root.visits == 5 and best_path(root) is root
