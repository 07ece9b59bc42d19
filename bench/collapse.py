"""Does the gate keep a recipe that collapses away from users, where without it they would be served the collapse?

Three recipes that are known to ruin the embedded model, each with the gate off, with the label-free gate (anchors), and
with keys. Each run is one `ratchet up --versions N` in a directory of its own under --out; a finished one is not run
again, so this can be stopped and started. A drop is from the best version served before it, on the same report
questions, which neither gate nor trainer sees: its lower 95% paired bound, beside it the drop as seen.

`worst_drop_gated`, `worst_drop_ungated`: by recipe, over all seeds (and over both gates).
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from bench._runs import Records, finished, served_hits, worst_drop
from core.config import ReportConfig

HALF = 1200
"""Of the test file: the first so many questions are the keys of the gate that has some, the others the report's."""

RECIPES: dict[str, tuple[str, ...]] = {
    # majority reward at a rate that nothing bounds: no clip, no divergence from the base, no correction
    "ttrl": (
        "method.recipe=ttrl",
        "method.sampler.temperature=1",
        "method.min_share=0",
        "learning.replay_windows=1",
        "learning.lr=0.01",
        "learning.grpo.clip_low=null",
        "learning.grpo.clip_high=null",
        "learning.grpo.kl=0",
        "learning.grpo.max_correction=null",
        "learning.max_mismatch_kl=null",
        "learning.groups_per_window=96",
    ),
    # the same few questions over and over, whatever wins of two samples, many epochs at a high rate
    "hot-sft": (
        "method.recipe=lmsi",
        "method.sampler.n=2",
        "method.min_share=0",
        "method.distinct=false",
        "prompts.limit=64",
        "learning.epochs=6",
        "learning.replay_windows=1",
        "learning.lr=0.03",
        "learning.groups_per_window=64",
    ),
    # own text without any vote, at a temperature at which most of it is wrong
    "unvoted": (
        "method.recipe=unvoted",
        "method.sampler.n=2",
        "method.sampler.temperature=1",
        "learning.epochs=3",
        "learning.replay_windows=1",
        "learning.lr=0.02",
        "learning.groups_per_window=96",
    ),
}
GATES = ("off", "anchors", "keys")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--versions", type=int, default=4)
    parser.add_argument("--recipes", default=",".join(RECIPES))
    parser.add_argument("--gates", default=",".join(GATES), help="off, anchors (label-free), keys")
    parser.add_argument("--out", type=Path, default=Path("runs/bench-collapse"))
    parser.add_argument("--records", type=Path, help="OUT/records.jsonl unless told; what it holds is not run again")
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
        "recipes": found,
    }


def chosen(names: str, known: Any, what: str) -> list[str]:
    """Raises: SystemExit naming what there is."""
    for name in names.split(","):
        if name not in known:
            sys.exit(f"no {what} {name!r}; there are {', '.join(known)}")
    return names.split(",")


def worst(arms: Any) -> float | None:
    return max((drop for arm in arms for drop in arm["worst_served_drop"]), default=None)


def arm(recipe: str, gate: str, options: argparse.Namespace, records: Records) -> dict[str, Any]:
    """All seeds of one recipe under one gate."""
    reports = []
    for seed in range(options.seeds):
        name, asked = f"{recipe}-{gate}-v{options.versions}-s{seed}", settings(recipe, gate, options)
        found = records.get(name, named(asked, options))
        if found is None:
            found = report(options.out / name, seed, asked, options)
            records.add(name, named(asked, options), found)
        print(f"{name}: {found}", file=sys.stderr, flush=True)
        reports.append(found)
    return {name: [r[name] for r in reports] for name in reports[0]}


def named(asked: list[str], options: argparse.Namespace) -> list[str]:
    """The settings as they are the same on every machine."""
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
    """So that keys and report never share a question, and all gates are reported on the same ones."""
    out.mkdir(parents=True, exist_ok=True)
    table = pq.read_table(ReportConfig().questions)
    pq.write_table(table.slice(0, HALF), out / "keys.parquet")
    pq.write_table(table.slice(HALF), out / "report.parquet")
