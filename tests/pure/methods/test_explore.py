import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from pydantic import JsonValue

from core.clock import ManualClock
from core.codec import decode, encode, unpack_ids
from core.config import MethodConfig, NumberAnswer, SamplerConfig
from core.errors import ConfigError, PromptError, ProofError, Unavailable, VersionError
from core.messages import BASE, Candidate, Group, Outcome, PolicyRef, Prompt, Sampling, Scored, Vote
from core.objectives import Grpo
from core.protocols import History, Method, Policy, Votes
from methods import recipes
from methods.data.prompts import as_prompt
from methods.explore import NO_VOTES, explore, outcome, sample_votes, settle, tokens_in
from methods.scripted_policy import STOP_ID, ScriptedPolicy, right_answer
from methods.selectors.advantages import Advantages
from methods.selectors.winners import Winners
from tests.pure.examples import completion

PROMPT = as_prompt("How many?")
LMSI = recipes.build(MethodConfig())
UNVOTED = recipes.build(MethodConfig(recipe="unvoted"))


def explored(method: Method, policy: Policy, prompt: Prompt = PROMPT, votes: Votes = NO_VOTES) -> Outcome:
    return asyncio.run(explore(method, prompt, policy, lease_id="l", place=7, clock=ManualClock(3.0), votes=votes))


def right_ratio(outcomes: Sequence[Outcome]) -> float:
    judged = [one.scored[0] for one in outcomes if one.examples]
    return sum(one.verdict.winner == right_answer(one.group.prompt) for one in judged) / len(judged)


def test_exploring_a_prompt_gives_votes_winners_and_the_tokens_spent() -> None:
    policy = ScriptedPolicy(accuracy={0: 0.9})
    found = explored(LMSI, policy)
    group, verdict = found.scored[0].group, found.scored[0].verdict
    assert (found.lease_id, found.place, found.prompt_id, found.failure) == ("l", 7, PROMPT.id, None)
    assert verdict.winner == right_answer(PROMPT) and verdict.share >= 0.5 and len(group.candidates) == 8
    assert [vote.answer for vote in found.votes] == list(verdict.answers)
    assert {(vote.by, vote.cast_at, vote.prompt_id) for vote in found.votes} == {("sample", 3.0, PROMPT.id)}
    assert len({vote.id for vote in found.votes}) == 8
    winners = {c.completion_ids for c, score in zip(group.candidates, verdict.scores, strict=True) if score}
    assert {completion(example) for example in found.examples} == winners
    assert found.tokens == policy.tokens["explore"] == tokens_in([group]) > 0
    assert decode(Outcome, encode(found)) == found


def test_a_group_without_a_majority_is_dropped_and_counted_and_keeps_its_votes() -> None:
    found = explored(LMSI, ScriptedPolicy(accuracy={0: 0.0}, wrong_answers=500))
    assert found.drops == {"low_share": 1} and not found.examples and len(found.votes) == 8 and found.tokens > 0
    mute = explored(LMSI, ScriptedPolicy(unparsable_ratio=1.0))
    assert mute.drops == {"no_winner": 1} and {vote.answer for vote in mute.votes} == {None}


def test_what_was_cut_off_is_never_imitated() -> None:
    found = explored(UNVOTED, ScriptedPolicy(accuracy={0: 1.0}, cut_ratio=1.0))
    assert found.drops == {"no_winner": 1}
    tight = explored(recipes.build(MethodConfig(sampler=SamplerConfig(max_tokens=4))), ScriptedPolicy())
    assert not tight.examples and tight.tokens == 8 * 4


def test_the_vote_is_righter_than_its_samples_and_its_null_control_is_not() -> None:
    """All of `explore` with five seeds and no answer key: a Prompt has no field for one."""
    for seed in range(5):
        policy = ScriptedPolicy(seed, {0: 0.5})
        prompts = [as_prompt(f"question {index}") for index in range(150)]
        voted = [explored(LMSI, policy, prompt) for prompt in prompts]
        unvoted = [explored(UNVOTED, policy, prompt) for prompt in prompts]
        assert right_ratio(voted) > 0.9
        assert 0.35 < right_ratio(unvoted) < 0.65
        assert all(len(one.examples) == 1 for one in unvoted)


def test_exploring_twice_with_the_same_seed_gives_the_same_outcome() -> None:
    assert explored(LMSI, ScriptedPolicy(4)) == explored(LMSI, ScriptedPolicy(4)) != explored(LMSI, ScriptedPolicy(5))


def test_a_late_vote_settles_the_stored_group_again() -> None:
    policy = ScriptedPolicy(accuracy={0: 0.9})
    first = explored(LMSI, policy)
    groups, stored = [one.group for one in first.scored], first.votes
    asked = policy.calls

    def again(*late: Vote) -> Outcome:
        settled = asyncio.run(settle(LMSI, groups, Votes((*stored, *late)), History(), policy))
        return outcome(settled, lease_id="l", place=7, prompt_id=PROMPT.id)

    assert again().examples == first.examples
    against = [
        Vote(id=name, prompt_id=PROMPT.id, answer=right_answer(PROMPT), weight=-1, by="person", voter=name)
        for name in "abcdefgh"
    ]
    assert not again(*against).examples and again(*against).drops
    assert again(*against[:1]).examples
    assert policy.calls == asked


@pytest.mark.parametrize("error", [PromptError("too long"), ValueError("too long")])
def test_a_failed_prompt_is_data(error: Exception) -> None:
    found = explored(LMSI, ScriptedPolicy(fail=lambda prompt, call: error))
    assert found.failure == f"{type(error).__name__}: too long" and not found.votes and not found.scored


@pytest.mark.parametrize(
    "error", [Unavailable("x"), VersionError("x"), OSError("x"), TimeoutError("x"), ConfigError("x"), ProofError("x")]
)
def test_a_broken_policy_raises(error: Exception) -> None:
    with pytest.raises(type(error)):
        explored(LMSI, ScriptedPolicy(fail=lambda prompt, call: error))


def test_tokens_are_counted_even_when_scoring_fails() -> None:
    async def fail(groups: Sequence[Group], votes: Votes, policy: Policy, known: Sequence[Scored] = ()) -> list[Scored]:
        raise PromptError("the judge cannot read this")

    found = explored(replace(LMSI, score=fail), ScriptedPolicy())
    assert found.failure and found.tokens > 0


def test_a_judgement_that_the_scorer_adds_costs_tokens_and_casts_no_vote() -> None:
    async def with_judgement(
        groups: Sequence[Group], votes: Votes, policy: Policy, known: Sequence[Scored] = ()
    ) -> list[Scored]:
        scored = await LMSI.score(groups, votes, policy)
        own = tuple(c.model_copy(update={"id": f"judge of {c.id}"}) for c in scored[0].group.candidates)
        judge = scored[0].group.model_copy(update={"id": "judgement", "candidates": own})
        return [*scored, scored[0].model_copy(update={"group": judge})]

    plain, judged = explored(LMSI, ScriptedPolicy()), explored(replace(LMSI, score=with_judgement), ScriptedPolicy())
    assert judged.votes == plain.votes and judged.tokens == 2 * plain.tokens and len(judged.scored) == 2
    assert sample_votes([], judged.scored, 0) == []
    regrouped = plain.scored[0].group.model_copy(update={"id": "again"})
    assert tokens_in([plain.scored[0].group, regrouped]) == plain.tokens, "a candidate of two groups counts once"


def test_recipes_are_found_by_name_and_an_unknown_one_is_refused() -> None:
    assert {"lmsi", "ttrl", "unvoted"} <= set(recipes.names())
    for name, kind in {"lmsi": "sft", "unvoted": "sft", "ttrl": "grpo"}.items():
        exact = SamplerConfig(temperature=1)
        method = recipes.build(MethodConfig(recipe=name, answer=NumberAnswer(), sampler=exact))
        assert (method.name, method.objective.kind, recipes.card(name).supervision) == (name, kind, "none")
    with pytest.raises(ConfigError, match=r"no recipe 'lmsy'.*did you mean lmsi\? \(there are: .*lmsi, .*unvoted"):
        recipes.build(MethodConfig(recipe="lmsy"))


def test_an_option_that_a_recipe_has_not_is_refused_with_those_it_has_and_its_null_control_ignores_it() -> None:
    known = {"lmsi": "min_share, max_winners, distinct, early_stop", "ttrl": "min_share, train_n, divide_by_std, grpo"}
    for name, has in known.items():
        with pytest.raises(ConfigError) as caught:
            recipes.build(MethodConfig(recipe=name, options={"min_shares": 1}))
        assert str(caught.value) == f"recipe {name} has no setting method.options.min_shares; it has: {has}"
    ignored = recipes.build(MethodConfig(recipe="unvoted", options={"min_share": 0.9, "max_winners": 2, "x": 1}))
    assert (ignored.name, ignored.select) == ("unvoted", UNVOTED.select)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lmsi", {"min_share": 2}, r"method\.options\.min_share: Input should be less than or equal to 1 \(got 2\)"),
        ("lmsi", {"max_winners": 0}, r"method\.options\.max_winners: Input should be greater than or equal to 1"),
        ("ttrl", {"train_n": 1}, r"method\.options\.train_n: Input should be greater than or equal to 2"),
        ("ttrl", {"grpo": {"clip_low": 1}}, r"method\.options\.grpo\.clip_low: Input should be less than 1"),
    ],
)
def test_an_option_out_of_its_bounds_is_named(name: str, options: dict[str, JsonValue], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipes.build(MethodConfig(recipe=name, options=options))


def test_options_reach_the_parts_of_the_recipe() -> None:
    options: dict[str, JsonValue] = {"train_n": 4, "divide_by_std": False, "grpo": {"kl": 0, "mean": "sequence"}}
    method = recipes.build(MethodConfig(recipe="ttrl", options=options, sampler=SamplerConfig(temperature=1)))
    assert method.select == Advantages("ttrl", 4, divide_by_std=False)
    assert method.objective == Grpo(kl=0, mean="sequence") and method.columns == ("behaviour",)
    undistinct = recipes.build(MethodConfig(options={"max_winners": 3, "distinct": False}))
    assert undistinct.select == Winners("lmsi", 3, distinct=False)


@pytest.mark.parametrize("sampler", [SamplerConfig(n=1), SamplerConfig(temperature=0)])
def test_a_vote_of_one_is_refused(sampler: SamplerConfig) -> None:
    with pytest.raises(ConfigError, match="needs different samples to vote"):
        recipes.build(MethodConfig(sampler=sampler))


def generated(policy: ScriptedPolicy, sampling: Sampling, ref: PolicyRef | None = None) -> list[Candidate]:
    return asyncio.run(policy.generate(PROMPT, sampling, ref))


def test_a_scripted_version_is_as_right_as_its_script_says() -> None:
    policy = ScriptedPolicy(accuracy={0: 0.2, 1: 0.8})
    for version, chance in policy.accuracy.items():
        texts = [c.text for c in generated(policy, Sampling(n=1000), PolicyRef(version=version))]
        right = sum(text.endswith(f"is {right_answer(PROMPT)}.") for text in texts)
        assert right / 1000 == pytest.approx(chance, abs=0.05)


def test_greedy_is_one_text_and_calls_differ_in_their_ids() -> None:
    policy = ScriptedPolicy()
    first, second = (generated(policy, Sampling(n=2, temperature=0)) for _ in range(2))
    assert len({c.text for c in first + second}) == 1 and len({c.id for c in first + second}) == 4


def test_a_swap_moves_what_is_asked_and_an_unloaded_version_is_refused() -> None:
    policy = ScriptedPolicy()
    assert generated(policy, Sampling())[0].start == BASE
    policy.accuracy[1], policy.explore = 0.9, PolicyRef(version=1)
    assert generated(policy, Sampling())[0].start.version == 1
    with pytest.raises(VersionError, match=r"policy@v2 has no script \(loaded: v0, v1\)"):
        generated(policy, Sampling(), PolicyRef(version=2))


def test_a_whole_candidate_ends_with_the_stop_token_and_has_a_log_probability_for_each() -> None:
    candidate = generated(ScriptedPolicy(), Sampling(logprobs=True))[0]
    assert unpack_ids(candidate.completion_ids)[-1] == STOP_ID
    assert len(candidate.logprobs) == len(candidate.completion_ids)


def test_latency_is_waited_by_the_injected_sleep() -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    generated(ScriptedPolicy(latency_s=2.5, sleep=sleep), Sampling())
    assert waited == [2.5]


def test_the_right_answer_is_likelier_than_a_wrong_one() -> None:
    policy = ScriptedPolicy(accuracy={0: 0.9})

    async def total(text: str) -> float:
        return sum(await policy.logprobs(PROMPT, text))

    right, wrong = (asyncio.run(total(f"The answer is {answer}.")) for answer in (right_answer(PROMPT), "x"))
    assert right > wrong
