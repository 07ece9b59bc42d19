"""Reads a config from YAML and overrides, and explains every error in it."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from core import shipped
from core.config.root import Config
from core.errors import ConfigError

REMOVED: dict[tuple[str, str], tuple[Any, str]] = {
    ("run", "shards"): (1, "a run has one buffer and one store; remove the setting"),
    ("collect", "max_collectors"): (None, "the number of collectors is fixed; set collect.collectors"),
}
"""Removed settings -> the only value still accepted, and the remedy for any other value."""
OPTIONS: dict[str, Any] = {
    "min_share": 0.5,
    "max_winners": 64,
    "distinct": True,
    "train_n": None,
    "divide_by_std": True,
}
"""Settings of `method` that became options of its recipe -> their default. A default is dropped: not all recipes know
it."""
PATHS = (
    ("model", "path"),
    ("prompts", "path"),
    ("gate", "anchors"),
    ("gate", "keys"),
    ("gate", "held_out"),
    ("report", "questions"),
)
"""Settings that may name a shipped file."""


def load(path: str | Path | None, overrides: Sequence[str] = ()) -> Config:
    """The defaults, replaced by the file's settings and then by `a.b=value` overrides (values are YAML). A path that
    does not exist in the current folder means the shipped file of that name, if there is one.

    Raises: ConfigError that names every wrong field, the expected value, and the nearest valid name."""
    tree: dict[str, Any] = {}
    if path is not None:
        tree = _read(Path(shipped.found(str(path))))
    for override in overrides:
        _override(tree, override)
    try:
        return _with_shipped(Config.model_validate(_with_options(_without_removed(tree))))
    except ValidationError as error:
        where = f" (in {path})" if path is not None and not overrides else ""
        raise ConfigError("\n".join(_readable(detail) + where for detail in error.errors())) from None


def dump(config: Config) -> str:
    """The resolved config as YAML. Loading it gives the same config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, width=120)


def _with_shipped(config: Config) -> Config:
    """Paths of shipped files are made absolute."""
    for part, name in PATHS:
        before = getattr(config, part)
        path: str | None = getattr(before, name)
        if path is not None and (now := shipped.found(path)) != path:
            config = config.model_copy(update={part: before.model_copy(update={name: now})})
    return config


def _read(path: Path) -> dict[str, Any]:
    try:
        tree: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"there is no config file {path}; the shipped ones are in configs/") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} holds {type(tree).__name__}, expected a mapping of settings")
    return cast(dict[str, Any], tree)


def _without_removed(tree: dict[str, Any]) -> dict[str, Any]:
    """Drops removed settings, which configs of older runs still name, if they have the one accepted value.

    Raises: ConfigError for any other value."""
    for (part, name), (accepted, remedy) in REMOVED.items():
        settings: Any = tree.get(part)
        if isinstance(settings, dict) and name in settings:
            settings = dict(cast(dict[str, Any], settings))
            value = settings.pop(name)
            if value != accepted:
                raise ConfigError(f"{part}.{name}={value} was removed, expected {accepted} or nothing; {remedy}")
            tree = {**tree, part: settings}
    return tree


def _with_options(tree: dict[str, Any]) -> dict[str, Any]:
    """Moves settings of recipes, which configs of older runs name beside others, to `method.options`."""
    parts: list[Any] = [tree.get(part) or {} for part in ("method", "learning")]
    if not all(isinstance(part, dict) for part in parts):
        return tree  # refused with the rest
    method, learning = (dict(cast(dict[str, Any], part)) for part in parts)
    if not isinstance(method.get("options") or {}, dict):
        return tree
    moved = {name: method.pop(name) for name in OPTIONS if name in method}
    options = {name: value for name, value in moved.items() if value != OPTIONS[name]}
    grpo = learning.pop("grpo", None)
    if method.get("recipe") == "ttrl" and grpo:
        options["grpo"] = grpo
    if not moved and grpo is None:
        return tree
    method["options"] = {**options, **(method.get("options") or {})}
    return {**tree, "method": method, "learning": learning}


def _override(tree: dict[str, Any], override: str) -> None:
    name, equals, value = override.partition("=")
    if not equals or not name:
        raise ConfigError(f"{override!r} is not an override; expected the form method.sampler.n=16")
    *parents, leaf = name.split(".")
    for key in parents:
        part: Any = {} if tree.get(key) is None else tree[key]
        if not isinstance(part, dict):
            raise ConfigError(f"{override!r} goes through {key!r}, which is a value, not a part of the config")
        tree[key] = part
        tree = cast(dict[str, Any], part)
    try:
        tree[leaf] = yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"the value of {override!r} is not YAML: {error}") from None


def _readable(detail: ErrorDetails) -> str:
    where = _place(detail["loc"])
    if detail["type"] == "extra_forbidden":
        nearest = difflib.get_close_matches(where, list(_known_names(Config)), n=1, cutoff=0.0)
        return f"unknown setting {where}; did you mean {nearest[0]}?"
    message = detail["msg"].removeprefix("Value error, ")
    return f"{where}: {message} (got {detail['input']!r})" if where else message


def _place(loc: Sequence[int | str]) -> str:
    """The dotted name of a setting, without the `kind` of a union that pydantic inserts."""
    known = _known_names(Config)
    names: list[str] = []
    for part, after in zip(loc, [*loc[1:], None], strict=False):
        here = ".".join([*names, f"{part}."])
        if not isinstance(after, str) or any(name.startswith(here) for name in known):
            names.append(str(part))
    return ".".join(names)


def _known_names(part: type[BaseModel], prefix: str = "") -> list[str]:
    names: list[str] = []
    for name, field in part.model_fields.items():
        names.append(prefix + name)
        for inner in _parts_in(field.annotation):
            names += _known_names(inner, f"{prefix}{name}.")
    return names


def _parts_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [part for inner in get_args(annotation) for part in _parts_in(inner)]
