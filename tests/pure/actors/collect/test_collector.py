"""One bad prompt is one failed outcome: the collector explores the others."""

import asyncio
import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import pytest

from actors.collect.collector import Collector
from core import config as configuration
from core.errors import PromptError
from core.messages import Lease, Outcome, Prompt
from core.store.encoded import EncodedOutcome
from methods.data.text import asked_text
from methods.scripted_policy import ScriptedPolicy


class Buffer:
    """Leases three places once, and keeps what is delivered."""

    def __init__(self) -> None:
        self.leased = False
        self.delivered: list[Outcome | EncodedOutcome] = []
        self.all = asyncio.Event()

    async def lease(self, wanted: int, wait_s: float, token: str) -> Lease | None:
        if self.leased:
            await asyncio.Event().wait()
        self.leased = True
        return Lease(id="l", places=(0, 1, 2), expires_at=1e9)

    async def deliver(self, outcomes: Sequence[EncodedOutcome]) -> list[str]:
        self.delivered += outcomes
        if len(self.delivered) == 3:
            self.all.set()
        return ["accepted"] * len(outcomes)

    async def resettle(self, wait_s: float) -> None:
        await asyncio.Event().wait()


@pytest.mark.parametrize("error", [PromptError("refused"), jinja2.TemplateError("refused"), TypeError("refused")])
async def test_a_prompt_that_fails_leaves_the_others_alone(tmp_path: Path, error: Exception) -> None:
    pool = ["What is 2+2?", "What is bad?", "What is 3+3?"]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in pool))
    settings = [f"prompts.path={tmp_path}/pool.jsonl", "gate.anchors=null", "report.questions=null"]
    config = configuration.load(None, [*settings, "run.cpu_share=1"])

    def fail(prompt: Prompt, call: int) -> Exception | None:
        return error if "bad" in asked_text(prompt) else None

    buffer: Any = Buffer()
    collector = Collector(buffer, config, ScriptedPolicy(fail=fail, answer=lambda prompt: "4"))
    await collector.start()
    running = asyncio.create_task(collector.run())
    try:
        async with asyncio.timeout(10):
            await asyncio.wait({running, asyncio.create_task(buffer.all.wait())}, return_when="FIRST_COMPLETED")
        assert not running.done(), running
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    failures = [outcome.failure for outcome in buffer.delivered]
    assert sorted(map(str, failures)) == ["None", "None", f"{type(error).__name__}: refused"]
