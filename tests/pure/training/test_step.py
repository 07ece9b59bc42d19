import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel
from transformers import AutoModelForCausalLM

from core.arrival_proof import Proof, arrival, vector
from core.artifacts import read_manifest
from core.codec import pack_ids
from core.config import Full, LearningConfig, Lora, ModelConfig
from core.errors import ArtifactError, ObjectiveError
from core.messages import BASE, Example, PolicyRef, Window
from tests.pure import examples
from tests.pure.training.tiny_models import KINDS, SEQUENCES, learner_of, make_model
from training.learner.learner import Diverged, Learner
from training.versions.load import load_version, published_versions
from training.versions.publish import publish, publish_base, version_dir


@pytest.fixture(scope="module")
def model_path(tmp_path_factory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


def learner(path: Path, kind, batch_tokens: int = 40, **settings) -> Learner:
    return learner_of(path, kind, batch_tokens=batch_tokens, **settings)


def imitate(name: str, ids: list[int], prompt: int = 2, **fields) -> Example:
    return examples.imitate(name, pack_ids(ids[:prompt]), pack_ids(ids[prompt:]), **fields)


def window(number: int = 1, copies: int = 6, **fields) -> Window:
    made = [imitate(f"{i}-{c}", s, **fields) for i, s in enumerate(SEQUENCES) for c in range(copies)]
    return Window(number=number, group_ids=("g",), examples=tuple(made))


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.kind)
def test_the_loss_of_repeated_completions_falls_and_they_become_likely(model_path, kind):
    tiny = learner(model_path, kind)
    before = sum(float(s.sum()) for s in tiny.score(SEQUENCES))
    losses = [tiny.train(window(number))["loss"] for number in range(1, 6)]
    assert losses[-1] < 0.5 * losses[0]
    assert sum(float(s.sum()) for s in tiny.score(SEQUENCES)) > before + 5


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.kind)
def test_training_is_decided_by_seed_and_window_and_not_by_global_random_state(model_path, kind):
    runs = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        tiny = learner(model_path, kind)
        tiny.train(window(3))
        runs.append({name: tensor.clone() for name, tensor in tiny.weights().items()})
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


def test_a_fresh_adapter_changes_nothing(model_path):
    assert np.array_equal(
        np.concatenate(learner(model_path, KINDS[0]).score(SEQUENCES)),
        np.concatenate(learner(model_path, KINDS[1]).score(SEQUENCES)),
    )


def test_scores_are_those_of_a_plain_forward_and_padding_does_not_matter(model_path):
    tiny = learner(model_path, Full())
    plain = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    for ids, score in zip(SEQUENCES, tiny.score(SEQUENCES), strict=True):
        logits = plain(torch.tensor([ids])).logits[0, :-1]
        expected = torch.log_softmax(logits, -1).gather(-1, torch.tensor(ids[1:])[:, None])[:, 0]
        assert np.allclose(score, expected.detach().numpy(), atol=1e-5)
        assert score.dtype == np.float32
    assert [len(s) for s in tiny.score([[1], [], [1, 2]])] == [0, 0, 1]


def test_micro_batches_give_the_same_gradient_as_one_batch(model_path):
    whole = learner(model_path, Full(), batch_tokens=400)
    parts = learner(model_path, Full(), batch_tokens=400, micro_batch_tokens=14)
    assert whole.train(window())["loss"] == pytest.approx(parts.train(window())["loss"], rel=1e-5)
    one, two = np.concatenate(whole.score(SEQUENCES)), np.concatenate(parts.score(SEQUENCES))
    assert np.allclose(one, two, atol=2e-3)


def test_an_example_without_weight_teaches_nothing(model_path):
    tiny = learner(model_path, Full())
    before = np.concatenate(tiny.score(SEQUENCES))
    tiny.train(window(weight=0.0))
    assert np.array_equal(before, np.concatenate(tiny.score(SEQUENCES)))


def test_an_empty_window_is_no_error(model_path):
    stats = learner(model_path, KINDS[0]).train(Window(number=1, group_ids=()))
    assert (stats["steps"], stats["examples"], stats["loss"]) == (0, 0, 0)


def test_a_scaled_learning_rate_is_a_lower_one(model_path):
    scaled, lower = learner(model_path, KINDS[1], lr=4e-3), learner(model_path, KINDS[1], lr=1e-3)
    assert scaled.train(window(), lr_scale=0.25)["lr_scale"] == 0.25
    lower.train(window())
    assert all(torch.allclose(tensor, lower.weights()[name], atol=1e-7) for name, tensor in scaled.weights().items())


def test_the_learner_may_be_asked_to_wait_between_steps(model_path):
    waits: list[tuple[int, int]] = []
    stats = learner(model_path, KINDS[0]).train(window(), lambda done, steps: waits.append((done, steps)))
    assert waits == [(step, stats["steps"]) for step in range(1, len(waits) + 1)]
    assert len(waits) == stats["steps"] > 1


def test_examples_of_another_kind_or_rendering_are_refused(model_path):
    tiny = learner(model_path, KINDS[0])
    with pytest.raises(ObjectiveError, match="rendered as 'other'"):
        tiny.train(window(render_id="other"))
    prefer = examples.prefer("p", *map(pack_ids, ([1], [2], [3])))
    with pytest.raises(ObjectiveError, match=r"holds an example of 2 row\(s\) \(p\); objective 'sft' takes 1"):
        tiny.train(Window(number=1, group_ids=(), examples=(prefer,)))


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.kind)
def test_a_loss_that_is_no_number_leaves_the_weights_as_they_were(model_path, kind):
    tiny = learner(model_path, kind)
    tiny.train(window(1))
    before = {name: tensor.clone() for name, tensor in tiny.weights().items()}
    plain, seen = tiny.loss, []

    def breaking(batch):
        seen.append(1)
        return plain(batch) * (float("nan") if len(seen) == 3 else 1.0)

    tiny.loss = breaking
    with pytest.raises(Diverged, match=r"lower learning\.lr"):
        tiny.train(window(2))
    assert len(seen) == 3
    assert all(torch.equal(before[name], tensor) for name, tensor in tiny.weights().items())


@given(steps=st.integers(1, 200), at=st.floats(0, 0.999))
def test_the_rate_warms_up_and_ends_near_zero(steps, at):
    rates = Learner(ModelConfig(), LearningConfig(lr=1.0, device="cpu"))
    step = int(at * steps)
    assert 0 < rates.rate(step, steps) <= 1.0
    assert rates.rate(steps - 1, steps) <= 1 / steps + 1e-9
    assert rates.rate(0, 100) == pytest.approx(1 / 11)
    assert rates.rate(50, 100) == pytest.approx(0.5)


# --- versions ---


def publish_two(model_path: Path, kind, run_dir: Path) -> Learner:
    tiny = learner(model_path, kind)
    publish_base(tiny, run_dir, SEQUENCES)
    for version in (1, 2):
        stats = tiny.train(window(version))
        publish(tiny, PolicyRef(version=version), PolicyRef(version=version - 1), version, run_dir, stats)
    return tiny


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.kind)
def test_a_published_version_is_what_plain_peft_and_transformers_load(model_path, kind, tmp_path):
    tiny = publish_two(model_path, kind, tmp_path)
    path = version_dir(tmp_path, PolicyRef(version=2))
    if isinstance(kind, Lora):
        plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32), path)
    else:
        plain = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        assert (path / "tokenizer.json").is_file()
    logits = plain(torch.tensor([SEQUENCES[0]])).logits[0, :-1]
    expected = torch.log_softmax(logits, -1).gather(-1, torch.tensor(SEQUENCES[0][1:])[:, None])[:, 0]
    assert np.allclose(tiny.score(SEQUENCES)[0], expected.detach().numpy(), atol=1e-5)
    assert read_manifest(path)["kind"] == kind.kind


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.kind)
def test_the_learner_returns_to_any_version_exactly_and_goes_on_as_if_never_stopped(model_path, kind, tmp_path):
    tiny = publish_two(model_path, kind, tmp_path)
    latest = np.concatenate(tiny.score(SEQUENCES))
    again = learner(model_path, kind)
    published = load_version(again, tmp_path, PolicyRef(version=2))
    assert (published.window, published.parent.version) == (2, 1)
    assert np.array_equal(latest, np.concatenate(again.score(SEQUENCES)))
    assert tiny.train(window(3))["loss"] == again.train(window(3))["loss"]
    assert np.array_equal(np.concatenate(tiny.score(SEQUENCES)), np.concatenate(again.score(SEQUENCES)))
    load_version(tiny, tmp_path, BASE)
    proof = Proof.read(read_manifest(version_dir(tmp_path, BASE)))
    assert np.allclose(np.concatenate(tiny.score(SEQUENCES)), vector(proof.base), atol=0)
    assert [p.ref.version for p in published_versions(tmp_path)] == [0, 1, 2]


def test_a_damaged_version_is_refused_by_name(model_path, tmp_path):
    tiny = publish_two(model_path, KINDS[0], tmp_path)
    file = version_dir(tmp_path, PolicyRef(version=1)) / "adapter_model.safetensors"
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(ArtifactError, match="v0001/adapter_model"):
        load_version(tiny, tmp_path, PolicyRef(version=1))
    with pytest.raises(ArtifactError, match="exists already"):
        publish(tiny, PolicyRef(version=2), BASE, 2, tmp_path, {})


def test_weights_of_another_rank_are_refused(model_path):
    tiny = learner(model_path, KINDS[0])
    with pytest.raises(ArtifactError, match="has shape"):
        tiny.trained_model.load_weights(learner(model_path, Lora(rank=2, alpha=4)).weights())
    with pytest.raises(ArtifactError, match="lack"):
        tiny.trained_model.load_weights({})


def test_a_run_directory_of_another_base_model_is_refused(model_path, tmp_path):
    first = publish_base(learner(model_path, KINDS[0]), tmp_path, SEQUENCES)
    moved = tmp_path / "moved"
    shutil.copytree(model_path, moved)
    assert publish_base(learner(moved, KINDS[0]), tmp_path, []).fingerprint == first.fingerprint
    other = make_model(tmp_path / "other", seed=1)
    with pytest.raises(ArtifactError, match="was made with the base model"):
        publish_base(learner(other, KINDS[0]), tmp_path, SEQUENCES)


def test_arrival_tells_right_wrong_half_and_missing_adapters_apart_in_bfloat16(model_path, tmp_path):
    rng = np.random.default_rng(0)
    sequences = [[1, *rng.integers(3, 32, 30).tolist(), 2] for _ in range(8)]
    tiny = learner(model_path, KINDS[0])
    publish_base(tiny, tmp_path, sequences)
    for version in (1, 2):
        tiny.train(window(version, copies=20))
        publish(tiny, PolicyRef(version=version), PolicyRef(version=version - 1), version, tmp_path, {})
    new = {name: tensor.clone() for name, tensor in tiny.weights().items()}
    sibling = learner(model_path, KINDS[0])
    load_version(sibling, tmp_path, PolicyRef(version=1))
    sibling.train(Window(number=9, group_ids=(), examples=(imitate("x", [1, 20, 21, 22, 23, 2]),) * 40))
    engine = Learner(
        ModelConfig(path=str(model_path), weights=KINDS[0], trainer_dtype="bfloat16"), LearningConfig(device="cpu")
    )
    engine.load()
    base = np.concatenate(engine.score(sequences))
    proof = Proof.read(read_manifest(version_dir(tmp_path, PolicyRef(version=2))))

    def arrived(weights):
        engine.trained_model.load_weights(weights)
        scores = np.concatenate(engine.score(sequences))
        return arrival(scores, base, vector(proof.version), vector(proof.parent), vector(proof.base))

    right = arrived(new)
    assert right.conclusive and right.accepted, right
    half = {name: t if ".layers.0." in name else torch.zeros_like(t) for name, t in new.items()}
    assert not arrived(half).accepted
    assert not arrived(sibling.weights()).accepted
    load_version(tiny, tmp_path, PolicyRef(version=1))
    noop = arrived(tiny.weights())
    assert abs(noop.coefficient) < 0.25 and not noop.accepted
    load_version(tiny, tmp_path, BASE)
    assert not arrived(tiny.weights()).accepted
