"""Commands that tell which methods there are, and compare them."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from actors.cli.app import DEFAULT, console
from actors.cli.temporary import RAY_SOCKET, check_temporary_folder
from core.config import Part
from core.shipped import PROGRAM
from methods import recipes


def methods(
    name: Annotated[str | None, typer.Argument(help="A recipe; without it, lists them", show_default=False)] = None,
) -> None:
    """List the recipes, or tell all about one: what it does, what it needs, its settings and how to run it."""
    if name is None:
        return console.print(recipes_table())
    console.print(described(name), soft_wrap=True, highlight=False)


def compare(
    recipe: Annotated[list[str], typer.Argument(help="Recipes; and settings of all runs, such as learning.lr=1e-3")],
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each recipe and of each control")] = 5,
    versions: Annotated[
        int | None, typer.Option(min=1, help="Decided candidates of a run; 5 if neither this nor a budget is given")
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(min=1, help="Sampled tokens: a run ends at its first decided version that reaches them"),
    ] = None,
    config: Annotated[Path, typer.Option("--config", "-c", help="YAML file of settings")] = DEFAULT,
    out: Annotated[Path, typer.Option(help="Folder of the runs and of the tables")] = Path("runs/compare"),
    page: Annotated[Path | None, typer.Option(help="Also write a page, such as docs/comparison.md")] = None,
) -> None:
    """Run recipes beside their null controls, from the same base and prompts, and tell what they gain and cost.
    Finished runs are not repeated: after an interruption the same command goes on. Exit status 1 if a run failed."""
    from actors.cli.compare import Asked, checked, write
    from actors.cli.compare import compare as run_all
    from actors.inspect.comparison import outcomes, safety

    check_temporary_folder(RAY_SOCKET)
    overrides = tuple(word for word in recipe if "=" in word)
    named = tuple(word for word in recipe if "=" not in word)
    asked = checked(Asked(named, overrides, config, seeds, versions, budget, out))
    found = run_all(asked, lambda line: console.print(line, soft_wrap=True, highlight=False))
    options = {"seeds": seeds, "versions": versions, "budget": budget, "config": config, "out": out, "page": page}
    given = [f"--{name}={value}" for name, value in options.items() if value is not None]
    files = write(asked, found, f"{PROGRAM} compare {shlex.join([*named, *given, *overrides])}", page)
    for headings, rows in (outcomes(found), safety(found)):
        table = Table(*headings, box=None, pad_edge=False)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    console.print(f"written: {', '.join(map(str, files))}", soft_wrap=True)
    if any(each.failures for each in found):
        raise typer.Exit(1)


def recipes_table() -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("recipe", "supervision", "cost", "source", "null control", "shown here"):
        table.add_column(heading, overflow="fold")
    for name in recipes.names():
        card = recipes.card(name)
        table.add_row(name, card.supervision, card.cost, card.source, card.control or "is one", card.shown)
    return table


def described(name: str) -> str:
    """Raises: ConfigError for an unknown recipe."""
    card, kind = recipes.card(name), recipes.settings(name)
    facts = {
        "title": card.title,
        "source": card.source,
        "supervision": card.supervision,
        "cost": f"{card.cost} (tokens a prompt, relative to method.sampler.n samples)",
        "null control": card.control or "it is one itself",
        "shown here": SHOWN[card.shown],
    }
    lines = [recipes.docstring(name).strip(), "", *(f"{what:13} {said}" for what, said in facts.items()), ""]
    lines += list(_settings(kind, "method.options", None)) or ["It has no settings of its own."]
    command = shlex.join(["up", f"method.recipe={name}", *card.overrides])
    return "\n".join([*lines, "", f"{PROGRAM} {command}"])


SHOWN = {
    "effect": "an effect beyond its null control (docs/results.md)",
    "no effect": "no effect beyond its null control (docs/results.md)",
    "plumbing": "that it runs; no claim about its effect is made (docs/results.md)",
}


def _settings(kind: type[Part], prefix: str, defaults: Part | None) -> Iterator[str]:
    """Each setting with its default, and its docstring below. `defaults`: None for those of the class."""
    for name, field in kind.model_fields.items():
        value: Any = field.get_default(call_default_factory=True) if defaults is None else getattr(defaults, name)
        if isinstance(value, Part):
            yield from _settings(type(value), f"{prefix}.{name}", value)
            continue
        yield f"{prefix}.{name}" + (" (required)" if field.is_required() else f"={_as_yaml(value)}")
        yield from (f"    {line}" for line in (field.description or "").splitlines())


def _as_yaml(value: Any) -> str:
    """As it is given on the command line."""
    return value if isinstance(value, str) else json.dumps(value, default=str)
