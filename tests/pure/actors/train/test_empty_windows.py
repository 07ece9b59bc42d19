"""A window without an example makes no version, learning goes on behind it, and a run with an end says why it stops."""

from pathlib import Path

from actors.in_process import LocalSystem, ScriptedSession
from core.messages import Candidate, PolicyRef, Prompt, Sampling
from core.store.facts import WindowDecided
from core.store.writer import RunReader
from methods.scripted_policy import ScriptedPolicy
from tests.pure.test_in_process import settings

NOTHING = {0: 0.0, 1: 0.9, 2: 0.9}
UNANIMOUS = "method.options.min_share=1"  # wrong answers scatter


class Late(ScriptedPolicy):
    """The base has no majority for the first `prompts` prompts."""

    def __init__(self, prompts: int) -> None:
        super().__init__(0, dict(NOTHING))
        self.left = prompts

    async def generate(self, prompt: Prompt, sampling: Sampling, ref: PolicyRef | None = None) -> list[Candidate]:
        if sampling.n > 1:
            self.left -= 1
            self.accuracy[0] = 0.0 if self.left >= 0 else 0.9
        return await super().generate(prompt, sampling, ref)


def windows(folder: Path, kind: str) -> list[int]:
    return [event.detail["window"] for event in RunReader(folder).events(kind)]


async def test_learning_goes_on_behind_windows_without_an_example_also_after_a_restart(tmp_path: Path) -> None:
    config = settings(tmp_path, "gate.enabled=false", "learning.max_lag=0", UNANIMOUS)
    await LocalSystem(config, tmp_path, Late(64), ScriptedSession(tmp_path)).run(decided=1)
    reader = RunReader(tmp_path)
    (first,) = reader.versions()[:1]
    examples = {event.detail["window"]: event.detail["examples"] for event in reader.events("drawn")}
    assert windows(tmp_path, "empty") == [1, 2] and (first.ref.version, first.window) == (1, 3)
    assert examples[1] == examples[2] == 0 < examples[3]
    assert reader.read(WindowDecided, 1) == WindowDecided(version=0, rejected=False, discarded=True)
    again = LocalSystem(config, tmp_path, Late(0), ScriptedSession(tmp_path))
    await again.run(decided=2)
    assert windows(tmp_path, "empty") == [1, 2] and len(RunReader(tmp_path).versions()) >= 2


async def test_a_run_with_an_end_pauses_and_says_why_instead_of_going_on_for_ever(tmp_path: Path) -> None:
    config = settings(tmp_path, "run.versions=1", "learning.groups_per_window=16", UNANIMOUS)
    system = LocalSystem(config, tmp_path, ScriptedPolicy(0, dict(NOTHING)), ScriptedSession(tmp_path))
    await system.run(until_paused=True)
    reason = (await system.buffer.learning.status())["paused"]
    assert reason is not None and reason.startswith("3 windows in a row, the last window 3, had no example: the recipe")
    assert "16 prompts each; loosen its filters (method.options)" in reason
    assert RunReader(tmp_path).versions() == [] and windows(tmp_path, "empty") == [1, 2, 3]
