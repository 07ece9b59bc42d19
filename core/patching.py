"""Patches of other people's code: the versions each is made for, and the switch that turns it off.

Every patch is listed in docs/architecture.md, "Patches of other people's code".
"""

import os
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from core.errors import ConfigError

SWITCH = "RATCHET_NO_PATCH"
"""Environment: names of patches that are not applied, separated by commas. Each node of a cluster reads its own."""
NAMES = (
    *("amx", "cpu_lora", "fork_server", "log_handlers", "plain_app", "stat_logger", "stream_events", "tied_head"),
    *("dashboard_address", "haproxy", "ray_processes"),
)


@dataclass(frozen=True)
class Patch:
    name: str
    packages: tuple[str, ...]
    """One of them is installed."""
    supported: str
    """How the versions begin that the patch is made for: `0.31.`"""
    without: str
    """What happens when it is switched off."""

    def on(self) -> bool:
        """Whether to apply it. Raises: ConfigError for a version that it is not made for."""
        if self.name in switched_off():
            return False
        package, found = installed(self.packages)
        if not f"{found}.".startswith(self.supported):
            raise ConfigError(
                f"{package} {found} is installed; the patch `{self.name}` is made for {self.supported}*: install that, "
                f"or set {SWITCH}={self.name} to run without it ({self.without})"
            )
        return True


def switched_off() -> frozenset[str]:
    """Raises: ConfigError for a name that no patch has."""
    off = frozenset(name.strip() for name in os.environ.get(SWITCH, "").split(",")) - {""}
    if unknown := sorted(off - set(NAMES)):
        raise ConfigError(f"{SWITCH} names {', '.join(unknown)}; there are {', '.join(sorted(NAMES))}: correct it")
    return off


def installed(packages: tuple[str, ...]) -> tuple[str, str]:
    """The first of `packages` that is installed, and its version. Raises: ConfigError when none is."""
    for package in packages:
        try:
            return package, version(package)
        except PackageNotFoundError:
            continue
    raise ConfigError(f"none of {', '.join(packages)} is installed; install one, as pyproject.toml pins it")
