"""`ratchet compare` from recipes to a page; run directories stand in for the runs."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from actors.cli import compare as comparing
from actors.cli.compare import Asked, arms, checked, compare, folder, write
from actors.cli.finished_run import finished
from actors.cli.main import app
from core.config import load
from core.errors import ConfigError
from methods import recipes
from tests.pure.bench.run_directories import hits, run_directory


def asked(out: Path, *names: str, **more: Any) -> Asked:
    return replace(Asked(names, (), Path("configs/tiny.yaml"), 3, None, None, out), **more)


class Runs:
    """Makes the directory of a run that ended: lmsi and scpo reach 60%, others fall to 30%."""

    def __init__(self, failing: tuple[str, int] | None = None) -> None:
        self.made: list[str] = []
        self.failing = failing

    def __call__(self, there: Path, config: str, versions: int, seed: int, settings: Sequence[str]) -> dict[str, Any]:
        if (there / "report.json").is_file():
            return json.loads((there / "report.json").read_text())
        recipe = load(config, settings).method.recipe
        if self.failing == (recipe, seed):
            raise subprocess.CalledProcessError(1, "up")
        self.made.append(f"{recipe}-{seed}")
        right = 240 if recipe in ("lmsi", "scpo") else 120
        run_directory(there, {1: "promote"}, {0: hits(160), 1: hits(right)}, {})
        rows = [
            {"version": v, "verdict": verdict, "tokens": 50_000 * v, "agreement": None}
            for v, verdict in enumerate(("base", "promote"))
        ]
        gate = "guarded" if load(config, settings).gate.enabled else "off"
        body = {"accuracy_start": 0.4, "accuracy_end": right / 400, "tokens_generated": 60_000 + seed, "served": 1}
        body |= {"gate": gate, "versions": rows}
        (there / "report.json").write_text(json.dumps(body))
        return body


def test_each_recipe_is_followed_by_its_control_which_has_its_settings_and_no_gate(tmp_path: Path) -> None:
    made = arms(asked(tmp_path, "scpo", "lmsi", overrides=("learning.lr=0.01",)))
    assert [(arm.name, arm.control_of) for arm in made] == [
        ("scpo", None),
        ("unvoted", "scpo"),
        ("lmsi", None),
        ("unvoted", "lmsi"),
    ]
    configs = [comparing.resolved(asked(tmp_path), arm) for arm in made]
    assert [config.gate.enabled for config in configs] == [True, False, True, False]
    assert [config.learning.replay_windows for config in configs] == [1, 1, 4, 4], "scpo's own override"
    assert {config.learning.lr for config in configs} == {0.01}


def test_a_setting_is_a_control_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = replace(recipes.card("scpo"), control="method.options.weighted=false")
    monkeypatch.setattr(recipes.import_module("methods.recipes.scpo"), "CARD", card)
    recipe, control = (comparing.resolved(asked(tmp_path), arm).method for arm in arms(asked(tmp_path, "scpo")))
    assert (recipe.options, control.recipe, control.options) == ({}, "scpo", {"weighted": False})


def test_a_control_that_is_a_recipe_gets_only_the_options_that_it_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        recipes.import_module("methods.recipes.scpo"), "CARD", replace(recipes.card("scpo"), control="lmsi")
    )
    overrides = ("method.options.min_share=0.1", "method.options.dpo.beta=0.2")
    _, control = arms(asked(tmp_path, "scpo", overrides=overrides))
    assert comparing.resolved(asked(tmp_path), control).method.options == {"min_share": 0.1}


def test_options_in_the_config_are_of_its_own_recipe(tmp_path: Path) -> None:
    """smollm2.yaml sets max_winners of lmsi, which scpo does not know."""
    made = arms(asked(tmp_path, "lmsi", "scpo", config=Path("configs/smollm2.yaml")))
    options = [load("configs/smollm2.yaml", arm.settings).method.options for arm in made if arm.control_of is None]
    assert options == [{"max_winners": 4}, {}]


def test_a_null_control_alone_has_no_gate_and_beside_its_recipe_it_is_not_run_twice(tmp_path: Path) -> None:
    (alone,) = arms(asked(tmp_path, "unvoted"))
    assert not comparing.resolved(asked(tmp_path), alone).gate.enabled
    assert [arm.name for arm in arms(asked(tmp_path, "lmsi", "unvoted", "lmsi"))] == ["lmsi", "unvoted"]


def test_a_budget_is_told_to_every_run_and_versions_bound_it(tmp_path: Path) -> None:
    with_budget = asked(tmp_path, "lmsi", budget=10_000)
    for arm in arms(with_budget):
        run = comparing.resolved(with_budget, arm).run
        assert (run.tokens, run.versions) == (10_000, comparing.FAR)
    assert asked(tmp_path, budget=10_000, versions=7).most_versions == 7
    assert asked(tmp_path).most_versions == 5


def test_another_setting_needs_another_run(tmp_path: Path) -> None:
    ways = [
        asked(tmp_path, "lmsi"),
        asked(tmp_path, "lmsi", versions=6),
        asked(tmp_path, "lmsi", budget=1000),
        asked(tmp_path, "lmsi", overrides=("learning.lr=0.5",)),
    ]
    assert len({folder(way, arms(way)[0], 0) for way in ways}) == 4
    assert folder(ways[0], arms(ways[0])[0], 0) == folder(ways[0], arms(ways[0])[0], 0)


@pytest.mark.parametrize(
    ("names", "more", "why"),
    [
        (("lmsy",), {}, "did you mean lmsi"),
        (("lmsi",), {"overrides": ("learning.nonsense=1",)}, "unknown setting learning.nonsense"),
        (("lmsi",), {"overrides": ("method.options.nonsense=1",)}, "has no setting method.options.nonsense"),
        ((), {}, "no recipe is named"),
        (("lmsi",), {"overrides": ("method.recipe=ttrl",)}, "name the recipes themselves"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(
    tmp_path: Path, names: tuple[str, ...], more: dict[str, Any], why: str
) -> None:
    runs = Runs()
    with pytest.raises(ConfigError, match=why):
        compare(checked(asked(tmp_path, *names, **more)), print, runs)
    assert not runs.made


def test_an_interrupted_comparison_goes_on_and_a_run_that_failed_is_tried_again(tmp_path: Path) -> None:
    runs, told = Runs(failing=("unvoted", 1)), list[str]()
    found = compare(asked(tmp_path, "lmsi"), told.append, runs)
    assert runs.made == ["lmsi-0", "unvoted-0", "lmsi-1", "lmsi-2", "unvoted-2"]
    assert "control of lmsi: unvoted, seed 1: `up` ended with status 1" in told[3]
    assert sorted(found[1].runs) == [0, 2] and list(found[1].failures) == [1]
    again = Runs()
    found = compare(asked(tmp_path, "lmsi"), told.append, again)
    assert again.made == ["unvoted-1"] and not found[1].failures and len(found[1].runs) == 3


def test_recipes_with_the_same_control_and_settings_share_its_runs(tmp_path: Path) -> None:
    runs = Runs()
    compare(asked(tmp_path, "scpo", "lmsi", seeds=1, overrides=("learning.replay_windows=1",)), print, runs)
    assert runs.made == ["scpo-0", "unvoted-0", "lmsi-0"]


def test_tables_plot_and_page_are_written(tmp_path: Path) -> None:
    way = asked(tmp_path / "out", "lmsi", budget=40_000)
    found = compare(way, print, Runs())
    files = write(way, found, "./run compare lmsi", tmp_path / "docs" / "comparison.md")
    assert files == [tmp_path / "out/comparison.md", tmp_path / "docs/comparison.md", tmp_path / "out/comparison.json"]
    text = files[1].read_text()
    assert "| lmsi | 3 | 40.0% (40.0% to 40.0%) | 60.0% (60.0% to 60.0%) | +30.0 (+30.0 to +30.0) |" in text
    assert "at the first decided version for which 40,000 tokens were sampled" in text
    assert (tmp_path / "docs/comparison.svg").is_file() and str(tmp_path) not in text
    (first, _) = json.loads(files[2].read_text())["compared"]
    assert first["runs"]["0"]["curve"] == [[0, 0.4], [50_000, 0.6]]


def test_the_command_separates_recipes_from_settings_and_prints_both_tables(tmp_path: Path) -> None:
    way = asked(tmp_path, "lmsi", seeds=1, versions=1, overrides=("learning.lr=0.01",))
    compare(way, print, Runs())  # so that the command finds its runs finished
    arguments = ["compare", "lmsi", "learning.lr=0.01", "--seeds=1", "--versions=1", f"--out={tmp_path}"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.exception
    assert "control of lmsi: unvoted" in done.stdout and "no gate" in done.stdout
    assert "compare lmsi --seeds=1 --versions=1" in (tmp_path / "comparison.md").read_text()


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    there = run_directory(tmp_path / "r", {}, {}, {})
    assert finished(there, "no/such.yaml", 1, 0, ["no.such=1"])["accuracy_start"] == 0.5
