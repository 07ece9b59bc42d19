"""How long does it take to copy a version's files to another node? 1 MB and 200 MB, against a copy on the same disk.

It runs two Ray nodes on this machine; the second does not see the head's run directory (needs the right to mount).
`fetch_ms`: a process of the second node asks for a version. `again_ms`: another process of that node asks, and finds
the copy. `copy_ms`: the folder is copied on the same disk and verified, the best case of shared storage. Each fetch
includes verified digests and a synced copy. No network is involved.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from core.artifacts import appearing, verify
from core.messages import BASE, PolicyRef, Published

NAMESPACE = "ratchet-bench-transfer"
SIZES_MB = (1, 200)
ANSWER_S = 300.0


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repeats", type=int, default=5)


def run(options: argparse.Namespace) -> dict[str, Any]:
    from bench._nodes import Nodes

    with tempfile.TemporaryDirectory() as folder:
        nodes = Nodes(Path(folder))
        try:
            nodes.join("b")
            nodes.connect(NAMESPACE)
            return measure(nodes.run, 2 if options.quick else options.repeats)
        finally:
            nodes.close()


def measure(run_dir: Path, repeats: int) -> dict[str, Any]:
    import ray

    from serve.weights.transfer import VersionFiles

    source: Any = ray.remote(VersionFiles).options(num_cpus=0, resources={"head": 1}).remote()
    found: dict[str, Any] = {}
    number = 0
    first, second = (_asker(source) for _ in range(2))
    for asker in (first, second):
        _get(asker.ready.remote())
    for size_mb in SIZES_MB:
        versions = [_write_version(run_dir, number + i, size_mb) for i in range(repeats + 1)]
        number += len(versions)
        _, *fetched = [_get(first.ask.remote(version)) for version in versions]
        again = [_get(second.ask.remote(version)) for version in versions[1:]]
        copied = [_time_copy(Path(version.path), run_dir / "copy") for version in versions[1:]]
        for name, seconds in (("fetch", fetched), ("again", again), ("copy", copied)):
            spread = (min(seconds), statistics.median(seconds), max(seconds))
            found[f"{name}_{size_mb}mb_ms"] = [round(1e3 * each, 1) for each in spread]
    return {"repeats": repeats, "spread": "min, median, max", **found}


def _asker(source: Any) -> Any:
    import ray

    class Asker:
        """Fetches a version as a replica does before it stages it."""

        def __init__(self) -> None:
            from core.proxy import proxy
            from serve.weights.transfer import FilesPort, WeightsTransfer

            self._transfer = WeightsTransfer(proxy(FilesPort, self._ask), NAMESPACE)

        async def ready(self) -> None: ...

        async def ask(self, published: Published) -> float:
            started = time.monotonic()
            there = await self._transfer.here(published)
            took_s = time.monotonic() - started
            assert there.path != published.path
            return took_s

        async def _ask(self, method: str, *arguments: Any) -> Any:
            return await getattr(source, method).remote(*arguments)

    kind: Any = ray.remote(Asker)
    return kind.options(num_cpus=0, resources={"b": 1}).remote()


def _get(reference: Any) -> Any:
    import ray

    return ray.get(reference, timeout=ANSWER_S)


def _write_version(run_dir: Path, version: int, size_mb: int) -> Published:
    path = run_dir / "versions" / f"v{version:04d}"
    with appearing(path, {"fingerprint": str(version)}) as aside:
        (aside / "adapter_model.safetensors").write_bytes(os.urandom(size_mb * 2**20))
    ref = PolicyRef(version=version)
    return Published(ref=ref, path=str(path), parent=BASE, window=version, fingerprint=str(version))


def _time_copy(source: Path, to: Path) -> float:
    started = time.monotonic()
    shutil.copytree(source, to)
    verify(to)
    took_s = time.monotonic() - started
    shutil.rmtree(to)
    return took_s
