"""A promoted version may not be much worse on a named kind of question, whatever the mean says."""

import asyncio
import json
import random
from pathlib import Path

import numpy as np
import pytest

from core.config import GateConfig, SlicesConfig
from core.errors import ConfigError
from core.messages import BASE, Candidate, ChatMessage, Evidence, PolicyRef, Prompt, Sampling
from core.messages.versions import Question
from methods.data import prompts
from methods.scripted_policy import ScriptedPolicy
from training.gate import slices
from training.gate.gate import Gate
from training.gate.rule import alpha_of
from training.gate.weighing import Weighing

NEW = PolicyRef(version=1)


def evidence(*found: tuple[str, int], held: tuple[str, ...] = ()) -> Evidence:
    """`found`: the slice of each probe, and the candidate's hit minus the champion's."""
    return Evidence(
        candidate=NEW,
        champion=BASE,
        candidate_hits=tuple(d >= 0 for _, d in found),
        champion_hits=tuple(d <= 0 for _, d in found),
        certified=True,
        slices=tuple(name for name, _ in found),
        held_slices=held,
    )


RISING = [("chat", 1)] * 150 + [("sums", -1)] * 30 + [("sums", 0)] * 70
"""The mean rises by .48 while sums fall by .30."""


def shuffled(found: list[tuple[str, int]]) -> list[tuple[str, int]]:
    return random.Random(0).sample(found, len(found))


def test_a_slice_that_falls_while_the_mean_rises_rejects_the_candidate_by_name() -> None:
    found = shuffled(RISING)
    without = Gate(GateConfig()).decide(evidence(*found))
    assert without is not None and without.verdict == "promote"
    decision = Gate(GateConfig()).decide(evidence(*found, held=("chat", "sums")))
    assert decision is not None and decision.verdict == "reject"
    assert decision.reason == "more than 0.1 worse than the champion on a slice (sums: 70.0% against 100.0% of 100)"
    assert (decision.slices["sums"].result, decision.slices["chat"].result) == ("worse", "kept")


def test_a_promotion_waits_until_every_held_slice_is_shown_to_be_kept() -> None:
    """1 / alpha_1 is 32.9; with ties alone the wealth, the mean of (1 + stake .1 / 1.1)^n, reaches it at 84."""
    gate, chat = Gate(GateConfig()), [("chat", 1)] * 100
    assert gate.decide(evidence(*chat, *[("sums", 0)] * 83, held=("chat", "sums"))) is None
    decision = gate.decide(evidence(*chat, *[("sums", 0)] * 84, held=("chat", "sums")))
    assert decision is not None and decision.verdict == "promote"
    assert decision.reason.endswith("the new champion; worst slice sums: 100.0% against 100.0% of 84")


def test_an_undecided_slice_holds_the_candidate_and_says_what_is_missing() -> None:
    found = evidence(*[("chat", 1)] * 100, *[("sums", 0)] * 9, held=("chat", "sums"))
    decision = Gate(GateConfig()).decide(found, exhausted=True)
    assert decision is not None and decision.verdict == "hold"
    assert decision.reason == (
        "undecided after all 109 probes, and on sums: 100.0% against 100.0% of 9: bring more questions of these slices"
    )


def test_the_evidence_for_a_rejection_grows_with_the_number_of_slices() -> None:
    """50 for one slice are reached by 13 losses in a row; 100 for two by 14."""
    for held, losses in ((("sums",), 13), (("chat", "sums"), 14)):
        for n, result in ((losses - 1, "open"), (losses, "worse")):
            found = slices.judged(evidence(*[("sums", -1)] * n, held=held), GateConfig(), 0.05)
            assert found["sums"].result == result, (held, n)
            assert (found["sums"].candidate_rate, found["sums"].champion_rate, found["sums"].probes) == (0, 1, n)


def test_a_slice_without_any_probe_yet_is_open() -> None:
    assert Gate(GateConfig()).decide(evidence(*[("chat", 1)] * 200, held=("chat", "sums"))) is None
    one, found = slices.judged(evidence(("chat", 1), held=("chat", "sums")), GateConfig(), 0.05).values()
    assert (one.probes, one.candidate_rate, one.champion_rate, one.result) == (1, 1, 0, "open")
    assert (found.probes, found.candidate_rate, found.champion_rate, found.result) == (0, 0, 0, "open")


def test_a_version_that_is_worse_on_a_slice_by_more_than_delta_is_kept_no_oftener_than_alpha() -> None:
    """The worst case: exactly delta worse on the slice. Kept at any of 600 probes with probability at most alpha_1."""
    rng, alpha, kept = np.random.default_rng(0), alpha_of(1, 0.05), 0
    for _ in range(400):
        d = rng.choice([1, 0, -1], p=[0.05, 0.80, 0.15], size=600)
        found = evidence(*(("sums", int(x)) for x in d), held=("sums",))
        kept += slices.judged(found, GateConfig(), alpha)["sums"].result == "kept"
    assert kept / 400 <= alpha + 2 * (alpha * (1 - alpha) / 400) ** 0.5
    assert kept < 400 * 0.05


def test_an_equal_version_is_seldom_rejected_for_one_of_many_slices() -> None:
    rng, worse = np.random.default_rng(1), 0
    names = tuple(f"s{i}" for i in range(10))
    for _ in range(40):
        d = rng.choice([1, 0, -1], p=[0.1, 0.8, 0.1], size=2000)
        found = evidence(*((names[place % 10], int(x)) for place, x in enumerate(d)), held=names)
        worse += any(each.result == "worse" for each in slices.judged(found, GateConfig(), 0.03).values())
    assert worse <= 2


def test_a_promoted_version_is_rolled_back_for_a_slice_on_fresh_probes_only() -> None:
    before = [("sums", 0)] * 100
    gate = Gate(GateConfig())
    fallen = evidence(*before, *[("sums", -1)] * 40, *[("chat", 1)] * 60, held=("chat", "sums"))
    said = gate.regret(fallen, since=100, saturated=False)
    assert said is not None and said.startswith("more than 0.1 worse than the champion on the slice sums, on ")
    assert "(evidence 200 to 1)" in said
    assert gate.regret(fallen, since=140, saturated=False) is None
    for losses, back in ((15, False), (16, True)):  # 200 for two slices are reached by 16 losses in a row
        found = evidence(("sums", -1), *[("sums", -1)] * losses, held=("chat", "sums"))
        assert (slices.fell(found, 1, GateConfig()) is not None) == back, losses
    assert gate.regret(evidence(*before, ("sums", 0), held=("sums",)), since=100, saturated=False) is None


# --- through a weighing ----------------------------------------------------------------------------------------------


class Uneven(ScriptedPolicy):
    """The new version is right on all chats and on no sums; the base on half of each."""

    async def generate(self, prompt: Prompt, sampling: Sampling, ref: PolicyRef | None = None) -> list[Candidate]:
        (made,) = await super().generate(prompt, sampling, ref)
        number, sums = int(prompt.id[1:]), "sum" in prompt.messages[0].content
        right = (not sums) if ref == NEW else number % 2 == 0
        return [made.model_copy(update={"text": prompt.id if right else "wrong", "finish": "stop"})]


def test_a_weighing_holds_the_slices_of_its_probes_that_are_large_enough() -> None:
    def asked(i: int, kind: str) -> Question:
        return Question(Prompt(id=f"q{i}", messages=(ChatMessage(role="user", content=f"{kind} {i}"),)), f"q{i}", kind)

    probes = [asked(i, "chat") for i in range(400)] + [asked(i, "sum") for i in range(400, 520)]
    probes += [asked(i, "rare") for i in range(520, 530)]
    config = GateConfig(batch=32, slices=SlicesConfig(least=100))
    weighing = Weighing(
        Uneven(0, {0: 0.5, 1: 0.5}), Gate(config), probes, random.Random(0), NEW, BASE, lambda text: text, 8, True
    )
    assert weighing.evidence.held_slices == ("chat", "sum")
    decision = asyncio.run(weighing.verdict())
    assert decision.verdict == "reject" and "on a slice (sum: 0.0% against" in decision.reason
    assert len(weighing.evidence.slices) == weighing.asked and set(weighing.evidence.slices) <= {"chat", "sum", "rare"}
    assert decision.slices["chat"].candidate_rate == 1.0


def a_probe(kind: str) -> Question:
    return Question(Prompt(id="q", messages=(ChatMessage(role="user", content="?"),)), "a", kind)


def test_the_start_says_which_slices_are_held_and_which_are_too_small() -> None:
    probes = [a_probe("chat" if i < 150 else "rare") for i in range(160)]
    assert slices.notes(probes, GateConfig()) == [
        "no version more than 0.1 worse is served on: chat",
        "too few probes to hold these slices (gate.slices.least=100): rare (10)",
    ]
    assert slices.notes([a_probe("")] * 200, GateConfig()) == [], "what has no name is no slice"
    exact = [a_probe("chat")] * 100
    assert slices.held(exact, GateConfig()) == ("chat",) and slices.held(exact[1:], GateConfig()) == ()
    assert slices.held(probes, GateConfig(max_probes=99)) == (), "those beyond max_probes are never asked"


# --- from a file -----------------------------------------------------------------------------------------------------


def lines(path: Path, *rows: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_file_names_the_slices_of_its_questions(tmp_path: Path) -> None:
    named, plain = {"prompt": "a", "answer": "1", "slice": " sums "}, {"prompt": "b", "answer": "2", "slice": None}
    path = lines(tmp_path / "keys.jsonl", named, plain, {"prompt": "c", "answer": "3"})
    assert [question.slice for question in prompts.questions(path)] == ["sums", "", ""]
    first, *_ = prompts.questions(path)
    assert prompts.slices(path) == {first.prompt.id: "sums"}
    wrong = lines(tmp_path / "wrong.jsonl", {"prompt": "a", "answer": "1", "slice": 7})
    with pytest.raises(ConfigError, match=r"wrong\.jsonl:1: a slice is a name, not 7"):
        prompts.questions(wrong)
