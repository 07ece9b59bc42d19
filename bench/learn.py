"""Does the model improve without labels, over several seeds, and does the null control stay the same?

Each seed is one `ratchet up --versions N` in a separate run directory under --out. Finished runs are not repeated, so
the benchmark can be interrupted. Accuracy is greedy exact match on the report questions.
"""

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

from actors.cli.finished_run import finished
from actors.inspect.served import served_hits, worst_drop

NULL = "unvoted"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--versions", type=int, default=5)
    parser.add_argument("--recipes", default=f"lmsi,{NULL}")
    parser.add_argument("--out", type=Path, default=Path("runs/bench-learn"))
    parser.add_argument("--config", default="configs/tiny.yaml")
    parser.add_argument("overrides", nargs="*", help="settings for every run")


def run(options: argparse.Namespace) -> dict[str, Any]:
    if options.quick:
        options.seeds, options.versions, options.recipes = 1, 2, "lmsi"
        options.overrides = [
            "learning.groups_per_window=80",
            "report.per_version=0",
            "report.final=160",
            *options.overrides,
        ]
        options.out = options.out / "quick"
    return {recipe: summary(recipe, options) for recipe in options.recipes.split(",")}


def summary(recipe: str, options: argparse.Namespace) -> dict[str, Any]:
    """All seeds of one recipe. The null control runs with the gate off, so that its last version is served: it measures
    the training, not the gate."""
    reports = [report(recipe, seed, options) for seed in range(options.seeds)]
    ends = [r["accuracy_end"] for r in reports]
    return {
        "accuracy_start": reports[0]["accuracy_start"],
        "accuracy_end": ends,
        "accuracy_end_mean": statistics.mean(ends),
        "accuracy_n": reports[0]["accuracy_n"],
        "tokens_generated": [r["tokens_generated"] for r in reports],
        "tokens_evaluated": [r["tokens_evaluated"] for r in reports],
        "wall_s": [round(r["wall_s"]) for r in reports],
        "first_answer_s": [round(r["first_answer_s"], 1) for r in reports],
        "verdicts": ["".join(v["verdict"][0] for v in r["versions"][1:]) for r in reports],
        "by_version": [
            [round(v["accuracy"], 4) if v["accuracy"] is not None else None for v in r["versions"]] for r in reports
        ],
        "worst_served_drop": [r["worst_served_drop"] for r in reports],
    }


def report(recipe: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    folder = options.out / f"{Path(options.config).stem}-{recipe}-v{options.versions}-s{seed}"
    settings = [*options.overrides, f"method.recipe={recipe}", *(["gate.enabled=false"] if recipe == NULL else [])]
    body = finished(folder, options.config, options.versions, seed, settings)
    body["worst_served_drop"] = worst_drop(served_hits(folder))[0]
    print(f"{recipe} seed {seed}: {body['accuracy_start']} -> {body['accuracy_end']}", file=sys.stderr)
    return body
