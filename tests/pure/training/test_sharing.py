"""Rows that examples share give the losses and gradients of plain rows."""

from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from core.codec import pack_floats, pack_ids
from core.config import Full, Lora
from core.messages import Example, Window
from core.objectives import Dpo, Grpo, Objective, Sft
from tests.pure import examples
from tests.pure.training.tiny_models import KINDS, learner_of, make_model
from training.learner.collate import collate, computed, turns
from training.learner.learner import Learner
from training.learner.sharing import share_tokens

SHOTS = [1, *(5 + place % 20 for place in range(18))]
ANSWERS = ([8, 2], [8, 9, 2], [8, 9, 2], [8, 9, 10, 11, 2], [20, 2])
"""Two are equal, and three begin alike."""
TINY = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
}


@pytest.fixture(scope="module")
def model_path(tmp_path_factory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


def example(name: str, context: list[int], answer: list[int], number: int, objective: Objective) -> Example:
    ids, weight = (pack_ids(context), pack_ids(answer)), 0.5 + number % 3
    match objective:
        case Sft():
            return examples.imitate(name, *ids, weight=weight)
        case Dpo():
            return examples.prefer(name, *ids, pack_ids([*answer[:-1], 21, 2]), weight=weight)
        case _:
            logprobs = pack_floats([-2.0] * len(answer))
            return examples.reinforce(name, *ids, (-1.0) ** number, logprobs, weight=weight)


def few_shot(objective: Objective) -> list[Example]:
    """Three questions after the same turns, each with its answers."""
    asked = [(question, answer) for question in (21, 22, 23) for answer in ANSWERS]
    return [
        example(str(number), [*SHOTS, question, 3], answer, number, objective)
        for number, (question, answer) in enumerate(asked)
    ]


def window(made: list[Example]) -> Window:
    return Window(number=1, group_ids=(), examples=tuple(made))


def gradients(tiny: Learner, made: list[Example], micro: int | None) -> tuple[float, torch.Tensor, int]:
    """Loss and gradient of one batch, and the tokens that were computed."""
    tiny._columns = tiny._look_up(made, None)
    loss, tokens = 0.0, 0
    for turn in tiny._turns(made, micro):
        part = tiny.loss(turn)
        part.backward()
        loss, tokens = loss + part.item(), tokens + computed(turn)
    return loss, torch.cat([p.grad.flatten() for p in tiny.trained_model.trainable().values()]), tokens


@pytest.mark.parametrize("micro", [None, 60])
@pytest.mark.parametrize("objective", [Sft(), Grpo(), Dpo(nll=1.0)], ids=lambda objective: objective.kind)
@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.kind)
def test_losses_and_gradients_are_those_of_plain_rows(model_path, kind, objective, micro):
    made = Random(1).sample(few_shot(objective), 15)
    shared, plain = (learner_of(model_path, kind, objective) for _ in range(2))
    for tiny in (shared, plain):  # a fresh adapter has no gradient for half of its weights
        with torch.no_grad():
            generator = torch.Generator().manual_seed(3)
            for parameter in tiny.trained_model.trainable().values():
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    plain.trained_model.share_tokens = 0
    loss, gradient, tokens = gradients(shared, made, micro)
    plain_loss, plain_gradient, plain_tokens = gradients(plain, made, micro)
    assert tokens < (0.4 if objective.rows == 1 else 0.55) * plain_tokens  # micro-batches of pairs stay apart
    assert loss == pytest.approx(plain_loss, rel=1e-5, abs=1e-5)
    assert float((gradient - plain_gradient).abs().max()) < 1e-5 * max(1.0, float(plain_gradient.abs().max()))
    assert float(plain_gradient.norm()) > 1


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.kind)
def test_a_window_is_learned_alike_and_its_stats_tell_the_computed_tokens(model_path, kind):
    shared, plain = (learner_of(model_path, kind, lr=1e-3, batch_tokens=150, micro_batch_tokens=70) for _ in range(2))
    plain.trained_model.share_tokens = 0
    with_sharing, without = (tiny.train(window(few_shot(Sft()))) for tiny in (shared, plain))
    assert with_sharing["loss"] == pytest.approx(without["loss"], rel=1e-5)
    assert with_sharing["tokens"] == without["tokens"] == 15 * 21 + 3 * 15
    assert without["computed_tokens"] >= without["tokens"] - 15
    assert with_sharing["computed_tokens"] < 0.5 * without["computed_tokens"]
    assert with_sharing["steps"] == without["steps"] > 1


def test_log_probabilities_are_those_of_plain_rows_and_go_to_their_examples(model_path):
    tiny = learner_of(model_path, Full(), batch_tokens=100)
    made = few_shot(Sft())
    shared = tiny.completion_logprobs(made)
    tiny.trained_model.share_tokens = 0
    for name, logprobs in tiny.completion_logprobs(made).items():
        assert np.allclose(shared[name], logprobs, atol=1e-5)
    assert len(shared["0", 0]) == 2 and not np.allclose(shared["0", 0][:1], shared["5", 0][:1], atol=1e-3)


def test_examples_that_share_little_and_long_ones_have_plain_rows():
    apart = [example(str(i), [1, *range(2 * i, 2 * i + 20)], [3, 2], i, Sft()) for i in range(8)]
    for batch, most in ((apart, 100), (few_shot(Sft()), 20), (few_shot(Sft())[:1], 100)):
        (turn,) = turns(batch, None, most)
        assert [len(row) for row in turn] == [1] * len(batch)
        assert collate(turn).ends_BT is None
    (turn,) = turns(few_shot(Sft()), None, 26)
    assert [len(row) for row in turn] == [15]


@settings(deadline=None)
@given(
    prompts=st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=30), min_size=1, max_size=6),
    answers=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=30),
    micro=st.one_of(st.none(), st.integers(36, 400)),
)
def test_every_example_is_in_one_forward_that_keeps_to_its_tokens_and_targets(prompts, answers, micro):
    batch = [example(str(i), prompts[i % len(prompts)], answer, i, Sft()) for i, answer in enumerate(answers)]
    made = turns(batch, micro, 100)
    assert sorted(piece.example.id for turn in made for line in turn for piece in line) == sorted(e.id for e in batch)
    for turn in made:
        rows = collate(turn)
        assert rows.ids_BT.numel() == computed(turn)
        assert micro is None or computed(turn) <= micro
        assert micro is None or len(rows.targets_N) <= micro
        completions = [
            token
            for line in turn
            for piece in line
            for token in np.frombuffer(examples.completion(piece.example, piece.place), "<i4").tolist()
        ]
        assert rows.targets_N.tolist() == completions


# --- which models ----------------------------------------------------------------------------------------------------


def made(kind: str, dtype: torch.dtype = torch.float32, **fields):
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **TINY | fields)
    return AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa").eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("kind", "fields", "most"),
    [
        ("llama", {}, float("inf")),
        ("qwen3", {}, float("inf")),
        ("qwen3", {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 2}, 16),
        ("mistral", {"sliding_window": 24}, 24),
        ("gemma3_text", {"sliding_window": 32}, 32),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, 0),
        ("qwen3_next", {}, 0),
    ],
)
def test_models_share_rows_up_to_their_window_and_not_if_attention_is_of_another_kind(kind, fields, most, dtype):
    assert share_tokens(made(kind, dtype, **fields)) == most


@pytest.mark.parametrize("kind", ["mistral", "gemma3_text"])
def test_up_to_the_window_shared_rows_are_plain_ones_and_beyond_it_they_would_not_be(kind, tmp_path):
    make_model(tmp_path)  # for its tokenizer
    made(kind, sliding_window=25, initializer_range=0.3).save_pretrained(tmp_path)
    tiny = learner_of(tmp_path, Full(), batch_tokens=1000)
    assert tiny.trained_model.share_tokens == 25
    for more, same in ((0, True), (6, False)):
        shots = [4] * more + SHOTS
        longer = [example(str(i), [*shots, 21, 3], answer, i, Sft()) for i, answer in enumerate(ANSWERS)]
        found = []
        for most in (100, 0):
            tiny.trained_model.share_tokens = most
            found.append(np.concatenate(list(tiny.completion_logprobs(longer[:3]).values())))
        assert np.allclose(*found, atol=1e-4) == same


def test_a_model_that_ignores_the_mask_or_refuses_it_computes_plain_rows():
    for act in ("ignores", "refuses"):
        model = made("llama")
        plain = model.model.forward

        def forward(*, attention_mask=None, act=act, plain=plain, **inputs):
            if attention_mask is not None and act == "refuses":
                raise ValueError("expected a mask of 2 dimensions")
            return plain(**inputs)

        model.model.forward = forward
        assert share_tokens(model) == 0


def test_an_adapter_does_not_change_what_a_model_can(model_path):
    assert learner_of(model_path, Lora(rank=4, alpha=8)).trained_model.share_tokens == float("inf")
