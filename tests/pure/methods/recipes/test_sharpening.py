"""RLHF-Sharpening: from the selector to the loss, on policies of a few one-token texts."""

import asyncio
import math
import random
from collections.abc import Sequence

import pytest
import torch

from core.clock import ManualClock
from core.codec import pack_floats, pack_ids, unpack_floats, unpack_ids
from core.errors import ConfigError
from core.messages import BASE as V0
from core.messages import Candidate, Example, Group, PolicyRef, Prompt, Sampling
from core.objectives import Sharpen
from core.protocols import History, Method
from methods.data.prompts import as_prompt
from methods.explore import explore, settle_again
from methods.scripted_policy import ScriptedPolicy
from tests.pure.methods.recipes.hand_made import PROMPT, candidate, method, settled, texts
from tests.pure.methods.recipes.test_every_recipe import again
from tests.pure.training.tabular import minimized, responses
from training.objectives.sharpen import sharpen

BASE = {"a": 0.5, "b": 0.3, "c": 0.2}
NAMES = list(BASE)
BOLD = "method.options.sharpen.optimism=0.1"


class Tabular(ScriptedPolicy):
    """Every text is one token. All versions but the base model find all texts equally likely."""

    def __init__(self) -> None:
        super().__init__()
        self.explore = PolicyRef(version=3)
        self.scored: list[str] = []
        self._lots = random.Random(7)

    async def generate(self, prompt: Prompt, sampling: Sampling, ref: PolicyRef | None = None) -> list[Candidate]:
        ref = ref or self.explore
        law = list(BASE.values()) if ref == V0 else [1 / 3] * 3
        drawn = self._lots.choices(range(3), law, k=sampling.n)
        return [
            Candidate(
                id=f"{prompt.id}-{ref}-{place}",
                start=ref,
                end=ref,
                context_ids=pack_ids([9]),
                completion_ids=pack_ids([one]),
                text=NAMES[one],
                logprobs=pack_floats([math.log(law[one])]),
                finish="stop",
                render_id="r",
            )
            for place, one in enumerate(drawn)
        ]

    async def logprobs(self, prompt: Prompt, text: str, ref: PolicyRef | None = None) -> list[float]:
        assert ref == V0
        self.scored.append(text)
        return [math.log(BASE[text])]


def explored(made: Method, prompts: int, policy: Tabular | None = None) -> list[Example]:
    policy, found = policy or Tabular(), []
    for place in range(prompts):
        work = explore(
            made, as_prompt(f"q {place}"), policy, lease_id="l", place=place, clock=ManualClock(1.0), history=History()
        )
        found += asyncio.run(work).examples
    return found


def reached(examples: Sequence[Example], settings: Sharpen) -> list[float]:
    """The probabilities that the loss of these examples leads to."""
    rows = [[unpack_ids(row.token_ids)[-1] for row in example.rows] for example in examples]
    rewards = [span.advantage for example in examples for row in example.rows for span in row.spans if span.weight > 0]
    base = torch.tensor(list(BASE.values()), dtype=torch.float64).log()

    def loss(theta: torch.Tensor) -> torch.Tensor:
        pairs = responses(theta, rows, base)
        pairs.advantage_N = torch.tensor(rewards, dtype=torch.float64)
        return sharpen(pairs, settings) / len(examples)

    return minimized(loss, 3).tolist()


def worked(*finish: str) -> Group:
    nats = [[-3.0, -3.0], [-2.0, -2.0, -0.5], [-1.0], [-2.0] * 4]
    ends = [*finish, *["stop"] * 4][:4]
    made = [candidate(t, t, nats=n, finish=f) for t, n, f in zip("wxyz", nats, ends, strict=True)]  # type: ignore[arg-type]
    return Group(id="g", prompt=PROMPT, candidates=tuple(made), fixed=True)


def rewards_of(example: Example) -> list[float]:
    return [row.spans[-1].advantage for row in example.rows]


def test_disjoint_pairs_carry_the_base_models_log_probability_as_reward() -> None:
    one = worked()
    first, second = settled(method("sharpening"), one).examples
    assert texts(first, one) == ["w", "x"] and rewards_of(first) == [-6.0, -4.5]
    assert texts(second, one) == ["y", "z"] and rewards_of(second) == [-1.0, -8.0]
    mean = settled(method("sharpening", "method.options.norm=length"), one).examples
    assert [rewards_of(each) for each in mean] == [[-3.0, -1.5], [-1.0, -2.0]]
    assert first.fixed and not any("optimism" in row.columns for row in first.rows)


def test_samples_that_were_cut_off_and_equal_texts_make_no_pair() -> None:
    one = worked("length")
    (pair,) = settled(method("sharpening"), one).examples
    assert texts(pair, one) == ["x", "y"]
    twins = tuple(candidate("same", name, nats=[-1.0]) for name in ("one", "two"))
    assert not settled(method("sharpening"), Group(id="g", prompt=PROMPT, candidates=twins, fixed=True)).examples


@pytest.mark.parametrize(
    ("beta", "sharp"),
    [(1.0, (0.6579, 0.2368, 0.1053)), (0.5, (0.7812, 0.1687, 0.05)), (0.25, (0.9191, 0.0715, 0.0094))],
)
def test_from_selector_to_loss_the_base_is_raised_to_one_plus_one_over_beta(
    beta: float, sharp: tuple[float, ...]
) -> None:
    made = method("sharpening", f"method.options.sharpen.beta={beta}")
    assert isinstance(made.objective, Sharpen)
    assert reached(explored(made, 20), made.objective) == pytest.approx(sharp, abs=1e-3)


def test_both_arms_together_lead_to_the_same_optimum() -> None:
    made = method("sharpening", "method.options.sharpen.optimism=1e-9")
    assert reached(explored(made, 20), Sharpen()) == pytest.approx((0.6579, 0.2368, 0.1053), abs=1e-3)


def test_the_null_control_leads_back_to_the_base_model() -> None:
    made = method("sharpening", "method.options.shuffled=true")
    assert reached(explored(made, 300), Sharpen()) == pytest.approx(list(BASE.values()), abs=0.04)


def test_with_optimism_each_pair_is_of_the_policy_and_of_the_base_whose_row_is_marked() -> None:
    examples = explored(method("sharpening", BOLD), 10)
    assert len(examples) > 20
    for example in examples:
        own, other = example.rows
        assert "optimism" not in own.columns and unpack_floats(other.columns["optimism"]) == [1.0]
        assert example.policy == PolicyRef(version=3) and not example.fixed
        tokens = [unpack_ids(row.token_ids)[-1] for row in example.rows]
        assert rewards_of(example) == pytest.approx([math.log(BASE[NAMES[token]]) for token in tokens])


def test_texts_of_the_policy_are_scored_by_the_base_model_once() -> None:
    made, policy = method("sharpening", BOLD), Tabular()
    work = explore(made, PROMPT, policy, lease_id="l", place=0, clock=ManualClock(1.0))
    outcome = asyncio.run(work)
    assert len(policy.scored) == 8 and len(outcome.sampled_ids) == 2
    second = asyncio.run(settle_again(made, again(outcome, (), {}), policy))
    assert len(policy.scored) == 8 and second.examples == outcome.examples


def test_only_the_arm_of_the_policy_can_grow_stale() -> None:
    work = explore(method("sharpening", BOLD), PROMPT, Tabular(), lease_id="l", place=0, clock=ManualClock(1.0))
    outcome = asyncio.run(work)
    own, base = outcome.sampled_ids
    assert outcome.version == 3 and {example.group_id for example in outcome.examples} == {own} != {base}


def test_a_reference_other_than_the_base_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"sharpen\.reference is 'parent'.*set it to base"):
        method("sharpening", "method.options.sharpen.reference=parent")
    with pytest.raises(ConfigError, match=r"set method\.sampler\.temperature=1"):
        method("sharpening", "method.sampler.temperature=0.7")
