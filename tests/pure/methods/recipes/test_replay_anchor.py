import asyncio

import pytest

from core.errors import ConfigError
from core.messages import BASE, Example, Group, PolicyRef
from core.protocols import Method
from methods.data.prompts import as_prompt
from methods.scripted_policy import ScriptedPolicy
from tests.pure.methods.recipes.texts import built, settled

PROMPTS = [as_prompt(f"question {number}") for number in range(1000)]


def sampled(method: Method, prompts: int = 1000) -> list[Group]:
    policy = ScriptedPolicy(accuracy={0: 0.9, 5: 0.9})
    policy.explore = PolicyRef(version=5)
    return [group for prompt in PROMPTS[:prompts] for group in asyncio.run(method.sample(prompt, policy, {}))]


def examples(method: Method, groups: list[Group]) -> list[Example]:
    return [example for group in groups for example in settled(method, group).examples]


def test_the_share_of_the_prompts_is_answered_by_the_base() -> None:
    method = built("replay_anchor", "method.sampler.n=2")
    groups = sampled(method)
    anchors = [group for group in groups if group.policy == BASE]
    assert len(anchors) == pytest.approx(100, abs=25)
    assert all(group.fixed for group in anchors)
    assert all(group.policy.version == 5 and not group.fixed for group in groups if group not in anchors)


def test_examples_of_the_base_never_grow_stale_and_the_others_do() -> None:
    method = built("replay_anchor", "method.options.share=0.5")
    made = examples(method, sampled(method, 40))
    assert {(example.policy.version, example.fixed) for example in made} == {(0, True), (5, False)}
    anchors = sum(example.fixed for example in made) / len(made)
    assert 0.3 < anchors < 0.7


def test_a_prompt_stays_an_anchor() -> None:
    method = built("replay_anchor", "method.options.share=0.3", "method.sampler.n=2")
    first, second = ([group.fixed for group in sampled(method, 100)] for _ in range(2))
    assert first == second and any(first) and not all(first)
    more = built("replay_anchor", "method.options.share=0.6", "method.sampler.n=2")
    assert all(now for was, now in zip(first, [group.fixed for group in sampled(more, 100)], strict=True) if was)


def test_the_null_control_has_no_anchor_and_learns_as_lmsi() -> None:
    null, lmsi = built("replay_anchor", "method.options.share=0"), built("lmsi")
    groups = sampled(null, 30)
    assert groups == sampled(lmsi, 30)
    assert [example.rows for example in examples(null, groups)] == [example.rows for example in examples(lmsi, groups)]


def test_a_window_of_nothing_but_anchors_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"method\.options\.share"):
        built("replay_anchor", "method.options.share=1")
