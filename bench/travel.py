"""How long until a version's folder is on another node? 1 MB and 200 MB, beside a copy on the same disk.

Two Ray nodes of this machine, the second without the head's run directory (needs the right to mount). `first_ms`: a
process that has never asked asks, on a node where no depot runs yet. `fetch_ms`: another version, the depot runs.
`again_ms`: another process of that node asks, and finds the copy. `copy_ms`: what shared storage would be at its best,
copying the folder and verifying it. Each fetch ends with every digest verified. There is no wire between the two.
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

NAMESPACE = "ratchet-bench-travel"
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

    home = ray.get_runtime_context().get_node_id()
    found: dict[str, Any] = {}
    number = 0
    first, second = (_asker(home) for _ in range(2))
    for asker in (first, second):
        _told(asker.ready.remote())
    for size_mb in SIZES_MB:
        versions = [_written(run_dir, number + i, size_mb) for i in range(repeats + 1)]
        number += len(versions)
        cold, *fetched = [_told(first.ask.remote(version)) for version in versions]
        again = [_told(second.ask.remote(version)) for version in versions[1:]]
        copied = [_copied(Path(version.path), run_dir / "copy") for version in versions[1:]]
        found |= {f"first_{size_mb}mb_ms": round(1e3 * cold, 1)} if size_mb == SIZES_MB[0] else {}
        for name, seconds in (("fetch", fetched), ("again", again), ("copy", copied)):
            spread = (min(seconds), statistics.median(seconds), max(seconds))
            found[f"{name}_{size_mb}mb_ms"] = [round(1e3 * each, 1) for each in spread]
    return {"repeats": repeats, "spread": "min, median, max", **found}


def _asker(home: str) -> Any:
    import ray

    class Asker:
        """What a replica does with a version that it is to stage."""

        def __init__(self) -> None:
            from serve.weights.transfer import Travel

            self._travel = Travel(NAMESPACE)

        async def ready(self) -> None: ...

        async def ask(self, published: Published) -> float:
            async def whence() -> str:
                return home

            started = time.monotonic()
            there = await self._travel.here(published, whence)
            took_s = time.monotonic() - started
            assert there.path != published.path
            return took_s

    kind: Any = ray.remote(Asker)
    return kind.options(num_cpus=0, resources={"b": 1}).remote()


def _told(reference: Any) -> Any:
    import ray

    return ray.get(reference, timeout=ANSWER_S)


def _written(run_dir: Path, version: int, size_mb: int) -> Published:
    path = run_dir / "versions" / f"v{version:04d}"
    with appearing(path, {"fingerprint": str(version)}) as aside:
        (aside / "adapter_model.safetensors").write_bytes(os.urandom(size_mb * 2**20))
    ref = PolicyRef(version=version)
    return Published(ref=ref, path=str(path), parent=BASE, window=version, fingerprint=str(version))


def _copied(source: Path, to: Path) -> float:
    started = time.monotonic()
    shutil.copytree(source, to)
    verify(to)
    took_s = time.monotonic() - started
    shutil.rmtree(to)
    return took_s
