"""Recipes: one file per method, found by its name. Each has a CARD, which `methods` shows, a class Settings for
`method.options`, and build(settings, shared) -> Method. A recipe only composes parts, which have their own files.
"""

import difflib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, cast

from pydantic import ValidationError

from core.answers import extractor
from core.config import MethodConfig, Part, SamplerConfig, VotesConfig
from core.errors import ConfigError
from core.protocols import Extract, Method, Supervision


@dataclass(frozen=True)
class Card:
    """What a user has to know before choosing a recipe."""

    title: str
    source: str
    """Where the method was published, as `arXiv 2210.11610`."""
    supervision: Supervision
    cost: str
    """Tokens generated per prompt, relative to `sampler.n` samples."""
    shown: Literal["effect", "no effect", "plumbing"]
    """effect, no effect: docs/results.md compares it with its null control. plumbing: only that it runs."""
    control: str = "unvoted"
    """The recipe, or the setting, that is its null control."""
    overrides: tuple[str, ...] = ()
    """Settings of the run that the method as published needs."""


@dataclass(frozen=True)
class Shared:
    """The settings that all recipes and serving modes share."""

    sampler: SamplerConfig
    extract: Extract
    votes: VotesConfig


def names() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def card(name: str) -> Card:
    return _module(name).CARD


def settings(name: str) -> type[Part]:
    """The class of the recipe's own settings."""
    return _module(name).Settings


def docstring(name: str) -> str:
    return _module(name).__doc__ or ""


def build(config: MethodConfig) -> Method:
    """Raises: ConfigError if no recipe has this name, for options that it does not know, or if it cannot work with
    these settings."""
    module = _module(config.recipe)
    try:
        options = module.Settings.model_validate(_over(module.Settings().model_dump(), config.options))
    except ValidationError as error:
        raise ConfigError(_explained(config.recipe, module.Settings, error)) from None
    return module.build(options, Shared(config.sampler, extractor(config.answer), config.votes))


def _over(defaults: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe's defaults with these options in their place, so that one setting of a part leaves its others."""
    merged = dict(defaults)
    for name, value in options.items():
        known: Any = merged.get(name)
        both = isinstance(known, dict) and isinstance(value, dict)
        merged[name] = _over(cast(dict[str, Any], known), cast(dict[str, Any], value)) if both else value
    return merged


def _module(name: str) -> Any:
    if name not in names():
        nearest = difflib.get_close_matches(name, names(), n=1, cutoff=0.0)[0]
        raise ConfigError(
            f"no recipe {name!r} in methods/recipes; did you mean {nearest}? (there are: {', '.join(names())})"
        )
    return import_module(f"{__name__}.{name}")


def _explained(recipe: str, kind: type[Part], error: ValidationError) -> str:
    lines: list[str] = []
    for detail in error.errors():
        where = ".".join(("method.options", *map(str, detail["loc"])))
        if detail["type"] == "extra_forbidden":
            known = ", ".join(kind.model_fields) or "none"
            lines.append(f"recipe {recipe} has no setting {where}; it has: {known}")
        else:
            lines.append(f"{where}: {detail['msg'].removeprefix('Value error, ')} (got {detail['input']!r})")
    return "\n".join(lines)
