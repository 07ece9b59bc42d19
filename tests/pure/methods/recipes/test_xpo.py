"""xpo and online_dpo: pairs of two arms, and of texts that people compared."""

import asyncio
from collections.abc import Sequence

import pytest
import torch

from core.codec import decode, encode, unpack_floats, unpack_ids
from core.config import SamplerConfig
from core.errors import ConfigError, PromptError
from core.messages import BASE, Candidate, Example, Group, Outcome, PolicyRef, Prompt, Vote
from core.objectives import Dpo
from core.protocols import Method, Votes
from methods.explore import NO_HISTORY, Settled, settle, tokens_in
from methods.samplers.arms import Arms
from methods.scripted_policy import ScriptedPolicy
from tests.pure.methods.recipes.people import PROMPT, built, compared, group, learned, vote
from tests.pure.training.tabular import sums
from training.objectives.dpo import dpo

RIGHT, WRONG = "2+3=5. The answer is 5.", "The answer is 6."
PEOPLE = ("xpo", "method.options.oracle=people")


def settled(method: Method, groups: Sequence[Group], *cast: Vote, policy: ScriptedPolicy | None = None) -> Settled:
    return asyncio.run(settle(method, groups, Votes(cast), NO_HISTORY, policy or ScriptedPolicy()))


def arms(current: Sequence[str], base: Sequence[str]) -> list[Group]:
    return [group(*current), group(*base, version=0, fixed=True)]


def texts(example: Example) -> tuple[str, ...]:
    return tuple(learned(row) for row in example.rows)


def marked(example: Example) -> tuple[bool, ...]:
    return tuple("optimism" in row.columns for row in example.rows)


# --- arms ---


def test_the_base_arm_has_the_tokens_of_version_0_whatever_explores() -> None:
    def policy() -> ScriptedPolicy:
        made = ScriptedPolicy(accuracy={0: 0.3, 4: 0.9})
        made.explore = PolicyRef(version=4)
        return made

    current, base = asyncio.run(Arms(SamplerConfig(n=6))(PROMPT, policy()))
    alone = ScriptedPolicy(accuracy={0: 0.3})
    (expected,) = asyncio.run(Arms(SamplerConfig(n=6))(PROMPT, alone))[:1]
    assert [c.completion_ids for c in base.candidates] == [c.completion_ids for c in expected.candidates]
    assert base.fixed and {c.start for c in base.candidates} == {BASE}
    assert not current.fixed and {c.start.version for c in current.candidates} == {4}


# --- oracle=vote ---


def test_a_sample_that_reached_the_majority_beats_the_other_arms_sample_that_did_not() -> None:
    made = settled(built("xpo"), arms([RIGHT, RIGHT, WRONG, RIGHT], [WRONG, RIGHT, RIGHT, "The answer is 9."]))
    assert [texts(example) for example in made.examples] == [
        (RIGHT, WRONG),
        (RIGHT, WRONG),
        (RIGHT, "The answer is 9."),
    ]
    assert [marked(example) for example in made.examples] == [(False, True), (True, False), (False, True)]
    assert made.drops == {"not_a_pair": 2}


def test_the_mark_is_on_each_token_of_the_base_arms_row_whether_it_won_or_lost() -> None:
    (example,) = settled(built("xpo"), arms([WRONG, RIGHT], [RIGHT, RIGHT])).examples
    assert unpack_floats(example.rows[0].columns["optimism"]) == [1.0] * example.rows[0].targets
    assert "optimism" not in example.rows[1].columns


def test_ties_and_samples_without_an_answer_give_no_pair() -> None:
    tied = arms([RIGHT, WRONG, RIGHT], [RIGHT, WRONG, "I do not know."])
    assert not settled(built("xpo"), tied).examples
    unsure = arms([RIGHT, "The answer is 7.", "The answer is 8."], [WRONG, "The answer is 1.", "The answer is 2."])
    made = settled(built("xpo"), unsure)
    assert not made.examples and made.drops == {"not_a_pair": 2, "low_share": 1}


def test_a_pair_is_as_old_as_its_newer_arm_and_its_tokens_count_once() -> None:
    groups = arms([RIGHT, RIGHT], [WRONG, RIGHT])
    made = settled(built("xpo"), groups)
    (example,) = made.examples
    assert example.policy.version == 3 and not example.fixed
    outcome = Outcome(lease_id="l", place=0, prompt_id=PROMPT.id, scored=made.scored, examples=made.examples)
    assert outcome.version == 3
    assert tokens_in([*groups, *(one.group for one in made.scored)]) == tokens_in(groups)


# --- oracle=people ---


def test_a_comparison_that_enough_people_make_is_a_pair_and_others_are_none() -> None:
    method, sampled = built(*PEOPLE, "method.votes.quorum=2"), [group(WRONG)]
    assert not settled(method, sampled, compared("ann", RIGHT, WRONG)).examples
    assert not settled(method, sampled, compared("shop/ann", RIGHT, WRONG), compared("shop/bob", RIGHT, WRONG)).examples
    both = [compared("ann", RIGHT, WRONG), compared("bob", RIGHT, WRONG)]
    (example,) = settled(method, sampled, *both).examples
    assert learned_text(example) == (RIGHT, WRONG) and marked(example) == (False, False)
    assert example.policy.version == 3 and example.by == "sample"
    left_out = both[1].model_copy(update={"counted": False})
    assert not settled(method, sampled, both[0], left_out).examples
    against = [compared(name, WRONG, RIGHT) for name in ("cid", "dan")]
    assert not settled(method, sampled, *both, *against).examples, "as many say the opposite"
    (turned,) = settled(method, sampled, *both, *against, compared("eve", WRONG, RIGHT)).examples
    assert learned_text(turned) == (WRONG, RIGHT)


def learned_text(example: Example) -> tuple[str, ...]:
    """As `texts`, for rows that `ScriptedPolicy.render` made, whose tokens are bytes plus one."""

    return tuple(
        bytes(id - 1 for id in unpack_ids(row.token_ids)[-row.targets :] if id).decode() for row in example.rows
    )


@pytest.mark.parametrize(
    ("versions", "marks"), [((2, 0), (False, True)), ((0, 2), (True, False)), ((0, 0), (False,) * 2)]
)
def test_a_text_of_the_base_is_marked_if_it_was_compared_with_another_versions(
    versions: tuple[int, int], marks: tuple[bool, bool]
) -> None:
    method = built(*PEOPLE, "method.votes.quorum=1")
    (example,) = settled(method, [group(WRONG)], compared("ann", RIGHT, WRONG, versions)).examples
    assert learned_text(example) == (RIGHT, WRONG) and marked(example) == marks
    assert example.policy.version == 3 and not example.fixed


def test_pairs_of_people_have_ids_of_their_own_each_time_that_the_prompt_is_explored() -> None:
    method, cast = built(*PEOPLE, "method.votes.quorum=1"), compared("ann", RIGHT, WRONG)
    first = settled(method, [group(WRONG)], cast).examples[0]
    assert settled(method, [group(WRONG)], cast).examples[0] == first
    later = settled(method, [group(WRONG, version=4)], cast).examples[0]
    assert later.group_id != first.group_id and later.id != first.id


def test_a_compared_text_that_the_engine_cannot_hold_is_left_out() -> None:
    class Small(ScriptedPolicy):
        async def render(self, prompt: Prompt, text: str) -> Candidate:
            raise PromptError("too long")

    method = built(*PEOPLE, "method.votes.quorum=1")
    assert not settled(method, [group(WRONG)], compared("ann", RIGHT, WRONG), policy=Small()).examples


def test_votes_of_older_runs_still_decode() -> None:
    old = vote("ann", answer="5")
    body = old.model_dump(exclude={"pair"})
    assert Vote.model_validate(body) == old and old.pair is None
    new = compared("ann", RIGHT, WRONG)
    assert decode(Vote, encode(new)) == new


# --- the null control, and alpha 0 ---


@pytest.mark.parametrize("oracle", ["vote", "people"])
def test_flipped_labels_win_half_of_the_time(oracle: str) -> None:
    options = (f"method.options.oracle={oracle}", "method.votes.quorum=1")
    honest, null = built("xpo", *options), built("xpo", *options, "method.options.flipped=true")
    won = {honest.name: 0, "null": 0}
    for place in range(400):
        groups = [
            each.model_copy(
                update={
                    "id": f"{each.id}-{place}",
                    "candidates": tuple(c.model_copy(update={"id": f"{c.id}-{place}"}) for c in each.candidates),
                }
            )
            for each in arms([RIGHT, RIGHT], [WRONG, RIGHT])
        ]
        cast = [compared("ann", RIGHT, WRONG)] if oracle == "people" else []
        for name, method in ((honest.name, honest), ("null", null)):
            (example,) = settled(method, groups, *cast).examples
            won[name] += example.rows[0].targets > example.rows[1].targets
    assert won["xpo"] == 400 and abs(won["null"] - 200) < 40


def test_online_dpo_is_xpo_without_optimism_bit_for_bit() -> None:
    groups = arms([RIGHT, RIGHT, WRONG], [WRONG, RIGHT, RIGHT])
    bold, plain = (settled(built(name), groups).examples for name in ("xpo", "online_dpo"))
    assert [example.rows for example in bold] == [example.rows for example in plain]
    objective = built("xpo", "method.options.dpo.optimism=0").objective
    published = Dpo(beta=0.1, reference="base").model_dump()
    assert objective.model_dump() == built("online_dpo").objective.model_dump() == published
    pair = sums([[-10.0, -12.0]], [[-11.0, -11.5]], marked=[[False, True]])
    unmarked = sums([[-10.0, -12.0]], [[-11.0, -11.5]])
    assert torch.equal(dpo(pair, Dpo(beta=0.1)), dpo(unmarked, Dpo(beta=0.1)))


def test_the_loss_of_the_default_optimism_worked_by_hand() -> None:
    objective = built("xpo").objective
    assert isinstance(objective, Dpo) and objective.reference == "base"
    pair = sums([[-10.0, -12.0]], [[-11.0, -11.5]], marked=[[False, True]])
    assert dpo(pair, objective).item() == pytest.approx(0.620837, abs=1e-6)


def test_equal_samples_are_refused_for_a_vote_and_need_none_for_people() -> None:
    with pytest.raises(ConfigError, match=r"recipe online_dpo needs different samples"):
        built("online_dpo", "method.sampler.n=1")
    assert built(*PEOPLE, "method.sampler.n=1").rows == 2
