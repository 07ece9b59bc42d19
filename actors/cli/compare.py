"""`ratchet compare`: runs recipes and their null controls one after the other, and writes what they gain and cost."""

import hashlib
import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from actors.cli.finished_run import finished
from actors.inspect import comparison_plot
from actors.inspect.comparison import Compared, label, page, summarize
from actors.inspect.surroundings import commit, load_average, machine
from core.config import Config, load
from core.errors import ConfigError
from methods import recipes

OPTIONS = "method.options."
NO_GATE = "gate.enabled=false"
"""A control measures the training and not the gate, so its last version is served."""
FAR = 1000
"""The most versions of a run that ends by its budget."""


@dataclass(frozen=True)
class Arm:
    """A recipe or a control with all its settings."""

    name: str
    control_of: str | None
    settings: tuple[str, ...]


@dataclass(frozen=True)
class Asked:
    """What to compare, and how far."""

    recipes: tuple[str, ...]
    overrides: tuple[str, ...]
    """Settings of all runs."""
    config: Path
    seeds: int
    versions: int | None
    budget: int | None
    """Sampled tokens; a run ends at its first decided version that reaches them."""
    out: Path

    @property
    def most_versions(self) -> int:
        return self.versions or (FAR if self.budget else 5)


def arms(asked: Asked) -> list[Arm]:
    """Each recipe, followed by its control. A recipe that is itself a null control has none, and no gate. Raises:
    ConfigError for a recipe or a setting that cannot work, before anything runs."""
    controls = {recipes.card(name).control for name in asked.recipes}
    made: list[Arm] = []
    for name in dict.fromkeys(asked.recipes):
        card = recipes.card(name)
        given = (*card.overrides, *asked.overrides)
        if not card.control:
            if name not in controls:
                made.append(Arm(name, None, _of(asked, name, (*given, NO_GATE))))
            continue
        made.append(Arm(name, None, _of(asked, name, given)))
        if "=" in card.control:
            made.append(Arm(card.control, name, _of(asked, name, (*given, card.control, NO_GATE))))
        else:
            of_control = (*recipes.card(card.control).overrides, *_known_to(card.control, given), NO_GATE)
            made.append(Arm(card.control, name, _of(asked, card.control, of_control)))
    for arm in made:
        recipes.build(resolved(asked, arm).method)
    return made


def resolved(asked: Asked, arm: Arm) -> Config:
    return load(asked.config, arm.settings)


def folder(asked: Asked, arm: Arm, seed: int) -> Path:
    """The run directory. Arms with the same settings share it; another setting needs another run."""
    rules = [resolved(asked, arm).model_dump_json(), str(asked.most_versions)]
    digest = hashlib.sha256("\n".join(rules).encode()).hexdigest()[:8]
    name = next(setting for setting in arm.settings if setting.startswith("method.recipe=")).partition("=")[2]
    return asked.out / f"{asked.config.stem}-{name}-{digest}-s{seed}"


def compare(
    asked: Asked, tell: Callable[[str], object], run: Callable[..., dict[str, Any]] = finished
) -> list[Compared]:
    """All arms, seed by seed, so that after an interruption every recipe has as many. A run that fails is told and
    left out; the next call tries it again. Raises: ConfigError."""
    planned = arms(asked)
    found = [Compared(arm.name, arm.control_of, arm.settings) for arm in planned]
    for seed in range(asked.seeds):
        for arm, compared in zip(planned, found, strict=True):
            there = folder(asked, arm, seed)
            try:
                body = run(there, str(asked.config), asked.most_versions, seed, arm.settings)
            except subprocess.CalledProcessError as error:
                compared.failures[seed] = f"`up` ended with status {error.returncode}; see {there}/logs"
                tell(f"{label(compared)}, seed {seed}: {compared.failures[seed]}")
                continue
            compared.runs[seed] = summarize(there, body)
            accuracy = " -> ".join(_percent(body[at]) for at in ("accuracy_start", "accuracy_end"))
            tell(f"{label(compared)}, seed {seed}: {accuracy}")
    return found


def write(asked: Asked, found: Sequence[Compared], command: str, page_file: Path | None) -> list[Path]:
    """comparison.md, .svg and .json in `asked.out`, and the page with its plot elsewhere. Returns their paths."""
    told = conditions(asked)
    files = [asked.out / "comparison.md", *([page_file] if page_file is not None else [])]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        plot = file.with_suffix(".svg")
        comparison_plot.draw(plot, found)
        file.write_text(page(found, command, told, plot.name))
    body = {"command": command, "conditions": told, "compared": [asdict(each) for each in found]}
    data = asked.out / "comparison.json"
    data.write_text(json.dumps(body, indent=1))
    return [*files, data]


def conditions(asked: Asked) -> dict[str, object]:
    about = machine()
    end = f"after {asked.most_versions} decided versions"
    if asked.budget:
        end = f"at the first decided version for which {asked.budget:,} tokens were sampled, or {end}"
    return {
        "config": str(asked.config),
        "each run ends": end,
        "seeds": f"0 to {asked.seeds - 1}",
        "commit": commit() or "unknown",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{about['cpu']}, {about['cores']} cores, load average {load_average()} at the end",
    }


def _of(asked: Asked, recipe: str, settings: Sequence[str]) -> tuple[str, ...]:
    """The settings of a run. The options of the config's own recipe are no options of others."""
    own = load(asked.config).method.recipe == recipe
    budget = [f"run.versions={asked.most_versions}", f"run.tokens={asked.budget}"] if asked.budget else []
    return (f"method.recipe={recipe}", *([] if own else ["method.options={}"]), *budget, *settings)


def _known_to(recipe: str, settings: Sequence[str]) -> list[str]:
    """Without options that the recipe does not know."""
    kind = recipes.settings(recipe)
    if kind.model_config.get("extra") == "ignore":
        return list(settings)
    options = [setting.removeprefix(OPTIONS).partition("=")[0].partition(".")[0] for setting in settings]
    pairs = zip(settings, options, strict=True)
    return [each for each, option in pairs if not each.startswith(OPTIONS) or option in kind.model_fields]


def _percent(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.1%}"


def checked(asked: Asked) -> Asked:
    """Raises: ConfigError."""
    if not asked.recipes:
        raise ConfigError(f"no recipe is named; name some of {', '.join(recipes.names())}")
    if any(setting.startswith("method.recipe=") for setting in asked.overrides):
        raise ConfigError("method.recipe is set for each run; name the recipes themselves, as in `compare lmsi ttrl`")
    return asked
