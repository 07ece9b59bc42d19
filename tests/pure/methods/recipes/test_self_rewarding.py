import itertools
import json
import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from actors.in_process import LocalSystem, ScriptedSession
from core import config as configuration
from core.codec import stable_id
from core.errors import ConfigError
from core.messages import Prompt
from core.objectives import Dpo
from core.protocols import Facts, History
from core.store.writer import RunReader
from methods.scripted_policy import ScriptedPolicy
from methods.selectors.extremes import Extremes, extremes
from methods.selectors.shuffled import permuted
from tests.pure.methods.recipes.judged import Texts, built, explored, learned, number_in, scored, shown

SAID = {"y1": (4, 5, 3), "y2": (2, 3, None), "y3": (4, 4, 4), "y4": (2, 2, 1)}
TEXT = "method.answer.kind=text"


def stars(prompt: Prompt, index: int) -> str:
    value = SAID[shown(prompt)][index]
    return "I cannot say." if value is None else f"Score: {value}"


def test_the_first_of_the_best_is_chosen_and_the_worst_rejected() -> None:
    outcome = explored(built("self_rewarding", TEXT), Texts(("y1", "y2", "y3", "y4"), stars))
    assert outcome.scored[0].verdict.scores == pytest.approx((4, 2.5, 4, 5 / 3))
    assert learned(outcome) == [("y1", "y4")] and outcome.examples[0].weight == 1
    assert outcome.measured == {"malformed": 1 / 12}


def test_equal_scores_give_no_pair() -> None:
    same = Texts(("y1", "y2", "y3", "y4"), lambda prompt, index: "Score: 5")
    outcome = explored(built("self_rewarding", TEXT), same)
    assert outcome.examples == () and outcome.drops == {"no_pair": 1, "judgement": 4}


def test_malformed_judgements_give_no_pair() -> None:
    outcome = explored(built("self_rewarding", TEXT), Texts(("y1", "y2", "y3", "y4"), lambda *_: "5 stars"))
    assert outcome.examples == () and outcome.measured == {"malformed": 1}


def test_a_sample_without_an_answer_may_be_rejected_and_is_never_chosen() -> None:
    policy = ScriptedPolicy()
    pair = Extremes("m")([scored(policy, ("a?", "b", "c"), (5, 4, 1))], History())
    assert len(pair) == 1 and extremes((5, 4, 1), (False, True, True)) == (1, 2)
    assert extremes((5, 4, 1), (True, True, False)) == (0, 2)
    assert extremes((5, 1), (False, True)) is None and extremes((), ()) is None
    cut = scored(policy, ("a", "b", "c"), (-math.inf, 4, 1))
    assert len(Extremes("m")([cut], History())) == 1
    assert Extremes("m")([scored(policy, ("a", "b"), (-math.inf, 4))], History()) == []


def test_it_is_trained_with_dpo_against_the_weights_before_the_window() -> None:
    assert built("self_rewarding").objective == Dpo(beta=0.1, reference="parent")


def noisy(accuracy: float) -> Callable[[Prompt, int], str]:
    """A judge that scores the number in the answer, one time in so many at random."""

    def judge(prompt: Prompt, index: int) -> str:
        lots = random.Random(stable_id(prompt.id, str(index)))
        return f"Score: {number_in(shown(prompt)) if lots.random() < accuracy else lots.randint(0, 5)}"

    return judge


def ordered(*more: str, accuracy: float, prompts: int = 100) -> float:
    """The part of the pairs whose chosen answer is truly better."""
    method, right = built("self_rewarding", TEXT, *more), []
    for place in range(prompts):
        quality = random.Random(place).sample(range(6), 4)
        texts = tuple(f"{place} quality {each}" for each in quality)
        outcome = explored(method, Texts(texts, noisy(accuracy)), prompt=f"q {place}")
        right += [number_in(chosen) > number_in(rejected) for chosen, rejected in learned(outcome)]
    return sum(right) / len(right)


def test_pairs_are_more_precise_with_more_judgements() -> None:
    one, three, nine = (ordered(f"method.options.judge.k={k}", accuracy=0.4) for k in (1, 3, 9))
    assert one < three < nine, (one, three, nine)


def test_the_null_control_destroys_the_signal_and_keeps_the_number_of_pairs() -> None:
    assert ordered(accuracy=1.0) == 1
    assert ordered("method.options.shuffled=true", accuracy=1.0) == pytest.approx(0.5, abs=0.1)


def test_shuffled_scores_are_the_same_scores_and_stay_with_those_that_could_win() -> None:
    found = set()
    for name in map(str, range(40)):
        before = scored(ScriptedPolicy(), ("a", "b", "c", "d?"), (3, 2, -math.inf, 1), name)
        after = permuted(before).verdict.scores
        assert after[2:] == (-math.inf, 1) and sorted(after[:2]) == [2, 3]
        assert permuted(before).verdict.scores == after
        found.add(after[:2])
    assert found == set(itertools.permutations((3.0, 2.0)))


def test_a_judge_that_cannot_be_read_pauses_learning() -> None:
    method = built("self_rewarding")
    assert method.tune is not None
    facts = Facts(window=2, prompts=16, kept=0, measured={"malformed": (0.9, 16)}, tuned=method.tuned)
    with pytest.raises(ConfigError, match=r"90% of the judgements of recipe self_rewarding .* expected at most 50%"):
        method.tune(facts)


async def test_a_run_whose_judge_cannot_be_read_pauses_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps({"prompt": f"q {i}"}) + "\n" for i in range(200)))
    overrides = (
        "method.recipe=self_rewarding",
        "method.sampler.n=2",
        "report.questions=null",
        f"prompts.path={tmp_path}/pool.jsonl",
        "learning.groups_per_window=8",
        "gate.enabled=false",
        "gate.anchors=null",
    )
    policy = ScriptedPolicy(judge=lambda prompt, index: "Five stars!")
    config = configuration.load(None, overrides)
    await LocalSystem(config, tmp_path, policy, ScriptedSession(tmp_path)).run(until_paused=True)
    (paused,) = RunReader(tmp_path).events("paused")
    assert "100% of the judgements of recipe self_rewarding in window 1 could not be read" in str(paused.detail)
    assert "raise method.options.judge.max_tokens" in str(paused.detail)


def test_samples_that_cannot_differ_are_refused() -> None:
    with pytest.raises(ConfigError, match="recipe self_rewarding needs different samples"):
        built("self_rewarding", "method.sampler.n=1")
