"""People vote while the whole system runs in one process."""

import asyncio
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from actors.in_process import LocalSystem, ScriptedSession
from actors.inspect.trace import trace
from actors.runtime.ports import BallotPort
from actors.runtime.rpc import local
from core import config as configuration
from core.messages import Vote
from core.store.writer import RunReader
from methods.data.prompts import as_prompt
from methods.scripted_policy import ScriptedPolicy, right_answer

QUESTIONS = [f"question {i}" for i in range(40)]


class LateVoters:
    """Ten people vote against the right answer of every prompt once it is explored."""

    def __init__(self, buffer: BallotPort, run_dir: Path) -> None:
        self.buffer, self.run_dir = buffer, run_dir
        self.results: list[str] = []

    async def start(self) -> None: ...

    async def run(self) -> None:
        seen: set[str] = set()
        while True:
            reader = RunReader(self.run_dir)
            explored = {outcome.prompt_id for outcome in reader.briefs() if outcome.prompt_id} - seen
            reader.close()
            for prompt in explored:
                cast = [self._vote(voter, prompt) for voter in range(10)]
                self.results += await self.buffer.vote(cast)
            seen |= explored
            await asyncio.sleep(0.01)

    def _vote(self, voter: int, prompt: str) -> Vote:
        right = next(right_answer(asked) for text in QUESTIONS if (asked := as_prompt(text)).id == prompt)
        about = {"id": f"{prompt}:{voter}", "prompt_id": prompt, "voter": str(voter), "by": "person"}
        return Vote.model_validate({**about, "answer": right, "weight": -1})


async def test_late_votes_change_what_later_windows_replay(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": QUESTIONS}), tmp_path / "pool.parquet")
    config = configuration.load(
        None,
        [
            f"prompts.path={tmp_path}/pool.parquet",
            "gate.enabled=false",
            "gate.anchors=null",
            "report.questions=null",
            "learning.groups_per_window=8",
            "learning.max_lag=0",
            "learning.plateau=null",
            "run.versions=3",
        ],
    )
    policy = ScriptedPolicy(0, dict.fromkeys(range(6), 0.9))
    system = LocalSystem(config, tmp_path, policy, ScriptedSession(tmp_path, seconds=0.5))
    voters = LateVoters(local(system.buffer.people), tmp_path)
    system.beside.append(voters)
    await system.run(decided=3)
    status = await system.buffer.learning.status()
    assert set(voters.results) <= {"counted", "waiting"} and status["person_votes"] >= 160
    assert status["resettled"] >= 16
    reader = RunReader(tmp_path)
    first = [reader.outcome(place) for place in reader.windows()[1]]
    assert all(outcome is not None and outcome.revision == 10 and not outcome.examples for outcome in first)
    assert sum(len(outcome.examples) for outcome in reader.outcomes()) > 0, "what they gave at first is kept"
    drawn = [event.detail["examples"] for event in reader.events("drawn")]
    assert drawn[2] < 2 * drawn[0], "the windows before are replayed as the votes left them"
    voted = reader.events("voted")
    assert voted and voted[0].detail["votes"] > 0
    steps = trace(reader, f"place:{reader.windows()[1][0]}")["life"]
    again = [step for step in steps if step["what"] == "settled again"]
    assert again and all(step["at"] and step["by"] == "buffer" for step in again)
