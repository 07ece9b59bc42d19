import math
from pathlib import Path

import numpy as np
import pytest
import torch

from core.codec import pack_floats, pack_ids
from core.config import LearningConfig, Lora, ModelConfig
from core.errors import MismatchError, ObjectiveError
from core.messages import BASE, Example, PolicyRef, Window
from core.objectives import Grpo, Objective, Sft
from methods.data.prompts import as_prompt
from tests.pure import examples
from tests.pure.training.tabular import responses
from tests.pure.training.tiny_models import KINDS, SEQUENCES, learner_of, make_model
from training.learner.collate import Piece
from training.learner.learner import Learner
from training.learner.tokens import Tokens
from training.objectives.grpo import grpo
from training.session import TrainingSession
from training.versions.load import load_version

PLAIN = Grpo(clip_low=None, clip_high=None, kl=0, max_correction=None)
ONE_POLICY = {"behaviour": torch.log(torch.tensor([0.5])), "proximal": torch.log(torch.tensor([0.5]))}


@pytest.fixture(scope="module")
def model_path(tmp_path_factory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


def learner(path: Path, kind, objective: Objective = PLAIN, batch_tokens: int = 400, **settings) -> Learner:
    return learner_of(path, kind, objective, batch_tokens=batch_tokens, **settings)


def reinforce(name: str, ids: list[int], advantage: float, logprobs=None, version: int = 0) -> Example:
    behaviour = pack_floats(logprobs if logprobs is not None else [-1.0] * (len(ids) - 2))
    ref = PolicyRef(version=version)
    return examples.reinforce(name, pack_ids(ids[:2]), pack_ids(ids[2:]), advantage, behaviour, policy=ref)


def sampled(tiny: Learner, *advantages: float, version: int = 0, shift: float = 0.0) -> Window:
    """The fixed sequences, with log-probabilities of the learner's own weights plus `shift` nats a token."""
    drawn = [reinforce(str(i), s, a) for i, (s, a) in enumerate(zip(SEQUENCES, advantages, strict=True))]
    own = tiny.completion_logprobs(drawn)
    again = [
        reinforce(f"v{version}-{e.id}", s, examples.advantage(e), own[e.id, 0] + shift, version)
        for e, s in zip(drawn, SEQUENCES, strict=True)
    ]
    return Window(number=1, group_ids=("g",), examples=tuple(again))


# --- the function ----------------------------------------------------------------------------------------------------


def loss(logits, targets, weight, *, settings: Grpo, advantage, **columns) -> torch.Tensor:
    made: Tokens = responses(logits[0], [[int(target)] for target in targets])
    made.logits_NV, made.weight_N, made.advantage_N, made.columns = logits, weight, advantage, columns
    return grpo(made, settings)


def test_the_loss_of_two_tokens_by_hand():
    """Token 1: ratio .6/.5 clipped to 1.1, correction .5/.25 cut to 1.5. Token 2: A < 0, ratio .25/.5 clipped to .8."""
    logits = torch.log(torch.tensor([[0.4, 0.6], [0.25, 0.75]], dtype=torch.float64))
    half = torch.full((2,), math.log(0.5), dtype=torch.float64)
    found = loss(
        logits,
        torch.tensor([1, 0]),
        torch.tensor([1.0, 2.0]),
        advantage=torch.tensor([1.0, -1.0]),
        behaviour=torch.log(torch.tensor([0.25, 0.5], dtype=torch.float64)),
        proximal=half,
        reference=half,
        settings=Grpo(clip_low=0.2, clip_high=0.1, kl=0.1, max_correction=1.5),
    )
    first = -1.5 * 1.1 + 0.1 * (0.5 / 0.6 - 1 - math.log(0.5 / 0.6))
    second = 0.8 + 0.1 * (2 - 1 - math.log(2))
    assert found.item() == pytest.approx(first + 2 * second, rel=1e-7)
    assert first + 2 * second == pytest.approx(0.012936, rel=1e-3)


@pytest.mark.parametrize(
    ("advantage", "chance", "moves"),
    [(1.0, 0.55, True), (1.0, 0.7, False), (1.0, 0.3, True), (-1.0, 0.45, True), (-1.0, 0.3, False), (-1.0, 0.7, True)],
)
def test_a_token_that_went_far_enough_where_its_advantage_points_moves_no_more(advantage, chance, moves):
    logits = torch.log(torch.tensor([[chance, 1 - chance]])).requires_grad_()
    columns = {"advantage": torch.tensor([advantage]), **ONE_POLICY}
    loss(logits, torch.tensor([0]), torch.ones(1), **columns, settings=Grpo(kl=0)).backward()
    assert bool(logits.grad.abs().sum() > 0) == moves


def test_without_clip_a_ratio_grows_without_bound():
    logits = torch.log(torch.tensor([[0.9, 0.1]]))
    columns = {"advantage": torch.tensor([1.0]), **ONE_POLICY}
    assert loss(logits, torch.tensor([0]), torch.ones(1), **columns, settings=PLAIN).item() == pytest.approx(-1.8)


def test_the_gradient_at_the_old_policy_is_the_policy_gradient():
    """d loss / d logits = - w A (onehot - p) if current equals proximal."""
    logits = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    targets, weight = torch.tensor([0, 4, 2, 2]), torch.tensor([1.0, 2.0, 0.5, 0.0], dtype=torch.float64)
    advantage = torch.tensor([1.0, -0.5, 2.0, 3.0], dtype=torch.float64)
    own = torch.log_softmax(logits, -1).gather(-1, targets[:, None])[:, 0].detach()
    columns = {"advantage": advantage, "behaviour": own, "proximal": own}
    loss(logits, targets, weight, **columns, settings=Grpo(kl=0)).backward()
    onehot = torch.nn.functional.one_hot(targets, 5)
    expected = -(weight * advantage)[:, None] * (onehot - torch.softmax(logits.detach(), -1))
    assert torch.allclose(logits.grad, expected)


@pytest.mark.parametrize("settings", [PLAIN, Grpo(kl=0.3), Grpo(clip_low=None, kl=0, max_correction=1.2)])
def test_the_gradient_agrees_with_finite_differences(settings):
    chance = torch.Generator().manual_seed(1)
    logits = torch.randn(6, 4, dtype=torch.float64, generator=chance, requires_grad=True)
    columns = {
        name: -torch.rand(6, dtype=torch.float64, generator=chance) * 2
        for name in ("behaviour", "proximal", "reference")
    }
    columns["advantage"] = torch.randn(6, dtype=torch.float64, generator=chance)
    targets, weight = torch.tensor([0, 3, 1, 2, 2, 1]), torch.rand(6, dtype=torch.float64, generator=chance)
    assert torch.autograd.gradcheck(lambda x: loss(x, targets, weight, **columns, settings=settings), (logits,))


# --- the learner -----------------------------------------------------------------------------------------------------


def gradient(tiny: Learner) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in tiny.trained_model.trainable().values() if p.grad is not None])


def test_the_first_step_follows_the_advantages_through_padding_and_batching(model_path):
    tiny, plain = learner(model_path, KINDS[1]), learner(model_path, KINDS[1], Sft())
    window = sampled(tiny, 1.0, -2.0, 0.5)
    tiny._columns = tiny._look_up(window.examples, None)
    tiny.loss([[Piece(e, 0)] for e in window.examples]).backward()
    expected = 0
    for e in window.examples:
        plain.model.zero_grad()
        plain.loss([[Piece(examples.imitate(e.id, e.rows[0].token_ids[:8], examples.completion(e)), 0)]]).backward()
        expected += examples.advantage(e) * gradient(plain)
    assert torch.allclose(gradient(tiny), expected, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.kind)
def test_what_did_better_becomes_likelier_and_what_did_worse_less_likely(model_path, kind):
    tiny = learner(model_path, kind, Grpo())
    window = sampled(tiny, 1.0, -1.0, 1.0)
    before = tiny.completion_logprobs(window.examples)
    stats = tiny.train(window)
    after = tiny.completion_logprobs(window.examples)
    moved = [float((after[e.id, 0] - before[e.id, 0]).sum()) for e in window.examples]
    assert moved[0] > 0 > moved[1] and moved[2] > 0
    assert stats["off_policy_kl"] == pytest.approx(0, abs=1e-9)
    assert tiny.train(Window(number=2, group_ids=(), examples=window.examples))["off_policy_kl"] > 1e-5


def test_the_clip_holds_back_over_many_epochs(model_path):
    settings = {"epochs": 40, "lr": 2e-4}
    bounded = learner(model_path, KINDS[1], Grpo(kl=0), **settings)
    free = learner(model_path, KINDS[1], PLAIN, **settings)
    far = []
    for tiny in (bounded, free):
        window = sampled(tiny, 1.0, -1.0, 1.0)
        before = tiny.completion_logprobs(window.examples)
        tiny.train(window)
        after = tiny.completion_logprobs(window.examples)
        far.append(max(float(np.abs(after[e.id, 0] - before[e.id, 0]).max()) for e in window.examples))
    assert far[1] > 2 * far[0]


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.kind)
def test_the_reference_is_the_base_however_far_training_went(model_path, kind):
    tiny = learner(model_path, kind, Grpo(kl=0.1))
    window = sampled(tiny, 1.0, -1.0, 1.0)
    base = tiny.completion_logprobs(window.examples)
    tiny.train(window)
    weights = {name: tensor.clone() for name, tensor in tiny.weights().items()}
    known = tiny._look_up(window.examples, None)
    for name, logprobs in base.items():
        assert np.allclose(known[name]["reference"], logprobs, atol=1e-6)
        assert not np.allclose(known[name]["proximal"], logprobs, atol=1e-4)
    assert all(torch.equal(weights[name], tensor) for name, tensor in tiny.weights().items())


def test_divergence_from_the_base_pulls_back_to_it(model_path):
    loose, held = (learner(model_path, KINDS[0], Grpo(kl=kl), epochs=10) for kl in (0.0, 50.0))
    far = []
    for tiny in (loose, held):
        window = sampled(tiny, 1.0, -1.0, 1.0)
        tiny.train(window)
        far.append(tiny.mismatch_kl(window.examples))
    assert far[0] > 5 * far[1]


def test_the_mean_over_sequences_weighs_each_completion_the_same(model_path):
    """Advantage 1 on 5 tokens, -1 on 2. At the old policy the mean over tokens is -3/7, over sequences 0."""
    for mean, expected in (("token", -3 / 7), ("sequence", 0.0)):
        tiny = learner(model_path, KINDS[1], PLAIN.model_copy(update={"mean": mean}), batch_tokens=14)
        window = sampled(tiny, 1.0, -1.0, 0.0)
        pair = Window(number=1, group_ids=(), examples=window.examples[:2])
        assert tiny.train(pair)["loss"] == pytest.approx(expected, abs=1e-5)


def test_micro_batches_give_the_same_gradient_as_one_batch(model_path):
    whole = learner(model_path, KINDS[1], Grpo(mean="sequence"))
    parts = learner(model_path, KINDS[1], Grpo(mean="sequence"), micro_batch_tokens=8)
    window = sampled(whole, 1.0, -1.0, 0.3)
    assert whole.train(window)["grad_norm"] == pytest.approx(parts.train(window)["grad_norm"], rel=1e-4)


def test_log_probabilities_of_completions_are_the_ends_of_the_scores(model_path):
    tiny = learner(model_path, KINDS[0], batch_tokens=8)
    found = tiny.completion_logprobs([reinforce(str(i), s, 0.0) for i, s in enumerate(SEQUENCES)])
    for index, score in enumerate(tiny.score(SEQUENCES)):
        assert np.allclose(found[str(index), 0], score[1:], atol=1e-5)


def test_an_example_with_too_few_log_probabilities_is_refused(model_path):
    tiny = learner(model_path, KINDS[0])
    with pytest.raises(ValueError, match="column behaviour has 1 numbers, expected one for 5 targets"):
        reinforce("short", SEQUENCES[0], 1.0, [-1.0])
    without = examples.imitate("none", pack_ids(SEQUENCES[0][:2]), pack_ids(SEQUENCES[0][2:]))
    with pytest.raises(ObjectiveError, match="example none has no column 'behaviour', which objective 'grpo' needs"):
        tiny.train(Window(number=1, group_ids=(), examples=(without,)))


def test_only_what_the_settings_need_is_computed():
    assert Grpo().needs == ("proximal", "reference") and PLAIN.needs == ("proximal",) and Sft().needs == ()


# --- engine against trainer ------------------------------------------------------------------------------------------


def test_the_mismatch_of_a_constant_shift_by_hand(model_path):
    """The engine's log-probabilities are .1 too low: the mismatch is exp(.1) - 1 - .1 nats a token."""
    tiny = learner(model_path, KINDS[0])
    assert tiny.mismatch_kl(sampled(tiny, 1, -1, 1).examples) == pytest.approx(0, abs=1e-9)
    shifted = sampled(tiny, 1, -1, 1, shift=-0.1).examples
    assert tiny.mismatch_kl(shifted) == pytest.approx(math.exp(0.1) - 1.1, rel=1e-4)
    assert tiny.mismatch_kl([]) == 0


def opened(path: Path, run_dir: Path, kind) -> TrainingSession:
    learning = LearningConfig(lr=2e-2 if isinstance(kind, Lora) else 3e-3, batch_tokens=40, device="cpu")
    session = TrainingSession(
        run_dir, ModelConfig(path=str(path), weights=kind), learning, 0, Grpo(), [as_prompt("w5 w6")]
    )
    session.open()
    session._learner.render_id = None
    return session


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.kind)
def test_samples_of_an_older_version_are_no_mismatch_and_leave_the_weights_alone(model_path, kind, tmp_path):
    session = opened(model_path, tmp_path, kind)
    tiny = session._learner
    ref = [PolicyRef(version=v) for v in range(3)]
    of_base = sampled(tiny, 1.0, -1.0, 1.0)
    base = session.make(of_base, ref[1], load_version(tiny, tmp_path, BASE), lambda done, steps: None)
    assert base.stats["mismatch_kl"] == pytest.approx(0, abs=1e-6)
    one = load_version(tiny, tmp_path, ref[1])
    of_both = [*of_base.examples, *sampled(tiny, 1.0, -1.0, 1.0, version=1).examples]
    window = Window(number=2, group_ids=(), examples=tuple(of_both))
    published = session.make(window, ref[2], one, lambda done, steps: None)
    assert published.stats["mismatch_kl"] == pytest.approx(0, abs=1e-6)
    assert published.stats["off_policy_kl"] > 1e-6
    after = {name: tensor.clone() for name, tensor in tiny.weights().items()}
    load_version(tiny, tmp_path, ref[1])
    tiny.train(window)
    assert all(torch.equal(after[name], tensor) for name, tensor in tiny.weights().items())


def test_learning_refuses_an_engine_that_is_another_model(model_path, tmp_path):
    session = opened(model_path, tmp_path, KINDS[0])
    tiny = session._learner
    before = {name: tensor.clone() for name, tensor in tiny.weights().items()}
    wrong = sampled(tiny, 1.0, -1.0, 1.0, shift=-0.08)  # 0.003 nats, as small as between neighboring versions
    with pytest.raises(MismatchError, match=r"nats a sampled token on window 1, .*max_mismatch_kl allows 0.002"):
        session.make(wrong, PolicyRef(version=1), load_version(tiny, tmp_path, BASE), lambda done, steps: None)
    assert all(torch.equal(before[name], tensor) for name, tensor in tiny.weights().items())
