"""What the trainer tells of a version in training, and when it gives one up."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from actors.in_process import LocalSystem, ScriptedSession
from actors.train.trainer import LOOK_S
from core.errors import Overdue
from core.messages import BASE, Candidate, PolicyRef, Prompt, Published, Sampling, Window
from core.store.writer import RunReader
from methods.scripted_policy import ScriptedPolicy
from tests.pure.test_in_process import settings, verdicts

STEPS = 10_000


class Slow(ScriptedSession):
    """Takes STEPS steps for version 2, and one for any other."""

    taken = 0

    def make(
        self, window: Window, ref: PolicyRef, parent: Published, rest: Callable[[int, int], None], lr_scale: float = 1.0
    ) -> Published:
        if ref.version == 2:
            for step in range(1, STEPS + 1):
                self.taken = step
                time.sleep(0.005)
                rest(step, STEPS)
        return super().make(window, ref, parent, rest, lr_scale)


class Patient(ScriptedPolicy):
    """Lets the gate wait for version 1's answers until version 2 is in training."""

    def __init__(self, session: Slow, accuracy: dict[int, float]) -> None:
        super().__init__(0, accuracy)
        self._session = session

    async def generate(self, prompt: Prompt, sampling: Sampling, ref: PolicyRef | None = None) -> list[Candidate]:
        while sampling.purpose == "gate" and ref == PolicyRef(version=1) and self._session.taken < 3:
            await asyncio.sleep(0.01)
        return await super().generate(prompt, sampling, ref)


async def test_a_child_of_a_rejected_parent_is_given_up_and_its_window_trained_on_from_the_champion(
    tmp_path: Path,
) -> None:
    session = Slow(tmp_path)
    run = LocalSystem(settings(tmp_path), tmp_path, Patient(session, {0: 0.6, 1: 0.1, 3: 0.95, 4: 0.95}), session)
    running = asyncio.create_task(run.run(decided=2))
    async with asyncio.timeout(40):
        while session.taken < 3:
            await asyncio.sleep(0.01)
        status = await run.trainer.status()
        assert 2 <= status["step"] <= status["steps"] == STEPS
        assert status["phase"] == f"training on window 2, step {status['step']} of {STEPS}"
        await running
    assert session.taken < STEPS
    assert verdicts(tmp_path)[1] == "reject" and 2 not in verdicts(tmp_path)
    (told,) = [e.detail for e in RunReader(tmp_path).events() if e.kind == "abandoned"]
    assert (told["window"], told["parent"]) == (2, 1)
    assert f"v1 fell while policy@v2 was trained from it, after step {session.taken} of {STEPS}" in told["why"]
    third = run.versions.register.lineage.published[3]
    assert (third.window, third.parent) == (2, BASE)


async def test_a_versions_actor_that_is_away_ends_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class OneSlow(ScriptedSession):
        def make(
            self,
            window: Window,
            ref: PolicyRef,
            parent: Published,
            rest: Callable[[int, int], None],
            lr_scale: float = 1.0,
        ) -> Published:
            time.sleep(3 * LOOK_S)
            return super().make(window, ref, parent, rest, lr_scale)

    run = LocalSystem(settings(tmp_path), tmp_path, ScriptedPolicy(0, {0: 0.6, 1: 0.95}), OneSlow(tmp_path))
    asked = list[int]()

    async def away(version: int) -> bool:
        asked.append(version)
        raise Overdue("versions did not answer within 60 s")

    monkeypatch.setattr(run.trainer._versions, "stands", away, raising=False)
    await run.run(decided=1)
    assert asked and verdicts(tmp_path)[1] == "promote"
