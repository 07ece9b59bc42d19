"""What a method's tuner decides, prompts that a method writes, and what it remembers: also after a restart."""

import json
from pathlib import Path

import pytest

from actors.in_process import LocalSystem, ScriptedSession
from actors.replay.recovery import recover
from actors.replay.tuning import Tuning
from core import config as configuration
from core.clock import ManualClock
from core.config import Config, MethodConfig
from core.errors import ConfigError
from core.messages import Prompt
from core.store.encoded import encode_outcomes
from core.store.facts import TunedFact
from core.store.writer import RunReader
from methods import recipes
from methods.data.prompts import as_prompt
from methods.scripted_policy import ScriptedPolicy
from tests.pure.actors.replay.outcomes import explored
from tests.pure.actors.replay.test_buffer import FlakyStore, leased, started
from training.replay.replay import Explored

SCPO = MethodConfig(recipe="scpo")


def prompt(place: int, **measured: float) -> Explored:
    return Explored(place=place, version=0, group_ids=(), examples=(), measured=measured)


def settings(folder: Path) -> Config:
    (folder / "pool.jsonl").write_text("".join(json.dumps({"prompt": f"q {i}"}) + "\n" for i in range(400)))
    overrides = [f"prompts.path={folder}/pool.jsonl", "learning.groups_per_window=16", "learning.replay_windows=1"]
    more = ["method.recipe=scpo", "gate.enabled=false", "gate.anchors=null", "report.questions=null"]
    return configuration.load(None, [*overrides, *more])


def test_a_tuner_sees_the_means_of_what_the_windows_prompts_measured() -> None:
    tuning = Tuning(MethodConfig(recipe="bstar"))
    new = [prompt(0, **{"balance@0.70": 0.2}), prompt(1, **{"balance@0.80": 0.6}), prompt(2)]
    fact = tuning.decide(1, new)
    assert fact == TunedFact(window=1, values={"temperature": 0.8}) and tuning.values == {"temperature": 0.8}
    assert tuning.decide(2, []) == TunedFact(window=2, values={"temperature": 0.8})


def test_a_method_without_a_tuner_decides_nothing() -> None:
    for config in (None, MethodConfig()):
        tuning = Tuning(config)
        assert tuning.decide(1, [prompt(0)]) is None and tuning.values == {}


def test_a_value_out_of_bounds_is_refused_and_the_old_one_stays() -> None:
    wild = Tuning(MethodConfig(recipe="scpo", options={"last_share": 1.0, "min_share": 0.5, "ramp": 1}))
    object.__setattr__(wild._method, "bounds", {"min_share": (0.0, 0.9)})
    with pytest.raises(
        ConfigError, match=r"the tuner of scpo set min_share=1 after window 1, expected 0 to 0\.9; .*stays"
    ):
        wild.decide(1, [])
    assert wild.values == {"min_share": 0.5}


def test_values_of_another_method_are_not_taken_over() -> None:
    tuning = Tuning(SCPO)
    tuning.restore(TunedFact(window=3, values={"temperature": 1.0}))
    assert tuning.values == {"min_share": 0.5}
    tuning.restore(TunedFact(window=3, values={"min_share": 0.65}))
    assert tuning.values == {"min_share": 0.65}


async def test_a_restart_goes_on_with_what_was_tuned(tmp_path: Path) -> None:
    config, policy = settings(tmp_path), ScriptedPolicy(accuracy=dict.fromkeys(range(1000), 0.6))
    await LocalSystem(config, tmp_path, policy, ScriptedSession(tmp_path)).run(decided=2)
    stored = RunReader(tmp_path).read(TunedFact)
    assert stored is not None and stored.window >= 2 and stored.values["min_share"] > 0.5
    again = LocalSystem(config, tmp_path, policy, ScriptedSession(tmp_path)).buffer.state
    again.restore(recover(tmp_path, config.learning))
    assert again.tuning.values == stored.values
    told = [event.detail for event in RunReader(tmp_path).events("tuned")]
    assert [each["window"] for each in told] == sorted({each["window"] for each in told})
    assert told[-1]["min_share"] == stored.values["min_share"]


async def test_prompts_that_a_method_wrote_are_explored_next_also_after_a_restart(tmp_path: Path) -> None:
    written = Prompt(id="new", messages=as_prompt("What is 2+2?").messages, origin="generated")
    buffer = await started(tmp_path, FlakyStore(tmp_path), ManualClock(1.0))
    lease = leased(await buffer.collectors.lease(1, 0.0))
    outcome = explored(lease.places[0], lease.id).model_copy(update={"asks": (written,)})
    assert await buffer.collectors.deliver(encode_outcomes([outcome])) == ["accepted"]
    assert leased(await buffer.collectors.lease(1, 0.0)).asked[0][1] == written
    again = await started(tmp_path, FlakyStore(tmp_path), ManualClock(1.0))
    assert leased(await again.collectors.lease(1, 0.0)).asked[0][1] == written


async def test_earlier_judgments_of_a_prompt_are_those_at_other_places(tmp_path: Path) -> None:
    buffer = await started(tmp_path, FlakyStore(tmp_path), ManualClock(1.0))
    made = []
    for _ in range(2):
        lease = leased(await buffer.collectors.lease(1, 0.0))
        made.append(explored(lease.places[0], lease.id, prompt="the same"))
        await buffer.collectors.deliver(encode_outcomes(made[-1:]))
    first, second = made
    assert await buffer.collectors.earlier(first.prompt_id, second.place) == list(first.scored)
    assert await buffer.collectors.earlier(first.prompt_id, first.place) == list(second.scored)
    assert await buffer.collectors.earlier("another", 0) == []


def test_recipes_that_tune_declare_where_they_begin() -> None:
    for name in recipes.names():
        config = configuration.load(None, [f"method.recipe={name}", *recipes.card(name).overrides]).method
        method = recipes.build(config)
        assert method.bounds.keys() <= method.tuned.keys()
        assert all(low <= method.tuned[each] <= high for each, (low, high) in method.bounds.items())
