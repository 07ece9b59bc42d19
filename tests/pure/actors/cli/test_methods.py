"""`ratchet methods` tells what a user has to know before choosing a recipe."""

import pytest
from typer.testing import CliRunner

from actors.cli.main import app
from core.config import load
from core.errors import ConfigError
from methods import recipes


def told(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["methods", *arguments])
    assert done.exit_code == 0, done.exception
    return done.stdout


def test_the_list_has_every_recipe_with_its_supervision_and_whether_its_effect_was_shown_here() -> None:
    lines = {line.split()[0]: line.split() for line in told().splitlines() if line.strip()}
    assert set(lines) == {"recipe", *recipes.names()}
    assert lines["lmsi"] == ["lmsi", "none", "1", "arXiv", "2210.11610", "unvoted", "effect"]
    assert lines["unvoted"][-3:] == ["is", "one", "effect"]


def test_of_one_recipe_it_tells_the_docstring_the_settings_and_the_command_that_runs_it() -> None:
    said = told("scpo").splitlines()
    assert said[0].startswith("Self-Consistency Preference Optimization (Prasad et al. 2024")
    at = said.index("method.options.min_share=0.5")
    assert said[at + 1] == "    Minimum share of the winner in the first window."
    assert "method.options.dpo.nll=1.0" in said and "method.options.dpo.beta=0.5" in said, "of scpo, not of every dpo"
    assert "method.options.weighted=true" in said
    assert said[-1].endswith("up method.recipe=scpo learning.replay_windows=1")


@pytest.mark.parametrize("name", recipes.names())
def test_the_command_of_every_recipe_is_one_that_can_start(name: str) -> None:
    command = told(name).splitlines()[-1].split()
    recipes.build(load("configs/tiny.yaml", command[2:]).method)


def test_an_unknown_recipe_is_refused_with_the_nearest_name() -> None:
    done = CliRunner().invoke(app, ["methods", "lmsy"])
    assert isinstance(done.exception, ConfigError) and "did you mean lmsi?" in str(done.exception)
