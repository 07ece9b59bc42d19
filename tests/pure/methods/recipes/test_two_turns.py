"""SCoRe and CCT by hand: what two attempts at one question are worth, and what of them is learned."""

import asyncio

import pytest

from core.codec import unpack_ids
from core.messages import Example, Prompt, Vote
from core.protocols import History, Method, Votes
from methods.explore import sample_votes, settle
from methods.scripted_policy import ScriptedPolicy
from tests.pure.methods.recipes.hand_made import PROMPT, method


class Fixed(ScriptedPolicy):
    """First attempts say `first`, and the second attempt behind each says its `second`."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(accuracy={0: 0.5})
        self.first, self.second = first, dict(zip((f"{i} {a}" for i, a in enumerate(first)), second, strict=True))

    async def generate(self, prompt, sampling, ref=None):  # type: ignore[no-untyped-def]
        made = await super().generate(prompt, sampling, ref)
        told = [self._said(prompt, i) for i in range(len(made))]
        return [c.model_copy(update={"text": text, "finish": "stop"}) for c, text in zip(made, told, strict=True)]

    def _said(self, prompt: Prompt, index: int) -> str:
        if len(prompt.messages) == 1:
            return f"{index} {self.first[index]}"
        return self.second[prompt.messages[1].content]


def test_without_a_first_attempt_there_is_nothing_to_judge() -> None:
    made = method("score")
    assert asyncio.run(made.score([], Votes(), ScriptedPolicy())) == []


def learned(made: Method, policy: Fixed, *, stage: int = 2, votes: tuple[Vote, ...] = ()) -> list[Example]:
    async def both() -> list[Example]:
        groups = await made.sample(PROMPT, policy)
        history = History(tuned={"stage": float(stage)})
        return list((await settle(made, groups, Votes(votes), history, policy)).examples)

    return asyncio.run(both())


def judged(recipe: str, *options: str) -> Method:
    """Answers are the last letter: `r` is the majority's wherever it has one more vote."""
    pattern = ("method.answer={kind: pattern, pattern: '([rw])$'}", "method.sampler.n=4")
    return method(recipe, *pattern, *options)


def advantages(examples: list[Example]) -> list[float]:
    return [round(example.rows[0].spans[-1].advantage, 4) for example in examples]


def kls(examples: list[Example]) -> set[tuple[float, ...]]:
    return {tuple(e.rows[0].spans[-1].kl for e in examples[turn::2]) for turn in (0, 1)}


# four first attempts with a winner `r`: one more voter than in the numbers of the paper's notes breaks the tie
FIRST, SECOND = "wwrrr", "rwrwr"


def test_turns_are_rewarded_as_reckoned_by_hand() -> None:
    made = judged("score", "method.sampler.n=5", "method.options.stage_1_windows=0")
    found = advantages(learned(made, Fixed(FIRST, SECOND)))
    shaped = [11, 0, 1, -10, 1]
    mean = sum(shaped) / 5
    assert found[0::2] == [-0.6, -0.6, 0.4, 0.4, 0.4]
    assert found[1::2] == [round(value - mean, 4) for value in shaped]


def test_the_numbers_of_four_attempts() -> None:
    """(r1, r2) = (0,1), (0,0), (1,1), (1,0): a person breaks the tie of the first attempts."""
    made = judged("score", "method.options.stage_1_windows=0")
    vote = Vote(id="v", prompt_id=PROMPT.id, answer="r", by="person", voter="ann", cast_at=1.0)
    examples = learned(made, Fixed("wwrr", "rwrw"), votes=(vote,))
    assert advantages(examples)[1::2] == [10.5, -0.5, 0.5, -10.5]
    assert advantages(examples)[0::2] == [-0.5, -0.5, 0.5, 0.5]
    assert kls(examples) == {(1.0,) * 4}


def test_in_stage_1_only_the_second_attempt_is_rewarded_and_only_the_first_is_held() -> None:
    made = judged("score", "method.sampler.n=5")
    examples = learned(made, Fixed(FIRST, SECOND), stage=1)
    assert advantages(examples)[0::2] == [0.0] * 5, "examples without an advantage stay"
    assert advantages(examples)[1::2] == [0.4, -0.6, 0.4, -0.6, 0.4]
    assert kls(examples) == {(10.0,) * 5, (0.0,) * 5}


def test_alpha_0_is_the_null_control_in_which_copying_costs_nothing() -> None:
    made = judged("score", "method.sampler.n=5", "method.options.alpha=0")
    found = advantages(learned(made, Fixed(FIRST, FIRST)))
    assert found[0::2] == found[1::2], "a second attempt that copies is worth what the first is"


def test_stages_follow_the_windows() -> None:
    from core.protocols import Facts

    made = judged("score", "method.options.stage_1_windows=3")
    assert made.tune is not None and made.tuned == {"stage": 1.0}
    stages = [made.tune(Facts(window=w, prompts=4, kept=4, measured={}, tuned=made.tuned))["stage"] for w in range(5)]
    assert stages == [1, 1, 1, 2, 2]


@pytest.mark.parametrize("recipe", ["score", "cct"])
def test_the_second_turn_is_behind_the_sampled_first_and_its_words_are_in_no_loss(recipe: str) -> None:
    made = judged(recipe, "method.sampler.n=5")
    policy = Fixed(FIRST, SECOND)
    groups = asyncio.run(made.sample(PROMPT, policy))
    first, *seconds = groups
    assert [group.parent for group in seconds] == [candidate.id for candidate in first.candidates]
    for group, candidate in zip(seconds, first.candidates, strict=True):
        assert group.prompt.sampled_ids == candidate.context_ids + candidate.completion_ids
        assert group.prompt.root == PROMPT.id and len(group.prompt.messages) == 3
    for example in learned(made, policy):
        context, answer = example.rows[0].spans
        assert context.weight == 0 and answer.weight == 1
        assert len(unpack_ids(example.rows[0].token_ids)) == context.tokens + answer.tokens


def test_what_a_sample_says_twice_is_one_vote() -> None:
    made, policy = judged("score", "method.sampler.n=5"), Fixed(FIRST, SECOND)

    async def voted() -> list[Vote]:
        groups = await made.sample(PROMPT, policy)
        settled = await settle(made, groups, Votes(), History(), policy)
        assert settled.scored[0].verdict.winner == "r" and settled.scored[0].verdict.share == 0.6
        return sample_votes(groups, settled.scored, 1.0)

    assert [vote.answer for vote in asyncio.run(voted())] == list(FIRST)


def test_cct_imitates_right_second_answers_and_weighs_kept_and_mended_ones() -> None:
    examples = learned(judged("cct", "method.sampler.n=5", "method.options.share=0.4"), Fixed(FIRST, SECOND))
    assert [round(example.weight, 4) for example in examples] == [1.2, 0.8, 0.8], "mended, kept, kept"
    none = learned(judged("cct", "method.sampler.n=5", "method.options.share=0"), Fixed(FIRST, SECOND))
    assert [example.weight for example in none] == [2.0]
    assert learned(judged("cct", "method.sampler.n=5", "method.options.min_share=0.7"), Fixed(FIRST, SECOND)) == []
