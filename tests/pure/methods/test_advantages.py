import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import ManualClock
from core.codec import pack_floats, pack_ids, unpack_floats
from core.config import MethodConfig, SamplerConfig
from core.errors import ConfigError, ObjectiveError
from core.messages import BASE, Candidate, Example, Group, Outcome, Scored, Verdict
from core.protocols import History
from methods import recipes
from methods.data.prompts import as_prompt
from methods.explore import explore
from methods.scripted_policy import ScriptedPolicy, right_answer
from methods.selectors.advantages import Advantages, relative
from methods.selectors.winners import Winners
from tests.pure.examples import advantage, behaviour, completion

PROMPT = as_prompt("How many?")
EXACT = SamplerConfig(temperature=1)


def judged(*scores: float, logprobs: bool = True) -> Scored:
    candidates = tuple(
        Candidate(
            id=f"c{index}",
            start=BASE,
            end=BASE,
            context_ids=pack_ids([1]),
            completion_ids=pack_ids([5, int(score), 2]),
            text="",
            logprobs=pack_floats([-0.5, -0.25, -index]) if logprobs else b"",
            finish="stop",
            render_id="r",
        )
        for index, score in enumerate(scores)
    )
    verdict = Verdict(scores=scores, answers=("1",) * len(scores), winner="1", share=0.5, margin=0.5)
    return Scored(group=Group(id="g", prompt=PROMPT, candidates=candidates), verdict=verdict)


def reinforced(select: Advantages, scored: Scored) -> list[Example]:
    return select([scored], History())


def explored(config: MethodConfig, policy: ScriptedPolicy) -> Outcome:
    method = recipes.build(config)
    return asyncio.run(explore(method, PROMPT, policy, lease_id="l", place=0, clock=ManualClock()))


def test_advantages_are_scores_less_their_mean_in_units_of_their_deviation() -> None:
    assert relative([1, 0, 0, 1]) == [1, -1, -1, 1]
    assert relative([1, 0, 0, 0]) == pytest.approx([3**0.5, -(3**-0.5), -(3**-0.5), -(3**-0.5)])
    assert relative([1, 0, 0, 0], divide_by_std=False) == [0.75, -0.25, -0.25, -0.25]


@given(st.lists(st.sampled_from([0.0, 1.0, 0.5, 2.0]), max_size=32))
def test_advantages_of_a_group_add_up_to_nothing_and_have_one_size(scores: list[float]) -> None:
    found = relative(scores)
    assert sum(found) == pytest.approx(0, abs=1e-9)
    if len(set(scores)) > 1:
        assert sum(a * a for a in found) / len(found) == pytest.approx(1)
    else:
        assert not any(found)


def test_every_candidate_is_reinforced_with_the_log_probabilities_it_was_sampled_with() -> None:
    found = reinforced(Advantages("ttrl"), judged(1, 0, 0, 1))
    assert [advantage(example) for example in found] == [1, -1, -1, 1]
    assert [unpack_floats(behaviour(example))[-1] for example in found] == [0, -1, -2, -3]
    assert {(e.group_id, e.method, e.render_id, str(e.policy)) for e in found} == {("g", "ttrl", "r", "policy@v0")}
    assert found == reinforced(Advantages("ttrl"), judged(1, 0, 0, 1)) and len({e.id for e in found}) == 4


def test_equal_scores_give_nothing_and_the_reason_is_told() -> None:
    select = Advantages("ttrl")
    for scores in [(1, 1, 1), (0, 0), (1,), ()]:
        assert (
            select([judged(*scores)], History()) == []
            and select.differing(judged(*scores), History()) == "equal_scores"
        )
    assert select.differing(judged(1, 0), History()) is None


def test_what_people_wrote_votes_and_is_not_reinforced() -> None:
    written = judged(1, 1, logprobs=False)
    written = written.model_copy(update={"group": written.group.model_copy(update={"by": "person"})})
    assert Advantages("ttrl").differing(written, History()) == "not_sampled"
    assert Advantages("ttrl")([written], History()) == []


def test_candidates_after_the_first_train_n_vote_and_are_not_trained_on() -> None:
    select = Advantages("ttrl", train_n=2)
    assert [advantage(e) for e in reinforced(select, judged(1, 0, 0, 0))] == [1, -1]
    assert (
        select([judged(1, 1, 0, 0)], History()) == []
        and select.differing(judged(1, 1, 0, 0), History()) == "equal_scores"
    )


def test_a_candidate_without_log_probabilities_is_refused() -> None:
    with pytest.raises(ObjectiveError, match=r"c0 has 3 tokens and 0 log-probabilities; .*logprobs=True"):
        Advantages("ttrl")([judged(1, 0, logprobs=False)], History())


def test_exploring_rewards_the_majority_and_punishes_the_rest() -> None:
    found = explored(MethodConfig(recipe="ttrl", sampler=EXACT), ScriptedPolicy(accuracy={0: 0.7}))
    group, verdict = found.scored[0].group, found.scored[0].verdict
    assert verdict.winner == right_answer(PROMPT) and len(found.examples) == 8
    up = {completion(e) for e in found.examples if advantage(e) > 0}
    assert up == {c.completion_ids for c, score in zip(group.candidates, verdict.scores, strict=True) if score}
    assert all(len(behaviour(e)) == len(completion(e)) > 0 for e in found.examples)


def test_a_unanimous_or_unsure_ballot_is_dropped_with_its_reason() -> None:
    config = MethodConfig(recipe="ttrl", sampler=EXACT)
    assert explored(config, ScriptedPolicy(accuracy={0: 1.0})).drops == {"equal_scores": 1}
    scattered = ScriptedPolicy(accuracy={0: 0.0}, wrong_answers=500)
    assert explored(config, scattered).drops == {"low_share": 1}
    every = config.model_copy(update={"options": {"min_share": 0.0}})
    assert len(explored(every, scattered).examples) == 8


@pytest.mark.parametrize("sampler", [SamplerConfig(temperature=0.7), SamplerConfig(temperature=1, top_p=0.9)])
def test_a_sampler_that_does_not_draw_from_the_policy_is_refused(sampler: SamplerConfig) -> None:
    with pytest.raises(ConfigError, match=r"set method\.sampler\.temperature=1 method\.sampler\.top_p=1"):
        recipes.build(MethodConfig(recipe="ttrl", sampler=sampler))


@pytest.mark.parametrize(("n", "train_n"), [(1, None), (4, 5)])
def test_nothing_to_compare_is_refused(n: int, train_n: int | None) -> None:
    with pytest.raises(ConfigError, match="train_n at most n"):
        recipes.build(
            MethodConfig(recipe="ttrl", options={"train_n": train_n}, sampler=SamplerConfig(n=n, temperature=1))
        )


def test_an_undistinct_winner_weighs_as_often_as_it_was_sampled() -> None:
    scored = judged(1, 1, 0, 1)
    assert [e.weight for e in Winners("lmsi", 64)([scored], History())] == [1]
    assert [e.weight for e in Winners("lmsi", 64, distinct=False)([scored], History())] == [3]
