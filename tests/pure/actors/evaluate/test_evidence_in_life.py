"""What a verdict rests on, with all actors in one process: the budget, the choice of probes, keys that can be hit."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.in_process import LocalSystem, ScriptedSession
from actors.inspect.report import version_rows
from actors.inspect.sentences import sentence
from core.messages import Decision
from core.store.facts import GateLedger
from core.store.writer import RunReader
from tests.pure.actors.evaluate.test_gate_in_life import Counted, events, settings, system
from training.gate.rule import alpha_of


async def test_every_candidate_has_its_own_place_in_the_budget_across_restarts(tmp_path: Path) -> None:
    rising = {0: 0.1, 1: 0.3, 2: 0.5, 3: 0.7, 4: 0.9, **dict.fromkeys(range(5, 30), 0.9)}
    for decided in (2, 4):
        await system(tmp_path, settings(tmp_path), rising).run(decided=decided)
    decisions = [decision for decision in RunReader(tmp_path).all("decisions", Decision) if decision.probes]
    ledger = RunReader(tmp_path).read(GateLedger) or GateLedger()
    assert ledger.weighed == len(decisions) >= 4
    assert ledger.superiority_spent == pytest.approx(sum(alpha_of(j, 0.05) for j in range(1, len(decisions) + 1)))
    for j, decision in enumerate(decisions[:4], start=1):
        assert f"(chance of error {alpha_of(j, 0.05):.2g})" in decision.reason


@pytest.mark.parametrize("keyed", [False, True])
async def test_probes_that_nobody_can_hit_promote_nobody_also_after_a_restart(tmp_path: Path, keyed: bool) -> None:
    config = settings(tmp_path, "learning.plateau=null")
    anchors = pq.read_table(tmp_path / "anchors.parquet")
    wrong = [str(int(answer) + 10**9) for answer in anchors.column("answer").to_pylist()]
    pq.write_table(pa.table({"prompt": anchors.column("prompt"), "answer": wrong}), tmp_path / "anchors.parquet")
    if keyed:
        config = config.model_copy(update={"gate": config.gate.model_copy(update={"keys": config.gate.anchors})})
    for decided in (1, 3):
        run = system(tmp_path, config, {0: 0.5, **dict.fromkeys(range(1, 30), 0.6)})
        await run.run(decided=decided)
    assert {row.verdict for row in version_rows(RunReader(tmp_path))} <= {"base", "hold", "undecided"}
    what = "keys" if keyed else "anchors"
    decisions = list(RunReader(tmp_path).all("decisions", Decision))
    assert len(decisions) >= 3
    for decision in decisions:
        assert decision.reason.startswith(
            f"the {what} look broken: of {decision.probes} probes 0 by policy@v0 and 0 by"
        )
    alerts = [detail["reason"] for detail in events(tmp_path, "alert")]
    assert len(alerts) == 2, "one alert for each life of the evaluator"
    assert alerts[0] == f"v1 is held, and so will be all others: {decisions[0].reason}"
    lines = [str(sentence(event)) for event in RunReader(tmp_path).events("decided")]
    assert all(f"the {what} look broken" in line for line in lines)


async def test_each_weighing_asks_its_own_choice_of_probes(tmp_path: Path) -> None:
    policy = Counted({0: 0.5, **dict.fromkeys(range(1, 30), 0.4)})
    await LocalSystem(settings(tmp_path), tmp_path, policy, ScriptedSession(tmp_path)).run(decided=6)
    weighed = [decision for decision in RunReader(tmp_path).all("decisions", Decision) if decision.probes]
    one, other, *_ = (str(decision.candidate) for decision in weighed)
    asked = list(dict.fromkeys(id for who, id in policy.probed if who == one))[:64]
    again = list(dict.fromkeys(id for who, id in policy.probed if who == other))[:64]
    assert len(asked) == len(again) == 64 and len({*asked} & {*again}) < 16, "of 1,800 probes"
