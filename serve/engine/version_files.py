"""Functions that `Adapters` and `FullWeights` share: checks of version folders, draining, calls to vLLM's workers."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.artifacts import MANIFEST, verify
from core.errors import ArtifactError, Overdue, VersionError
from core.messages import PolicyRef, Published
from serve.engine.in_flight import InFlight

DRAIN_S = 120.0


def check_folder(path: Path) -> None:
    """A folder without a manifest was not made by Ratchet and is not verified.

    Raises: ArtifactError for a missing or damaged folder."""
    if not path.is_dir():
        raise ArtifactError(f"{path} is not a folder; a version is a folder of safetensors")
    if (path / MANIFEST).exists():
        verify(path)


def check_same(held: Published, published: Published) -> None:
    """Raises: VersionError when two different versions have the same number."""
    if held.fingerprint != published.fingerprint:
        raise VersionError(
            f"{held.ref} is loaded with fingerprint {held.fingerprint}, not {published.fingerprint}; use a new number"
        )


def local_folder(path: str) -> Path:
    """A model's folder on this machine. For a model on the hub: its cached copy, which the engine fetched at start."""
    if Path(path).is_dir():
        return Path(path).absolute()
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(path, local_files_only=True))


def not_loaded(ref: PolicyRef, loaded: Sequence[PolicyRef]) -> VersionError:
    return VersionError(f"{ref} is not loaded (loaded: {', '.join(map(str, loaded))}); stage it first")


async def drained(in_flight: InFlight, ref: PolicyRef) -> None:
    """Wait until a version has no requests in flight. Raises: Overdue."""
    try:
        async with asyncio.timeout(DRAIN_S):
            await in_flight.wait_for(str(ref), None)
    except TimeoutError:
        raise Overdue(f"requests of {ref} did not end within {DRAIN_S:.0f} s; call unload again") from None


async def ask_workers(llm: Any, method: str, *arguments: Any) -> list[str]:
    """The lines that all workers return. A mapping becomes one line `name value` per entry."""
    lines: list[str] = []
    for answer in await llm.collective_rpc(method, args=arguments):
        lines += [f"{name} {digest}" for name, digest in answer.items()] if isinstance(answer, dict) else answer
    return lines
