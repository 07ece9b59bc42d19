import asyncio
from collections import Counter

import pytest
import torch

from core.codec import unpack_ids
from core.errors import ConfigError
from core.objectives import Entropy, Gce, Objective
from core.protocols import Method
from methods.data.prompts import as_prompt
from methods.scripted_policy import ScriptedPolicy
from tests.pure.methods.recipes.texts import built, group, learned, settled
from tests.pure.training.tabular import responses
from training.objectives import loss_of

TEXTS = ["3 and 4 is 7. The answer is 7.", "The answer is 7.", "The answer is 9."]
BOTH = ("rpl", "ent")


def stepped(theta: list[float], objective: Objective, steps: int, rate: float = 0.5) -> list[float]:
    """The logits after steps of gradient descent on one place, whose target is token 0."""
    logits = torch.tensor(theta, dtype=torch.float64)
    for _ in range(steps):
        logits = logits.detach().requires_grad_()
        loss = loss_of(objective)(responses(logits, [[0]]), objective)
        (gradient,) = torch.autograd.grad(loss, logits)
        logits = logits - rate * gradient
    return logits.tolist()


def test_their_objectives_are_the_published_ones() -> None:
    assert built("rpl").objective == Gce(q=0.8, targets="given")
    assert built("rpl", "method.options.gce.q=0.5", "method.options.gce.targets=argmax").objective == Gce(
        q=0.5, targets="argmax"
    )
    assert built("ent").objective == Entropy()


@pytest.mark.parametrize("name", BOTH)
def test_winning_texts_are_the_targets(name: str) -> None:
    assert learned(settled(built(name), group(*TEXTS))) == {TEXTS[0]: 1.0, TEXTS[1]: 1.0}


@pytest.mark.parametrize("name", BOTH)
def test_a_text_that_was_cut_off_is_no_target(name: str) -> None:
    assert learned(settled(built(name), group(TEXTS[1], *TEXTS[:2], cut=[1]))) == {TEXTS[1]: 1.0}


@pytest.mark.parametrize("name", BOTH)
def test_the_greedy_text_is_one_sample_at_temperature_0_without_rivals(name: str) -> None:
    asked: list[tuple[int, float]] = []

    class Recording(ScriptedPolicy):
        async def generate(self, prompt, sampling, ref=None):  # type: ignore[no-untyped-def]
            asked.append((sampling.n, sampling.temperature))
            return await super().generate(prompt, sampling, ref)

    method = built(name, "method.options.texts=greedy")
    groups = asyncio.run(method.sample(as_prompt("q"), Recording(), {}))
    assert asked == [(1, 0.0)] and len(settled(method, groups).examples) == 1
    built(name, "method.options.texts=greedy", "method.sampler.n=1")


def bags(method: Method) -> list[tuple[list[int], Counter[int], int]]:
    """Context, bag of tokens, and stop token of each example."""
    rows = [example.rows[0] for example in settled(method, group(*TEXTS)).examples]
    ids = [(unpack_ids(row.token_ids), row.spans[-1].tokens) for row in rows]
    return [(each[:-n], Counter(each[-n:-1]), each[-1]) for each, n in ids]


@pytest.mark.parametrize("name", BOTH)
def test_the_null_control_learns_the_same_tokens_in_another_order(name: str) -> None:
    scrambled = built(name, "method.options.scrambled=true")
    assert bags(scrambled) == bags(built(name))
    texts = learned(settled(scrambled, group(*TEXTS)))
    assert len(texts) == 2 and not texts.keys() & set(TEXTS)
    assert settled(scrambled, group(*TEXTS)) == settled(scrambled, group(*TEXTS)), "the order is drawn by the ids"


@pytest.mark.parametrize("theta", [[0.3, 1.0, -0.5], [2.0, 0.1, 0.0]])
def test_entropy_falls_and_the_likeliest_token_stays(theta: list[float]) -> None:
    best, last = theta.index(max(theta)), float("inf")
    for steps in range(1, 40):
        logits = torch.tensor(stepped(theta, Entropy(), steps), dtype=torch.float64)
        p = torch.softmax(logits, -1)
        entropy = -(p * p.log()).sum().item()
        assert entropy < last and p.argmax().item() == best
        last = entropy


def test_a_collapse_cannot_be_told_from_progress_by_the_loss() -> None:
    """The warning of both: where the likeliest token is wrong, both make it likelier still."""
    for objective in (Entropy(), Gce(targets="argmax")):
        p = torch.softmax(torch.tensor(stepped([0.0, 0.5, -1.0], objective, 60)), -1)
        assert p[1] > 0.9 > 0.1 > p[0], "token 0 is right"


def test_an_unlikely_target_pulls_less_than_by_imitation() -> None:
    start = [0.0, 4.0]
    robust, plain = (stepped(start, Gce(q=q), 1)[0] for q in (0.8, 1e-6))
    assert 0 < robust < plain / 10


@pytest.mark.parametrize("name", BOTH)
def test_majority_texts_need_different_samples(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"recipe {name} needs different samples to vote"):
        built(name, "method.sampler.temperature=0")
