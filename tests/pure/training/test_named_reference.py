"""A pair loss compares with the parent, the base, or a named version of the run."""

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from core.codec import pack_ids
from core.config import Full, LearningConfig, Lora, ModelConfig
from core.errors import ObjectiveError
from core.messages import BASE, PolicyRef, Window
from core.objectives import Dpo, Grpo, Kd, Sft
from methods.data.prompts import as_prompt
from tests.pure.examples import prefer
from tests.pure.training.tiny_models import KINDS, SEQUENCES, make_model
from training.session import TrainingSession
from training.versions.load import load_version


@pytest.fixture(scope="module")
def model_path(tmp_path_factory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


def opened(path: Path, run_dir: Path, kind: Lora | Full, objective: Dpo) -> TrainingSession:
    learning = LearningConfig(lr=2e-2 if isinstance(kind, Lora) else 3e-3, batch_tokens=40, device="cpu")
    model = ModelConfig(path=str(path), weights=kind)
    session = TrainingSession(run_dir, model, learning, 0, objective, [as_prompt("w5 w6")])
    session.open()
    session._learner.render_id = None
    return session


def window(number: int) -> Window:
    first, second, third = SEQUENCES
    pairs = ((first[:2], first[2:], second[1:]), (third[:2], third[2:], first[3:]))
    made = [prefer(f"{number}-{i}", *map(pack_ids, pair)) for i, pair in enumerate(pairs)]
    return Window(number=number, group_ids=(), examples=tuple(made))


def rest(done: int, steps: int) -> None: ...


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.kind)
def test_the_reference_is_the_version_that_the_objective_names(model_path, kind, tmp_path):
    """Two versions are trained. The first step's loss is log 2 only if the reference is where training starts."""
    refs = [PolicyRef(version=v) for v in range(4)]
    session = opened(model_path, tmp_path, kind, Dpo(beta=0.1))
    one = session.make(window(1), refs[1], load_version(session._learner, tmp_path, BASE), rest)
    two = session.make(window(2), refs[2], one, rest)
    first: dict[str, float] = {}
    for name in ("parent", "base", "policy@v1", "policy@v2"):
        session.objective = session._learner.objective = Dpo(beta=0.1, reference=name)
        load_version(session._learner, tmp_path, refs[2])
        session._trained = None
        known = session._reference(window(3), refs[2])
        session._learner.train(window(3), rest, reference=known)
        first[name] = session._learner.losses[0]
    assert first["parent"] == first["policy@v2"] == pytest.approx(np.log(2), abs=1e-4)
    assert len({round(first[name], 5) for name in ("parent", "base", "policy@v1")}) == 3
    assert two.stats["chosen_tokens"] == 4.5 and two.stats["rejected_tokens"] == 3.5


def test_a_reference_that_the_run_does_not_have_is_refused_before_anything_is_trained(model_path, tmp_path):
    session = opened(model_path, tmp_path, KINDS[0], Dpo(reference="policy@v7"))
    before = {name: tensor.clone() for name, tensor in session._learner.weights().items()}
    with pytest.raises(ObjectiveError, match=r"reference policy@v7 does not exist in .*; expected parent, base, or"):
        session.make(window(1), PolicyRef(version=1), load_version(session._learner, tmp_path, BASE), rest)
    assert all((before[name] == tensor).all() for name, tensor in session._learner.weights().items())


def test_a_name_that_is_no_version_is_refused():
    with pytest.raises(ValidationError, match=r"'champion' names no weights; expected parent, base, or policy@vN"):
        Dpo(reference="champion")


def test_only_objectives_that_compare_with_the_base_need_a_second_model():
    assert [each.uses_base for each in (Grpo(), Kd(), Dpo(reference="base"))] == [True] * 3
    assert [each.uses_base for each in (Sft(), Grpo(kl=0), Dpo(), Dpo(reference="policy@v1"))] == [False] * 4
