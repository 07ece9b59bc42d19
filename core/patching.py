"""Patches of Ray and vLLM: the versions that each patch supports, and the switch that turns it off.

All patches are listed in docs/architecture.md, "Patches of other people's code".
"""

import os
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from core.errors import ConfigError

SWITCH = "RATCHET_NO_PATCH"
"""Environment variable: comma-separated names of patches to skip. Each node of a cluster reads its own."""
NAMES = (
    *("amx", "cpu_lora", "fork_server", "log_handlers", "plain_app", "stat_logger", "stream_events", "tied_head"),
    *("dashboard_address", "forked_workers", "haproxy", "ray_processes"),
)


@dataclass(frozen=True)
class Patch:
    name: str
    packages: tuple[str, ...]
    """Alternative names of the patched package; one of them is installed."""
    supported: str
    """Prefix of the supported versions: `0.31.`"""
    without: str
    """The consequence of switching it off."""

    def on(self) -> bool:
        """Whether to apply the patch. Raises: ConfigError for an unsupported version."""
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
    """Names in the environment variable. Raises: ConfigError for an unknown name."""
    off = frozenset(name.strip() for name in os.environ.get(SWITCH, "").split(",")) - {""}
    if unknown := sorted(off - set(NAMES)):
        raise ConfigError(f"{SWITCH} names {', '.join(unknown)}; there are {', '.join(sorted(NAMES))}: correct it")
    return off


def installed(packages: tuple[str, ...]) -> tuple[str, str]:
    """The first of `packages` that is installed, and its version. Raises: ConfigError if none is."""
    for package in packages:
        try:
            return package, version(package)
        except PackageNotFoundError:
            continue
    raise ConfigError(f"none of {', '.join(packages)} is installed; install one, as pyproject.toml pins it")
