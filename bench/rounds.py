"""Does learning while serving cost more than rounds of bare vLLM and TRL, at the same accuracy?

The rival (`bench/rivals/rounds.py`, under 100 lines) samples with bare vLLM, votes, and fine-tunes with TRL on windows
of as many prompts as Ratchet, in one process, serving nobody; with and without keeping the adapter that agrees best
with the gate's anchors. Its learning rate is the best of --rates on a seed of its own. Ratchet runs with the shipped
config. Its CPU seconds are those of all its processes from its first answer on, with gate, proofs, store, serving and
report counted. The rival's are sampling and training; its own gate is told apart, its report is free. Starting is
counted for neither. Accuracy: greedy, on the first questions of the test.

`to_goal`: the first point at which --goal is served, by tokens and CPU seconds; none if it is not reached.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench._live import LiveRun
from bench._rivals import answer
from bench._runs import Records
from core.config import PatternAnswer, load
from core.messages import Decision
from core.store.facts import Measured
from core.store.writer import RunReader

QUESTIONS, PROBES = 400, 500
"""Of the report; and of the anchors that the rival's own gate asks."""
SEEN_S = 1.0
LONGEST_S = 1200.0


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--goal", type=float, default=0.75)
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 3e-3])
    parser.add_argument("--out", type=Path, default=Path("runs/bench-rounds"))
    parser.add_argument("--config", default="configs/tiny.yaml")


def run(options: argparse.Namespace) -> dict[str, Any]:
    if options.quick:
        options.seeds, options.rounds, options.rates = 1, 1, [3e-3]
    records = Records(options.out / "records.jsonl")
    rates = {rate: rival(options, records, 1000, rate, False)[-1]["accuracy"] for rate in options.rates}
    best = max(rates, key=lambda rate: rates[rate])
    seeds = range(options.seeds)
    sides = {
        "ratchet": [ours(options, records, seed) for seed in seeds],
        "rounds": [rival(options, records, seed, best, False) for seed in seeds],
        "rounds, best kept by anchors": [rival(options, records, seed, best, True) for seed in seeds],
    }
    return {
        "rates": rates,
        "to_goal": {name: [to_goal(points, options.goal) for points in found] for name, found in sides.items()},
        "end": {name: [points[-1]["accuracy"] for points in found] for name, found in sides.items()},
        "points": sides,
    }


def to_goal(points: list[dict[str, Any]], goal: float) -> dict[str, float] | None:
    """The first point whose served accuracy reaches the goal."""
    found = next((point for point in points if point["accuracy"] >= goal), None)
    return None if found is None else {name: found[name] for name in ("tokens", "cpu_s", "gate_cpu_s")}


# --- the rival -------------------------------------------------------------------------------------------------------


def rival(
    options: argparse.Namespace, records: Records, seed: int, rate: float, keep_best: bool
) -> list[dict[str, Any]]:
    config = load(options.config)
    answers, sampler = config.method.answer, config.method.sampler
    assert isinstance(answers, PatternAnswer)
    given = {
        "model": config.model.path, "pool": config.prompts.path, "test": config.report.questions,
        "anchors": config.gate.anchors, "pattern": answers.pattern, "n": sampler.n, "temperature": sampler.temperature,
        "max_tokens": sampler.max_tokens, "prompts": config.learning.groups_per_window, "rounds": options.rounds,
        "replay": config.learning.replay_windows, "seats": config.serve.engine.max_seqs, "batch": 32, "lr": rate,
        "questions": QUESTIONS, "probes": PROBES, "seed": seed, "keep_best": keep_best,
    }  # fmt: skip
    name, settings = f"rival-{'best-' if keep_best else ''}s{seed}", [json.dumps(given, sort_keys=True)]
    found = records.get(name, settings)
    if found is None:
        folder = options.out.absolute() / f"{name}-{rate:g}"
        found = {"rounds": answer("rounds", {**given, "out": str(folder)})}
        records.add(name, settings, found)
        print(name, rate, [row["accuracy"] for row in found["rounds"]], file=sys.stderr, flush=True)
    return served(found["rounds"])


def served(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rival's rounds with the accuracy of the adapter that is kept from there on. 0: still the base."""
    made: list[dict[str, Any]] = []
    accuracy = 0.0
    for row in rows:
        accuracy = row["accuracy"] if row["kept"] else accuracy
        made.append({**row, "cpu_s": row["sampling_cpu_s"] + row["training_cpu_s"], "accuracy": accuracy})
    return made


# --- ours ------------------------------------------------------------------------------------------------------------


def ours(options: argparse.Namespace, records: Records, seed: int) -> list[dict[str, Any]]:
    settings = (f"run.versions={options.rounds}", f"report.per_version={QUESTIONS}", "report.final=0")
    found = records.get(f"ratchet-s{seed}", [*settings, options.config])
    if found is None:
        its_own = argparse.Namespace(**{**vars(options), "run": None, "seed": seed, "out": options.out / f"s{seed}"})
        found = {"points": asyncio.run(followed(LiveRun(its_own, settings, anew=True)))}
        records.add(f"ratchet-s{seed}", [*settings, options.config], found)
        print(f"ratchet s{seed}", [point["accuracy"] for point in found["points"]], file=sys.stderr, flush=True)
    return found["points"]


async def followed(live: LiveRun) -> list[dict[str, Any]]:
    """The CPU seconds of the whole run at each verdict, and what was served from there on."""
    await live.up()
    start_s, seen, last = cpu_s(live), dict[int, float](), 0.0
    async with asyncio.timeout(LONGEST_S):
        while live.family():
            last = max(last, cpu_s(live))
            for version in decided(live.dir):
                seen.setdefault(version, last - start_s)
            await asyncio.sleep(SEEN_S)
    return points(live.dir, seen, last - start_s, accuracies(live.dir))


def accuracies(run_dir: Path) -> dict[int, float]:
    reader = RunReader(run_dir)
    found = {int(version): each.accuracy for version, each in reader.read_all(Measured).items()}
    reader.close()
    return found


def points(run_dir: Path, seen: dict[int, float], last: float, measured: dict[int, float]) -> list[dict[str, Any]]:
    """`seen`: version -> CPU seconds at its verdict; `last`: those at the end; `measured`: version -> accuracy."""
    reader = RunReader(run_dir)
    verdicts = {each.candidate.version: each.verdict for each in reader.all("decisions", Decision)}
    reader.close()
    rows = {row["version"]: row for row in json.loads((run_dir / "report.json").read_text())["versions"]}
    made: list[dict[str, Any]] = []
    serving = 0
    for version, verdict in sorted(verdicts.items()):
        serving = version if verdict == "promote" else serving
        about = {"tokens": rows[version]["tokens"], "cpu_s": seen.get(version, last), "gate_cpu_s": 0.0}
        made.append({"accuracy": measured[serving], **about, "verdict": verdict})
    return made


def decided(run_dir: Path) -> list[int]:
    reader = RunReader(run_dir)
    found = [each.candidate.version for each in reader.all("decisions", Decision)]
    reader.close()
    return found


def cpu_s(live: LiveRun) -> float:
    total = 0.0
    for process in live.family():
        try:
            total += sum(process.cpu_times()[:2])
        except OSError:
            continue
    return total
