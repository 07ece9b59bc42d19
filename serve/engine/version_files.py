"""What both ways of holding versions in an engine need: their folders, their users, their workers' answers."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.artifacts import MANIFEST, verify
from core.errors import ArtifactError, Overdue, VersionError
from core.messages import PolicyRef, Published
from serve.engine.in_flight import Presence

DRAIN_S = 120.0


def check_folder(path: Path) -> None:
    """Raises: ArtifactError unless the folder is whole; one without a manifest was not made by Ratchet."""
    if not path.is_dir():
        raise ArtifactError(f"{path} is no folder; a version is a folder of safetensors")
    if (path / MANIFEST).exists():
        verify(path)


def check_same(held: Published, published: Published) -> None:
    """Raises: VersionError when two versions have one number."""
    if held.fingerprint != published.fingerprint:
        raise VersionError(f"{held.ref} is held with fingerprint {held.fingerprint}; use a new number")


def local_folder(path: str) -> Path:
    """A model's folder on this machine; one named by hub is taken from the cache that starting the engine filled."""
    if Path(path).is_dir():
        return Path(path).absolute()
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(path, local_files_only=True))


def not_loaded(ref: PolicyRef, loaded: Sequence[PolicyRef]) -> VersionError:
    return VersionError(f"{ref} is not loaded (loaded: {', '.join(map(str, loaded))}); stage it first")


async def drained(inside: Presence, ref: PolicyRef) -> None:
    """Wait until nobody is answered by a version. Raises: Overdue."""
    try:
        async with asyncio.timeout(DRAIN_S):
            await inside.left(str(ref), None)
    except TimeoutError:
        raise Overdue(f"requests of {ref} did not end within {DRAIN_S:.0f} s; call unload again") from None


async def ask_workers(llm: Any, method: str, *arguments: Any) -> list[str]:
    """Lines of all workers; those that answer with a mapping give `name value`."""
    lines: list[str] = []
    for answer in await llm.collective_rpc(method, args=arguments):
        lines += [f"{name} {digest}" for name, digest in answer.items()] if isinstance(answer, dict) else answer
    return lines
