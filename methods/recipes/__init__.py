"""Recipes: one file per method, found by its name. Each has `build(config) -> Method`.

A recipe only composes parts; samplers, scorers, filters and selectors have their own files.
"""

import difflib
import pkgutil
from importlib import import_module

from core.config import MethodConfig
from core.errors import ConfigError
from core.protocols import Method


def names() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def build(config: MethodConfig) -> Method:
    """Raises: ConfigError if no recipe has this name, or if it cannot work with these settings."""
    if config.recipe not in names():
        nearest = difflib.get_close_matches(config.recipe, names(), n=1, cutoff=0.0)[0]
        raise ConfigError(
            f"no recipe {config.recipe!r} in methods/recipes; did you mean {nearest}? (there are: {', '.join(names())})"
        )
    return import_module(f"{__name__}.{config.recipe}").build(config)
