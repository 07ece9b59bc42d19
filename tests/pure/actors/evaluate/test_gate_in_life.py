"""After the verdict: the watch, rollbacks, holds, hands and backing off, with all actors in one process."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.cli.progress import versions_table
from actors.in_process import LocalSystem, ScriptedSession
from actors.inspect.report import version_rows
from actors.inspect.sentences import sentence
from actors.people.admin import Admin, Ports
from actors.runtime.ports import GatePort
from actors.runtime.rpc import LocalCall, local
from core import config as configuration
from core.config import Config
from core.errors import Overdue, Unavailable, VersionError
from core.messages import Candidate, Decision, PolicyRef, Prompt, Sampling
from core.proxy import proxy
from core.store.facts import Answers, GateLedger, Watched, WindowDecided
from core.store.writer import RunReader
from methods.data.prompts import as_prompt
from methods.scripted_policy import ScriptedPolicy, right_answer
from training.gate.weighing import Weighing

WINDOW = 32


def settings(folder: Path, *overrides: str) -> Config:
    probes = [f"probe question {i}" for i in range(1800)]
    pq.write_table(pa.table({"prompt": [f"pool question {i}" for i in range(400)]}), folder / "pool.parquet")
    answers = [right_answer(as_prompt(probe)) for probe in probes]
    pq.write_table(pa.table({"prompt": probes, "answer": answers}), folder / "anchors.parquet")
    base = [
        f"prompts.path={folder}/pool.parquet",
        f"gate.anchors={folder}/anchors.parquet",
        "report.questions=null",
        f"learning.groups_per_window={WINDOW}",
        "gate.max_probes=1200",
    ]
    return configuration.load(None, [*base, *overrides])


def system(folder: Path, config: Config, accuracy: dict[int, float]) -> LocalSystem:
    return LocalSystem(config, folder, ScriptedPolicy(0, accuracy), ScriptedSession(folder))


@asynccontextmanager
async def running(run: LocalSystem) -> AsyncIterator[LocalSystem]:
    task = asyncio.create_task(run.run(decided=10**6))
    try:
        yield run
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(run: LocalSystem, holds: Callable[[dict], bool], timeout_s: float = 30.0) -> dict:
    async with asyncio.timeout(timeout_s):
        while True:
            with suppress(Unavailable):
                await run.versions.trainer.newest()  # refused until it has started
                status = await run.versions.people.status()
                if holds(status) and not status["owed"]:  # what it tells is on disk
                    return status
            await asyncio.sleep(0.02)


def events(folder: Path, kind: str) -> list[dict]:
    return [event.detail for event in RunReader(folder).events(kind)]


def rejected(folder: Path, window: int) -> bool:
    decided = RunReader(folder).read(WindowDecided, window)
    return decided is not None and decided.rejected


async def test_a_served_version_that_falls_off_is_rolled_back_by_the_watch(tmp_path: Path) -> None:
    config = settings(tmp_path, "run.versions=1")
    policy = ScriptedPolicy(0, {0: 0.95, 1: 0.96})
    run = LocalSystem(config, tmp_path, policy, ScriptedSession(tmp_path))
    async with running(run):
        await until(run, lambda s: s["slots"]["serve"] == 1)
        policy.accuracy[1] = 0.4
        status = await until(run, lambda s: s["states"]["1"] == "rolled_back")
        await until(run, lambda _: rejected(tmp_path, 1))
    assert (status["slots"]["serve"], status["slots"]["champion"], status["standing"]) == (0, 0, "base")
    (rolled_back,) = events(tmp_path, "rolled_back")
    assert rolled_back["by"] == "the watch" and "more than 0.03 worse than the champion on" in rolled_back["reason"]
    assert ("rollbacks_total", 1, {"by": "watch"}) in run.sink.records
    assert [row.verdict for row in version_rows(RunReader(tmp_path))] == ["base", "rolled back"]


async def test_a_version_that_keeps_its_promise_is_watched_until_nothing_speaks_against_it(tmp_path: Path) -> None:
    config = settings(tmp_path, "run.versions=1", "gate.watch_probes=128")
    run = system(tmp_path, config, {0: 0.95, 1: 0.96})
    async with running(run):
        await until(run, lambda s: s["slots"]["serve"] == 1)
        async with asyncio.timeout(30):
            while not events(tmp_path, "watched"):
                await asyncio.sleep(0.05)
    assert "nothing against it" in events(tmp_path, "watched")[0]["why"]
    assert not events(tmp_path, "rolled_back")


class Counted(ScriptedPolicy):
    """Notes which probes it was asked as whom; `gone_after` so many of v1 it is away."""

    def __init__(self, accuracy: dict[int, float], gone_after: int = 10**9) -> None:
        super().__init__(0, accuracy)
        self.probed: list[tuple[str, str]] = []
        self.gone_after = gone_after

    async def generate(self, prompt: Prompt, sampling: Sampling, ref: PolicyRef | None = None) -> list[Candidate]:
        if sampling.purpose == "gate":
            if str(ref) == "policy@v1" and sum(who == "policy@v1" for who, _ in self.probed) >= self.gone_after:
                raise Unavailable("away")
            self.probed.append((str(ref), prompt.id))
        return await super().generate(prompt, sampling, ref)


async def test_a_weighing_that_was_cut_short_goes_on_where_it_was(tmp_path: Path) -> None:
    config = settings(tmp_path, "run.versions=1", "gate.batch=64", "gate.watch_probes=0")
    accuracy = {0: 0.6, 1: 0.6}
    first = Counted(accuracy, gone_after=160)  # 64 + 64, then in the midst of the third batch
    run = LocalSystem(config, tmp_path, first, ScriptedSession(tmp_path))
    async with running(run):
        await until(run, lambda _: True)
        async with asyncio.timeout(30):
            while not events(tmp_path, "weighing_failed"):
                await asyncio.sleep(0.02)
    kept, second = known(tmp_path), Counted(accuracy)
    await LocalSystem(config, tmp_path, second, ScriptedSession(tmp_path)).run(decided=1)
    assert len(kept) >= 2 * (64 + 64) and not kept & set(second.probed), "what was kept is not asked again"
    whole = Counted(accuracy)
    (tmp_path / "whole").mkdir()
    await LocalSystem(config, tmp_path / "whole", whole, ScriptedSession(tmp_path)).run(decided=1)
    decisions = [next(iter(RunReader(d).all("decisions", Decision))) for d in (tmp_path, tmp_path / "whole")]
    assert decisions[0] == decisions[1], "the verdict is that of a weighing without a break"


async def test_a_watch_goes_on_after_a_restart(tmp_path: Path) -> None:
    config = settings(tmp_path, "run.versions=1", "gate.batch=16")
    first = Counted({0: 0.95, 1: 0.96})
    run = LocalSystem(config, tmp_path, first, ScriptedSession(tmp_path))
    async with running(run):
        await until(run, lambda s: s["slots"]["serve"] == 1)
        while not RunReader(tmp_path).read(Watched):
            await asyncio.sleep(0.01)
    kept, second = known(tmp_path), Counted({0: 0.95, 1: 0.4})
    again = LocalSystem(config, tmp_path, second, ScriptedSession(tmp_path))
    async with running(again):
        await until(again, lambda s: s["states"]["1"] == "rolled_back")
        await until(again, lambda _: RunReader(tmp_path).read(Watched) is None)
    assert kept and not kept & set(second.probed), "what was kept is not asked again"


async def falls_off(run: LocalSystem, policy: ScriptedPolicy) -> None:
    """v1 is promoted, answers badly from then on, and is rolled back."""
    async with running(run):
        await until(run, lambda s: s["slots"]["serve"] == 1)
        policy.accuracy[1] = 0.4
        await until(run, lambda s: s["states"]["1"] == "rolled_back")


def ports_of(run: LocalSystem) -> Ports:
    return Ports(
        store=local(run.store),
        versions=local(run.versions.people),
        ballot=local(run.buffer.people),
        learning=local(run.buffer.learning),
        feedback=local(run.feedback),
        trainer=local(run.trainer),
        evaluator=local(run.evaluator),
    )


class Fails(LocalCall):
    """Calls of a part; one call of one method answers with an error, done or not."""

    def __init__(self, part: object, method: str, *, done: bool) -> None:
        super().__init__(part)
        self.method: str | None = method
        self._done = done

    async def __call__(self, method: str, *arguments: Any, **settings: Any) -> Any:
        if method != self.method:
            return await super().__call__(method, *arguments, **settings)
        self.method = None
        if self._done:
            await super().__call__(method, *arguments, **settings)
        raise Overdue("no answer")


@pytest.mark.parametrize("done", [False, True])
async def test_a_promotion_whose_answer_is_lost_is_watched_all_the_same(tmp_path: Path, done: bool) -> None:
    policy = ScriptedPolicy(0, {0: 0.95, 1: 0.96})
    run = LocalSystem(settings(tmp_path, "run.versions=1"), tmp_path, policy, ScriptedSession(tmp_path))
    run.evaluator._versions = proxy(GatePort, Fails(run.versions.gate, "decide", done=done))
    await falls_off(run, policy)
    assert events(tmp_path, "weighing_failed") == [{"version": 1, "why": "no answer"}]


async def test_a_rollback_that_the_watch_could_not_ask_for_is_asked_for_again(tmp_path: Path) -> None:
    policy = ScriptedPolicy(0, {0: 0.95, 1: 0.96})
    run = LocalSystem(settings(tmp_path, "run.versions=1"), tmp_path, policy, ScriptedSession(tmp_path))
    run.evaluator._versions = proxy(GatePort, Fails(run.versions.gate, "call_back", done=False))
    await falls_off(run, policy)
    assert [failed["why"] for failed in events(tmp_path, "watch_failed")] == ["no answer"]


async def test_a_verdict_waits_for_a_versions_actor_that_died_before_it_to_prove_the_version_anew(
    tmp_path: Path,
) -> None:
    run = system(tmp_path, settings(tmp_path, "run.versions=1"), {0: 0.95, 1: 0.96})
    async with running(run):
        await until(run, lambda s: s["slots"]["serve"] == 1)
    (decision,) = RunReader(tmp_path).all("decisions", Decision)
    (tmp_path / "anew").mkdir()
    again = system(tmp_path / "anew", settings(tmp_path, "run.versions=1"), {0: 0.95, 1: 0.96})
    await again.store.start()
    serving = asyncio.create_task(again.store.run())
    await again.buffer.start()
    await again.versions.start()
    await again.versions.trainer.found(again.trainer._session.open(), "")
    await again.versions.trainer.propose(next(v for v in RunReader(tmp_path).versions() if v.ref.version == 1), "")
    with pytest.raises(Unavailable, match="v1 is being proven again"):
        await again.versions.gate.decide(decision, GateLedger(weighed=1))
    serving.cancel()


async def test_a_promotion_told_again_to_a_versions_actor_that_died_after_it_is_taken(tmp_path: Path) -> None:
    run = system(tmp_path, settings(tmp_path, "run.versions=1"), {0: 0.95, 1: 0.96})
    async with running(run):
        await until(run, lambda s: s["slots"]["serve"] == 1)
        ledger = RunReader(tmp_path).read(GateLedger) or GateLedger()
    (decision,) = RunReader(tmp_path).all("decisions", Decision)
    again = system(tmp_path, settings(tmp_path, "run.versions=1"), {0: 0.95, 1: 0.96})
    async with running(again):
        await until(again, lambda s: s["slots"]["serve"] == 1)
        assert await again.versions.gate.decide(decision, ledger)
        other = decision.model_copy(update={"verdict": "reject"})
        assert not await again.versions.gate.decide(other, ledger)
    assert len(events(tmp_path, "decided")) == 1


async def test_a_watch_goes_on_when_the_policy_was_away_just_after_the_promotion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(self: Weighing) -> None:
        raise Unavailable("away")

    monkeypatch.setattr(Weighing, "crown", away)
    policy = ScriptedPolicy(0, {0: 0.95, 1: 0.96})
    run = LocalSystem(settings(tmp_path, "run.versions=1"), tmp_path, policy, ScriptedSession(tmp_path))
    await falls_off(run, policy)
    assert events(tmp_path, "weighing_failed") == [{"version": 1, "why": "away"}]


def known(folder: Path) -> set[tuple[str, str]]:
    """Whose answers to which probes are on disk."""
    facts = RunReader(folder).read_all(Answers)
    return {(f"policy@v{version}", id) for version, answers in facts.items() for id in answers.root}


class Silent(ScriptedPolicy):
    """All but the base say nothing to one question in seven."""

    def _text(self, prompt: Prompt, ref: PolicyRef, chance: random.Random) -> str:
        told = super()._text(prompt, ref, chance)
        return told if ref.version == 0 or chance.random() > 1 / 7 else "I do not know."


async def test_a_version_that_agrees_more_and_is_silent_more_often_is_rejected_by_a_guard(tmp_path: Path) -> None:
    policy = Silent(0, {0: 0.5, 1: 1.0, 2: 1.0, 3: 1.0})
    run = LocalSystem(settings(tmp_path), tmp_path, policy, ScriptedSession(tmp_path))
    await run.run(decided=1)
    (first, *_) = RunReader(tmp_path).all("decisions", Decision)
    assert first.verdict == "reject" and first.reason.startswith("answers that cannot be read: ")


async def test_while_serving_is_held_a_promotion_waits_for_the_release(tmp_path: Path) -> None:
    run = system(tmp_path, settings(tmp_path, "run.versions=1"), {0: 0.3, 1: 0.6})
    async with running(run):
        await until(run, lambda s: True)
        await run.versions.people.hold("ann", "an audit")
        status = await until(run, lambda s: s["states"].get("1") == "promoted")
        assert (status["slots"]["serve"], status["waiting"], status["held"]["by"]) == (0, 1, "ann")
        with pytest.raises(VersionError, match="held by ann"):
            await run.versions.people.promote(1, "bob", "now")
        assert (await run.versions.people.release("ann", "done"))["serve"] == 1
    slots = (await run.versions.people.status())["slots"]
    assert slots["serve"] == slots["champion"] == 1
    assert [d["by"] for kind in ("serving_held", "serving_released") for d in events(tmp_path, kind)] == ["ann", "ann"]


async def test_a_hold_survives_a_restart(tmp_path: Path) -> None:
    first = system(tmp_path, settings(tmp_path, "run.versions=1"), {0: 0.3, 1: 0.6})
    async with running(first):
        await until(first, lambda s: True)
        await first.versions.people.hold("ann", "an audit")
        await until(first, lambda s: s["states"].get("1") == "promoted")
    second = system(tmp_path, settings(tmp_path, "run.versions=1"), {0: 0.3, 1: 0.6})
    async with running(second):
        status = await until(second, lambda s: s["decided"] == 1)
        assert (status["slots"]["serve"], status["waiting"], status["held"]["why"]) == (0, 1, "an audit")


async def test_hands_are_signed_and_written_down(tmp_path: Path) -> None:
    run = system(tmp_path, settings(tmp_path, "run.versions=1"), {0: 0.9, 1: 0.3})
    async with running(run):
        await until(run, lambda s: s["states"].get("1") == "rejected")
        console = Admin(ports_of(run), 10, str(tmp_path))
        signed = {"version": "v1", "by": "ann", "reason": "I [bold]know[/] better"}
        assert await console.command("promote", signed) == {"serve": 1, "before": 0}
        assert (await run.versions.people.status())["standing"] == "by hand"
        assert [row.standing for row in version_rows(RunReader(tmp_path))] == ["", "by hand"]
        versions_table(version_rows(RunReader(tmp_path)))
        assert await console.command("rollback", {"by": "bob", "version": "v1"}) == {"serve": 0, "before": 1}
        with pytest.raises(VersionError, match="v0 is the base and cannot be rolled back"):
            await console.command("rollback", {"by": "bob", "version": "v0"})
        with pytest.raises(VersionError, match="is not a version"):  # never "the one served", asked twice
            await console.command("rollback", {"by": "bob"})
        with pytest.raises(VersionError, match="is not a version"):
            await console.command("promote", {"version": "²"})
    (promoted,), (rolled_back,) = events(tmp_path, "promoted_by_hand"), events(tmp_path, "rolled_back")
    assert (promoted["by"], promoted["reason"]) == ("ann", "I [bold]know[/] better")
    assert (rolled_back["by"], rolled_back["reason"]) == ("bob", "no reason given")
    lines = [sentence(event) for event in RunReader(tmp_path).events("promoted_by_hand", "rolled_back")]
    assert r"by ann: I \[bold]know\[/] better" in str(lines[0]) and "rolled back" in str(lines[1])


async def test_rejection_after_rejection_slows_learning_down_and_then_pauses_it(tmp_path: Path) -> None:
    config = settings(tmp_path, "learning.backoff.after=2", "learning.backoff.stop=4", "learning.plateau=null")
    accuracy = {0: 0.9, **dict.fromkeys(range(1, 30), 0.3)}
    run = system(tmp_path, config, accuracy)
    await run.run(decided=4, until_paused=True)
    assert "candidates in a row were rejected" in (await run.buffer.learning.status())["paused"]
    assert events(tmp_path, "alert")[0]["reason"].startswith("4 candidates in a row were rejected; `ratchet versions`")
    scales = [version.stats["lr_scale"] for version in RunReader(tmp_path).versions()]
    assert scales[0] == 1.0 and 0.5 in scales
    again = system(tmp_path, config, accuracy)
    async with running(again):
        status = await until(again, lambda s: s["decided"] >= 4)
        assert status["rejections"] >= 4 and status["learning_rate_scale"] == 0.25
        await Admin(ports_of(again), 1, str(tmp_path)).command("resume", None)
        assert (await again.versions.people.status())["learning_rate_scale"] == 1.0
    scaled = [value for name, value, _ in again.sink.records if name == "learning_rate_scale"]
    assert scaled[0] == 0.25 and scaled[-1] == 1.0
    assert ("rejections_in_a_row", 4, {}) in run.sink.records


async def test_what_a_verdict_rests_on_is_named_in_events_tables_and_status(tmp_path: Path) -> None:
    config = settings(tmp_path, "run.versions=1")
    keyed = config.model_copy(update={"gate": config.gate.model_copy(update={"keys": config.gate.anchors})})
    for folder, chosen, standing in ((tmp_path / "a", config, "guarded"), (tmp_path / "b", keyed, "certified")):
        folder.mkdir()
        run = LocalSystem(chosen, folder, ScriptedPolicy(0, {0: 0.3, 1: 0.6}), ScriptedSession(folder))
        async with running(run):
            status = await until(run, lambda s: s["slots"]["serve"] == 1)
        assert status["standing"] == standing
        assert version_rows(RunReader(folder))[1].standing == standing
        assert f"({standing})" in str(sentence(RunReader(folder).events("decided")[0]))
