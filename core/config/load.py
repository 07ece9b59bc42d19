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
    ("run", "shards"): (1, "a run has one buffer and one store; leave it out"),
    ("collect", "max_collectors"): (None, "the number of collectors is fixed; set collect.collectors"),
}
"""Settings that are gone, with the value that still holds, and what to do about any other."""
PATHS = (("model", "path"), ("prompts", "path"), ("gate", "anchors"), ("gate", "keys"), ("report", "questions"))
"""Settings that may name a shipped file."""


def load(path: str | Path | None, overrides: Sequence[str] = ()) -> Config:
    """The file's settings with `a.b=value` overrides (values are YAML) on top of the defaults. A path that the current
    folder does not have is that of a shipped file, if there is one of that name.

    Raises: ConfigError that names every wrong field, what was expected, and the nearest right name."""
    tree: dict[str, Any] = {}
    if path is not None:
        tree = _read(Path(shipped.found(str(path))))
    for override in overrides:
        _override(tree, override)
    try:
        return _with_shipped(Config.model_validate(_without_removed(tree)))
    except ValidationError as error:
        where = f" (in {path})" if path is not None and not overrides else ""
        raise ConfigError("\n".join(_readable(detail) + where for detail in error.errors())) from None


def _with_shipped(config: Config) -> Config:
    for part, name in PATHS:
        before = getattr(config, part)
        path: str | None = getattr(before, name)
        if path is not None and (now := shipped.found(path)) != path:
            config = config.model_copy(update={part: before.model_copy(update={name: now})})
    return config


def dump(config: Config) -> str:
    """The resolved whole as YAML; loading it gives the same config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, width=120)


def _read(path: Path) -> dict[str, Any]:
    try:
        tree: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no config file {path}; the shipped ones are in configs/") from None
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
    """Configs of older runs name settings that are gone. One that says what holds anyway is left out.

    Raises: ConfigError for any other value of it."""
    for (part, name), (holds, remedy) in REMOVED.items():
        settings: Any = tree.get(part)
        if isinstance(settings, dict) and name in settings:
            settings = dict(cast(dict[str, Any], settings))
            value = settings.pop(name)
            if value != holds:
                raise ConfigError(f"{part}.{name}={value} was removed, expected {holds} or nothing; {remedy}")
            tree = {**tree, part: settings}
    return tree


def _override(tree: dict[str, Any], override: str) -> None:
    name, equals, value = override.partition("=")
    if not equals or not name:
        raise ConfigError(f"{override!r} is no override; expected the form method.sampler.n=16")
    *parents, leaf = name.split(".")
    for key in parents:
        part: Any = {} if tree.get(key) is None else tree[key]
        if not isinstance(part, dict):
            raise ConfigError(f"{override!r} goes through {key!r}, which is a value and no part")
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
    """The dotted name of a setting; pydantic also puts the `kind` of a choice in between."""
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
