"""A run that has no anchors makes them from the base's answers to held-out prompts; candidates wait until then."""

import asyncio
import json
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from actors.cli import preflight
from actors.in_process import LocalSystem, ScriptedSession
from core import config as configuration
from core.config import Config
from core.errors import ConfigError, Unavailable
from core.messages import BASE, Candidate, Decision, PolicyRef, Prompt, Sampling
from core.store.writer import RunReader
from methods.data.held_out import kept_out, lacks_anchors, probes_of
from methods.data.prompts import as_prompt
from methods.scripted_policy import ScriptedPolicy, right_answer

QUESTIONS = 240
HELD_OUT = [f"held-out question {i}" for i in range(QUESTIONS)]


def settings(folder: Path, *overrides: str, held_out: list[str] = HELD_OUT) -> Config:
    pool = [f"pool question {i}" for i in range(400)] + held_out[:1]
    (folder / "pool.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in pool))
    (folder / "held.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in held_out))
    base = [
        f"prompts.path={folder}/pool.jsonl",
        "gate.anchors=null",
        f"gate.held_out={folder}/held.jsonl",
        "gate.anchor_samples=8",
        "report.questions=null",
        "learning.groups_per_window=32",
    ]
    return configuration.load(None, [*base, *overrides])


class Asked(ScriptedPolicy):
    """Notes what was sampled for the gate, and as whom; after `gone_after` such calls it is away."""

    def __init__(self, accuracy: dict[int, float], gone_after: int = 10**9) -> None:
        super().__init__(0, accuracy)
        self.sampled: list[tuple[PolicyRef | None, str, int]] = []
        self.gone_after = gone_after

    async def generate(self, prompt: Prompt, sampling: Sampling, ref: PolicyRef | None = None) -> list[Candidate]:
        if sampling.purpose == "gate" and sampling.temperature > 0:
            if len(self.sampled) >= self.gone_after:
                raise Unavailable("away")
            self.sampled.append((ref, prompt.messages[-1].content, sampling.n))
        return await super().generate(prompt, sampling, ref)


def kinds(folder: Path) -> list[str]:
    """Of all events."""
    return [event.kind for event in RunReader(folder).events()]


async def test_anchors_are_made_of_the_base_before_the_first_candidate_is_weighed(tmp_path: Path) -> None:
    config = settings(tmp_path)
    policy = Asked({0: 0.7, 1: 0.95})
    assert lacks_anchors(config, tmp_path) and probes_of(config, tmp_path) == ([], False)
    await LocalSystem(config, tmp_path, policy, ScriptedSession(tmp_path)).run(decided=1)
    assert Counter(policy.sampled) == Counter((BASE, text, 8) for text in HELD_OUT)
    seen = kinds(tmp_path)
    assert seen.count("anchored") == 1 and seen.index("anchored") < seen.index("weighing")
    assert not lacks_anchors(config, tmp_path)
    probes, certified = probes_of(config, tmp_path)
    assert len(probes) > 0.9 * QUESTIONS and not certified
    right = sum(probe.answer == right_answer(probe.prompt) for probe in probes)
    assert right > 0.95 * len(probes)  # the majority of eight at 70%
    assert RunReader(tmp_path).count("decisions") == 1
    assert not (tmp_path / "anchors.parquet.unfinished").exists()


async def test_anchors_cut_short_by_a_crash_are_continued(tmp_path: Path) -> None:
    config = settings(tmp_path)
    first = Asked({0: 0.7, 1: 0.95}, gone_after=100)
    system = LocalSystem(config, tmp_path, first, ScriptedSession(tmp_path))
    run = asyncio.create_task(system.run(decided=1))
    async with asyncio.timeout(60):
        while len(first.sampled) < 100 or "anchoring_failed" not in kinds(tmp_path):
            assert not run.done(), run.exception()
            await asyncio.sleep(0.05)
    making = (await system.evaluator.status())["anchors"]
    assert making is not None and (making["answered"], making["questions"]) == (100, QUESTIONS)
    run.cancel()
    with suppress(asyncio.CancelledError):
        await run
    assert "weighing" not in kinds(tmp_path)
    # a cut between drawing a window and publishing its version leaves a number out
    second = Asked({0: 0.7, 1: 0.95, 2: 0.95, 3: 0.95})
    await LocalSystem(config, tmp_path, second, ScriptedSession(tmp_path)).run(decided=1)
    both = [text for _, text, _ in [*first.sampled, *second.sampled]]
    assert len(first.sampled) == 100 and sorted(both) == sorted(HELD_OUT), "a question was asked twice, or never"


async def test_anchors_keep_the_slices_of_their_questions(tmp_path: Path) -> None:
    config = settings(tmp_path)
    rows = ({"prompt": text, "slice": "even" if place % 2 == 0 else None} for place, text in enumerate(HELD_OUT))
    (tmp_path / "held.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    await LocalSystem(config, tmp_path, Asked({0: 0.7, 1: 0.95}), ScriptedSession(tmp_path)).run(decided=1)
    probes, _ = probes_of(config, tmp_path)
    even = {text for place, text in enumerate(HELD_OUT) if place % 2 == 0}
    assert {probe.prompt.messages[-1].content for probe in probes if probe.slice == "even"} <= even
    assert sum(probe.slice == "even" for probe in probes) > 90
    (decision, *_) = RunReader(tmp_path).all("decisions", Decision)
    assert decision.verdict == "promote" and decision.slices["even"].result == "kept"
    assert "; worst slice even: " in decision.reason


async def test_a_file_named_by_the_user_is_made_once_and_used_by_the_next_run(tmp_path: Path) -> None:
    config = settings(tmp_path, f"gate.anchors={tmp_path}/shared/anchors.parquet")
    await LocalSystem(config, tmp_path, Asked({0: 0.7, 1: 0.95}), ScriptedSession(tmp_path)).run(decided=1)
    assert pq.read_table(tmp_path / "shared" / "anchors.parquet").column_names == ["prompt", "answer", "share"]
    other = tmp_path / "other"
    other.mkdir()
    again = Asked({0: 0.7, 1: 0.95})
    await LocalSystem(config, other, again, ScriptedSession(other)).run(decided=1)
    assert again.sampled == [] and "anchored" not in kinds(other)


async def test_held_out_prompts_of_which_no_anchor_can_be_made_are_an_alert_and_hold_the_candidates(
    tmp_path: Path,
) -> None:
    config = settings(tmp_path, "gate.anchor_share=1")
    policy = Asked({0: 0.0, 1: 0.9})  # wrong answers scatter, so there is no majority
    await LocalSystem(config, tmp_path, policy, ScriptedSession(tmp_path)).run(decided=1)
    (alert,) = [event.detail for event in RunReader(tmp_path).events("alert")]
    assert "all candidates will be held: the base model reaches a share of 1.0 on none of 240" in str(alert["reason"])
    decided, *_ = [event.detail for event in RunReader(tmp_path).events("decided")]
    assert (decided["verdict"], decided["reason"]) == ("hold", "there is nothing to weigh with")


def test_held_out_prompts_are_never_trained_on_also_before_they_are_answered(tmp_path: Path) -> None:
    config = settings(tmp_path)
    assert kept_out(config).holds(as_prompt(HELD_OUT[3].upper()))
    with pytest.raises(ConfigError, match=r"questions are both in .*pool\.jsonl and in the gate's probes"):
        preflight.check(config)


def test_no_note_says_that_all_candidates_are_held_if_the_run_will_make_anchors(tmp_path: Path) -> None:
    config = settings(tmp_path)
    (tmp_path / "pool.jsonl").write_text(json.dumps({"prompt": "pool question"}) + "\n")
    assert not [note for note in preflight.check(config) if "will be held" in note]
    without = config.model_copy(update={"gate": config.gate.model_copy(update={"held_out": None})})
    assert [note for note in preflight.check(without) if "every candidate will be held" in note]


async def test_anchors_that_measure_nothing_do_not_end_the_run_at_its_next_start_either(tmp_path: Path) -> None:
    config = settings(tmp_path)
    for _ in range(2):
        policy = ScriptedPolicy(0, {0: 1.0, 1: 1.0}, answer=lambda prompt: "7")
        await LocalSystem(config, tmp_path, policy, ScriptedSession(tmp_path)).run(decided=1)
        alerts = [str(event.detail["reason"]) for event in RunReader(tmp_path).events("alert")]
        assert alerts and all("have the answer '7'" in reason for reason in alerts)
        assert not (tmp_path / "anchors.parquet").exists()


async def test_unfinished_anchors_of_other_settings_are_begun_anew(tmp_path: Path) -> None:
    config = settings(tmp_path)
    (tmp_path / "anchors.parquet.unfinished").write_text('"other rules"\n["id", "7", 1.0, null]\n')
    policy = Asked({0: 0.7, 1: 0.95})
    await LocalSystem(config, tmp_path, policy, ScriptedSession(tmp_path)).run(decided=1)
    assert len(policy.sampled) == QUESTIONS


async def test_without_a_gate_no_anchors_are_made(tmp_path: Path) -> None:
    policy = Asked({0: 0.7, 1: 0.95})
    run = LocalSystem(settings(tmp_path, "gate.enabled=false"), tmp_path, policy, ScriptedSession(tmp_path))
    await run.run(decided=1)
    assert policy.sampled == [] and not (tmp_path / "anchors.parquet").exists()


@pytest.mark.parametrize(
    ("name", "said"), [("anchors.jsonl", "ends in .parquet"), ("a.parquet", "answers 240 held-out")]
)
def test_the_start_says_where_anchors_will_be_made_and_refuses_a_name_that_cannot_be(
    tmp_path: Path, name: str, said: str
) -> None:
    config = settings(tmp_path, f"gate.anchors={tmp_path}/{name}")
    (tmp_path / "pool.jsonl").write_text(json.dumps({"prompt": "pool question"}) + "\n")
    try:
        notes = preflight.check(config)
    except ConfigError as error:
        notes = [str(error)]
    assert [note for note in notes if said in note]


def test_a_missing_file_of_held_out_prompts_is_named_by_its_setting(tmp_path: Path) -> None:
    config = settings(tmp_path, f"gate.held_out={tmp_path}/none.jsonl")
    with pytest.raises(ConfigError, match=r"gate\.held_out: there is no file .*none\.jsonl"):
        preflight.check(config)
