"""Serving modes, one file each: ways to answer a user with more than one sample. `model="policy:vote"` uses vote.py, by
its CARD, its class Settings (what a request may set under the mode's name), and answer(shared, prompt, policy, given,
progress) -> ModeAnswer. Its policy pins the version, keeps the budget and counts. No mode sees an answer key.
"""

import pkgutil
from importlib import import_module
from typing import Any

from core.answers import extractor
from core.config import MethodConfig
from core.errors import ConfigError
from core.protocols import Mode
from methods.recipes import Shared


def names() -> list[str]:
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def modes(config: MethodConfig, off: tuple[str, ...] = ()) -> dict[str, Mode]:
    """The modes that these settings allow, by name, without those that are `off`. They pickle with cloudpickle, as
    arguments of a deployment must.

    Raises: ConfigError for an invalid pattern or choices in `config.answer`, and for an unknown name in `off`."""
    if unknown := sorted(set(off) - set(names())):
        raise ConfigError(f"serve.modes.off names {', '.join(unknown)}; the serving modes are: {', '.join(names())}")
    shared = Shared(config.sampler, extractor(config.answer), config.votes)
    alike = config.sampler.n < 2 or config.sampler.temperature == 0  # every ballot would be unanimous
    found = {name: _module(name) for name in names() if name not in off}
    return {
        name: Mode(module.answer, shared, module.Settings, module.CARD)
        for name, module in found.items()
        if not (alike and module.CARD.samples)
    }


def _module(name: str) -> Any:
    return import_module(f"{__name__}.{name.replace('-', '_')}")
