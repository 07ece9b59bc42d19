"""Trees of steps by hand: what is drawn, what a step is worth, which path and which pairs are learned."""

import asyncio

import pytest

from core.codec import pack_ids, unpack_ids
from core.messages import Candidate, Example, Group, PolicyRef, Prompt, Sampling, Scored
from core.protocols import History, Votes
from methods.explore import settle
from methods.scorers.tree_values import whole_answers
from methods.scripted_policy import ScriptedPolicy
from tests.pure.methods.recipes.hand_made import PROMPT, method, settled

PATTERN = ("method.answer={kind: pattern, pattern: '([rw])$'}",)
TREE = {
    "": ["add. ", "guess. "],
    "add. ": ["right. ", "wrong. ", "so r"],
    "add. right. ": ["r"],
    "add. wrong. ": ["w"],
    "guess. ": ["or w"],
}
"""Text so far -> its next steps. Rollouts take the first at each place."""


class Planted(ScriptedPolicy):
    """Samples the steps of TREE in turn; its tokens are the bytes, behind those of the context."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.turn: dict[str, int] = {}

    async def generate(self, prompt: Prompt, sampling: Sampling, ref: PolicyRef | None = None) -> list[Candidate]:
        made = await super().generate(prompt, sampling)
        so_far = "" if prompt.new_messages else prompt.messages[-1].content
        return [self._told(one, prompt, so_far, bool(sampling.stop)) for one in made]

    def _told(self, made: Candidate, prompt: Prompt, so_far: str, step: bool) -> Candidate:
        self.turn[so_far] = at = self.turn.get(so_far, -1) + step
        text = TREE[so_far][at % len(TREE[so_far])] if step else ""
        while not step and so_far + text in TREE:
            text += TREE[so_far + text][0]
        ends = so_far + text not in TREE
        ids = pack_ids([*text.encode(), 0] if ends else list(text.encode()))
        context = prompt.sampled_ids or pack_ids(list(PROMPT.messages[-1].content.encode()))
        changed = {"text": text, "finish": "stop" if ends else "stop_string", "completion_ids": ids}
        return made.model_copy(update=changed | {"context_ids": context})


def drawn(**shape: object) -> list[Group]:
    made = method("alphallm", *PATTERN, *(f"method.options.{name}={value}" for name, value in shape.items()))
    return asyncio.run(made.sample(PROMPT, Planted()))


def text_of(example: Example, row: int = 0) -> str:
    return bytes(i for i in unpack_ids(example.rows[row].token_ids) if i).decode()


def learned_of(example: Example, row: int = 0) -> str:
    ids = unpack_ids(example.rows[row].token_ids)[-example.rows[row].targets :]
    return bytes(i for i in ids if i).decode()


def scored(recipe: str, groups: list[Group], *options: str) -> tuple[Scored, ...]:
    return settled(method(recipe, *PATTERN, *options), *groups).scored


def test_a_search_draws_one_group_for_the_steps_and_one_for_the_rollouts_of_each_partial_answer() -> None:
    groups = drawn(search="levin", width=3, depth=2, rollouts=1)
    root = groups[0]
    assert root.parent is None and [c.text for c in root.candidates] == ["add. ", "guess. "]
    by_parent = {(group.parent, group.candidates[0].text) for group in groups[1:]}
    add, guess = (candidate.id for candidate in root.candidates)
    assert {(add, "right. r"), (guess, "or w"), (add, "right. ")} <= by_parent
    steps = next(group for group in groups if (group.parent, group.candidates[0].text) == (add, "right. "))
    assert [c.text for c in steps.candidates] == ["right. ", "wrong. ", "so r"]
    assert steps.prompt.messages[-1].content == "add. " and not steps.prompt.new_messages
    assert steps.candidates[0].context_ids == root.candidates[0].context_ids + root.candidates[0].completion_ids
    assert len({group.id for group in groups}) == len(groups)


def test_uct_adds_a_step_a_simulation_and_what_it_adds_at_one_place_is_one_group() -> None:
    groups = drawn(simulations=2, root_width=2, rollouts=1)
    assert [c.text for c in groups[0].candidates] == ["add. ", "guess. "] and len(groups) == 3


def test_a_step_is_worth_the_part_of_the_whole_answers_behind_it_that_reach_the_majority_s() -> None:
    """Whole answers: of `add` r by its rollout, r and w by the rollouts of its steps, r by a step that ends; of `guess`
    w. So r has 3 of 5; add 3 of 4."""
    found = scored("alphallm", drawn(search="levin", width=3, depth=2, rollouts=1))
    values = {c.text: v for one in found for c, v in zip(one.group.candidates, one.verdict.scores, strict=True)}
    assert values["add. "] == 3 / 4 and values["guess. "] == 0
    assert values["right. "] == 1 and values["wrong. "] == 0 and values["so r"] == 1
    assert {one.verdict.winner for one in found} == {"r"} and {one.verdict.share for one in found} == {3 / 5}
    answers = {c.text: a for one in found for c, a in zip(one.group.candidates, one.verdict.answers, strict=True)}
    assert answers["add. "] is None and answers["so r"] == "r" and answers["or w"] == "w"


def test_whole_answers_are_whole() -> None:
    texts = {candidate.text for candidate in whole_answers(drawn(search="levin", width=3, depth=2, rollouts=1))}
    assert texts == {"add. right. r", "add. wrong. w", "add. so r", "guess. or w"}


def test_the_best_path_is_learned_whole_behind_the_question() -> None:
    made = method("mindstar", *PATTERN, "method.options.depth=2", "method.options.rollouts=1")
    groups = asyncio.run(made.sample(PROMPT, Planted()))
    (example,) = settled(made, *groups).examples
    assert learned_of(example) == "add. right. r" and text_of(example) == PROMPT.messages[-1].content + "add. right. r"
    assert example.method == "mindstar"


def test_a_path_that_does_not_reach_the_majority_and_a_tree_without_one_give_nothing() -> None:
    groups = drawn(search="levin", width=3, depth=2, rollouts=1)
    low = method("alphallm", *PATTERN, "method.options.min_share=0.7")
    assert settled(low, *groups).drops == {"low_share": len(groups)} and not settled(low, *groups).examples
    no_end = [group for group in groups if all(c.finish == "stop_string" for c in group.candidates)]
    assert settled(method("alphallm", *PATTERN), *no_end).scored == ()
    worse = [g for g in groups if g.parent is None or "guess" in g.prompt.messages[-1].content]
    assert [learned_of(e) for e in settled(method("alphallm", *PATTERN), *worse).examples] == ["guess. or w"]


def test_pairs_begin_at_the_same_place_and_the_widest_gaps_go_first() -> None:
    groups = drawn(search="levin", width=3, depth=2, rollouts=1)
    found = settled(method("cpl", *PATTERN, "method.options.max_pairs=9"), *groups).examples
    pairs = [(learned_of(each), learned_of(each, 1)) for each in found]
    assert pairs == [("right. ", "wrong. "), ("so r", "wrong. "), ("add. ", "guess. ")]
    for each in found:
        contexts = {row.token_ids[: -4 * row.targets] for row in each.rows}
        assert len(contexts) == 1, "both rows go on from the same beginning"
    one = settled(method("cpl", *PATTERN, "method.options.max_pairs=1"), *groups).examples
    assert [(learned_of(each), learned_of(each, 1)) for each in one] == pairs[:1]
    wide = settled(method("cpl", *PATTERN, "method.options.gap=0.8"), *groups).examples
    assert len(wide) == 2, "the first steps differ by 3/4 only"


def test_in_the_null_control_one_random_answer_stands_in_for_the_vote() -> None:
    options, winners = method("alphallm", *PATTERN, "method.options.unvoted=true"), set[str | None]()
    for seed in range(20):
        groups = asyncio.run(options.sample(PROMPT, Planted(seed)))
        winners |= {one.verdict.winner for one in settled(options, *groups).scored}
    assert winners == {"r", "w"}


def test_a_text_that_people_wrote_is_learned_beside_the_path() -> None:
    from tests.pure.methods.recipes.hand_made import correction

    made = method("alphallm", *PATTERN, "method.votes.quorum=1")
    groups = drawn(search="levin", width=3, depth=2, rollouts=1)
    found = asyncio.run(settle(made, groups, Votes((correction("It is r"),)), History(), ScriptedPolicy()))
    by = sorted(example.by for example in found.examples)
    assert by == ["person", "sample"]


@pytest.mark.parametrize("search", ["uct", "levin", "beam"])
def test_every_search_ends_within_its_calls(search: str) -> None:
    groups = drawn(search=search, width=2, depth=3, rollouts=2, simulations=3)
    assert groups[0].parent is None and 3 <= len(groups) <= 2 * 3 * 2
