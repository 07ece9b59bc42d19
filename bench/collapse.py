"""Does the gate protect users from recipes that collapse, compared with the same recipes without a gate?

It runs three recipes that are known to ruin the embedded model, and a healthy one, so that a gate that rejects all is
told from one that protects: each with the gate off, with the label-free gate (anchors), and with answer keys. Each run
is one `ratchet up --versions N` in a separate directory under --out. Finished runs are not repeated, so the benchmark
can be interrupted. It measures drops of accuracy from the best version served before, on the same report questions,
which neither gate nor trainer sees: the lower 95% paired bound, and the drop as measured.

`worst_drop_gated`, `worst_drop_ungated`: by recipe, over all seeds (and over both gates). `verdicts`: of each arm, see
`Verdicts`; `worse_served_bound` is the upper 95% bound (Clopper-Pearson) on the share of candidates for which a worse
version was served.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from actors.cli.finished_run import finished
from actors.inspect.served import Verdicts, served_hits, verdicts, worst_drop
from bench._runs import Records
from core.config import ReportConfig
from training.gate.statistics import upper_bound

HALF = 1200
"""The first HALF questions of the test file are the gate's answer keys, the others are report questions."""

RECIPES: dict[str, tuple[str, ...]] = {
    # majority reward at a high rate without bounds: no clip, no KL to the base, no correction
    "ttrl": (
        "method.recipe=ttrl",
        "method.sampler.temperature=1",
        "method.options.min_share=0",
        "learning.replay_windows=1",
        "learning.lr=0.01",
        "method.options.grpo.clip_low=null",
        "method.options.grpo.clip_high=null",
        "method.options.grpo.kl=0",
        "method.options.grpo.max_correction=null",
        "learning.max_mismatch_kl=null",
        "learning.groups_per_window=96",
    ),
    # the same few questions again and again, a vote of two samples, many epochs at a high rate
    "hot-sft": (
        "method.recipe=lmsi",
        "method.sampler.n=2",
        "method.options.min_share=0",
        "method.options.distinct=false",
        "prompts.limit=64",
        "learning.epochs=6",
        "learning.replay_windows=1",
        "learning.lr=0.03",
        "learning.groups_per_window=64",
    ),
    # own samples without a vote, at a temperature at which most of them are wrong
    "unvoted": (
        "method.recipe=unvoted",
        "method.sampler.n=2",
        "method.sampler.temperature=1",
        "learning.epochs=3",
        "learning.replay_windows=1",
        "learning.lr=0.02",
        "learning.groups_per_window=96",
    ),
    # the shipped recipe, which improves the embedded model
    "healthy": ("method.recipe=lmsi",),
}
GATES = ("off", "anchors", "keys")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--versions", type=int, default=4)
    parser.add_argument("--recipes", default=",".join(RECIPES))
    parser.add_argument("--gates", default=",".join(GATES), help="off, anchors (label-free), keys")
    parser.add_argument("--out", type=Path, default=Path("runs/bench-collapse"))
    parser.add_argument("--records", type=Path, help="default OUT/records.jsonl; runs in it are not repeated")
    parser.add_argument("--config", default="configs/tiny.yaml")
    parser.add_argument("overrides", nargs="*", help="settings for every run")


def run(options: argparse.Namespace) -> dict[str, Any]:
    if options.quick:
        options.seeds, options.versions, options.recipes, options.gates = 1, 2, "ttrl", "off,anchors"
        options.overrides = ["learning.groups_per_window=48", "report.final=240", *options.overrides]
        options.out = options.out / "quick"
    split_test_file(options.out)
    recipes, gates = chosen(options.recipes, RECIPES, "recipe"), chosen(options.gates, GATES, "gate")
    records = Records(options.records or options.out / "records.jsonl")
    found = {recipe: {gate: arm(recipe, gate, options, records) for gate in gates} for recipe in recipes}
    return {
        "worst_drop_gated": {r: worst(found[r][g] for g in gates if g != "off") for r in recipes},
        "worst_drop_ungated": {r: worst(found[r][g] for g in gates if g == "off") for r in recipes},
        "verdicts": {r: {g: together(found[r][g]["judged"]) for g in gates} for r in recipes},
        "gated": together(j for r in recipes for g in gates if g != "off" for j in found[r][g]["judged"]),
        "recipes": found,
    }


def together(judged: Iterable[dict[str, int]]) -> dict[str, float]:
    """The sums over runs, and the bound on the share of worse versions served."""
    total = sum((Counter(each) for each in judged), Counter())
    found = {name: total[name] for name in Verdicts._fields}
    return {**found, "worse_served_bound": round(upper_bound(total["worse_served"], total["candidates"]), 4)}


def chosen(names: str, known: Any, what: str) -> list[str]:
    """The names, split at commas. Raises: SystemExit that lists the known names."""
    for name in names.split(","):
        if name not in known:
            sys.exit(f"no {what} {name!r}; available: {', '.join(known)}")
    return names.split(",")


def worst(arms: Any) -> float | None:
    return max((drop for arm in arms for drop in arm["worst_served_drop"]), default=None)


def arm(recipe: str, gate: str, options: argparse.Namespace, records: Records) -> dict[str, Any]:
    """All seeds of one recipe under one gate."""
    reports = []
    for seed in range(options.seeds):
        name, asked = f"{recipe}-{gate}-v{options.versions}-s{seed}", settings(recipe, gate, options)
        found = records.get(name, named(asked, options))
        if found is None or "judged" not in found:  # a record of before the verdicts were judged
            found = report(options.out / name, seed, asked, options)
            records.add(name, named(asked, options), found)
        print(f"{name}: {found}", file=sys.stderr, flush=True)
        reports.append(found)
    return {name: [r[name] for r in reports] for name in reports[0]}


def named(asked: list[str], options: argparse.Namespace) -> list[str]:
    """The settings without paths of this machine."""
    return [options.config, *(setting.replace(str(options.out), "OUT") for setting in asked)]


def report(folder: Path, seed: int, asked: list[str], options: argparse.Namespace) -> dict[str, Any]:
    body = finished(folder, options.config, options.versions, seed, asked)
    hits = served_hits(folder)
    bound, seen = worst_drop(hits)
    return {
        "worst_served_drop": round(bound, 4),
        "worst_served_drop_seen": round(seen, 4),
        "served": {str(version): round(sum(outcomes) / len(outcomes), 4) for version, outcomes in hits.items()},
        "accuracy_start": round(body["accuracy_start"], 4),
        "accuracy_end": round(body["accuracy_end"], 4),
        "by_version": [round(v["accuracy"], 4) if v["accuracy"] is not None else None for v in body["versions"]],
        "judged": verdicts(folder)._asdict(),
        "verdicts": "".join(v["verdict"][0] for v in body["versions"][1:]),
        "wall_s": round(body["wall_s"]),
    }


def settings(recipe: str, gate: str, options: argparse.Namespace) -> list[str]:
    questions = [f"report.questions={options.out}/report.parquet", "report.per_version=600", "report.final=600"]
    gates = {
        "off": ["gate.enabled=false"],
        "anchors": [],
        "keys": [f"gate.keys={options.out}/keys.parquet", "gate.split=null"],
    }
    return [*RECIPES[recipe], *questions, *gates[gate], *options.overrides]


def split_test_file(out: Path) -> None:
    """Split the test file into keys and report questions. They share no question, and all gates get the same report."""
    out.mkdir(parents=True, exist_ok=True)
    table = pq.read_table(ReportConfig().questions)
    pq.write_table(table.slice(0, HALF), out / "keys.parquet")
    pq.write_table(table.slice(HALF), out / "report.parquet")
