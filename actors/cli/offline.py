"""Commands that need no running system: weigh a checkpoint, export a version."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.markup import escape

from actors.evaluate.anchors import Anchoring, Made
from core.answers import extractor
from core.arrival_proof import Proof
from core.artifacts import digest_file, read_manifest
from core.config import Config, Full, PromptsConfig, load
from core.errors import ArtifactError, ConfigError
from core.messages import BASE, Decision, PolicyRef, Published
from core.protocols import Policy
from core.store.facts import GateLedger, LineageFact
from core.store.writer import RunReader
from methods.data.held_out import probes_of
from serve.engine.arguments import environment
from serve.engine.checkpoint import fitting
from serve.engine.engine import Engine
from serve.engine.local_policy import EnginePolicy
from serve.replica.reconcile import Prover
from training.gate.gate import Gate
from training.gate.weighing import Weighing

OFFLINE_CANDIDATE = PolicyRef(adapter="checkpoint", version=1)


@asynccontextmanager
async def offline_policy(config: Config, max_versions: int = 2) -> AsyncIterator[tuple[Engine, EnginePolicy]]:
    """An engine in this process, stopped at the end of the block."""
    os.environ.update(environment(config.model, config.serve.engine))
    multiplex = isinstance(config.model.weights, Full)
    engine = Engine(
        config.model, config.serve.engine, max_versions=max_versions, seed=config.run.seed, multiplex=multiplex
    )
    await engine.start()
    try:
        yield engine, EnginePolicy(engine)
    finally:
        await engine.stop()


def make_anchors(
    questions: PromptsConfig,
    config: Config,
    to: Path,
    samples: int,
    min_share: float,
    shown: Callable[[str], object] = lambda line: None,
    opened: Callable[[Config], AbstractAsyncContextManager[tuple[object, Policy]]] = offline_policy,
) -> Made:
    """Make a file of anchors with an engine in this process, which `opened` opens unless all answers are known.

    Raises: see `Anchoring`."""
    anchoring = Anchoring(questions, config, to, samples, min_share)

    async def run() -> None:
        async with opened(config) as (_, policy):
            await anchoring.ask(policy, shown)

    if anchoring.left:
        asyncio.run(run())
    return anchoring.write()


def weigh_checkpoint(candidate: Path, run_dir: Path, console: Console) -> Decision:
    """The gate's decision on a checkpoint of the run's base model, from any trainer: a PEFT adapter or a whole model.
    Uses a fresh gate, so nothing counts in the run's ledger. Only the champion's agreement is read from the ledger,
    because it shows whether the anchors are saturated. Nothing is asked before the engine is proven to hold all of the
    checkpoint; the proof's reference is what transformers and PEFT compute from its files.

    Raises: ConfigError if the run has no probes; ArtifactError, before an engine starts, for what an engine would leave
    out; ProofError if the engine holds other weights than the files."""
    config = load(run_dir / "config.yaml")
    probes, certified = probes_of(config, run_dir)
    if not probes:
        raise ConfigError(
            "this run has no probes: neither gate.anchors nor gate.keys is set, or its anchors are not made yet; set "
            "one of them, or wait"
        )
    published = _as_published(candidate, OFFLINE_CANDIDATE, _fingerprint(candidate))
    model = fitting(candidate, config.model)
    described = _as_published(run_dir / "versions" / "v0000", BASE, "")
    base = Proof.read(read_manifest(Path(described.path)))
    champion = _champion(run_dir)
    os.environ.update(environment(model, config.serve.engine))  # before torch is imported

    from training.versions.reference import proof_of

    against = champion.ref if champion else BASE
    counts = _ledger(run_dir).under(against).model_dump(include={"champion_asked", "champion_hits"})
    gate = Gate(config.gate, GateLedger(champion=against, **counts))

    async def published_base() -> Published:
        return described

    async def run(proofs: list[tuple[Published, Proof]]) -> Decision:
        async with offline_policy(config.model_copy(update={"model": model})) as (engine, policy):
            prover = Prover(engine, published_base)
            await prover.ready()
            for each, proof in proofs:
                await engine.stage(each)
                await prover.prove(each, proof)
            weighing = Weighing(
                policy=policy,
                gate=gate,
                probes=probes,
                rng=Random(f"{config.run.seed}:{published.fingerprint}"),
                candidate=published.ref,
                champion=against,
                extract=extractor(config.method.answer),
                max_tokens=config.method.sampler.max_tokens,
                certified=certified,
            )
            return await weighing.verdict()

    with TemporaryDirectory(prefix="ratchet-") as merged, console.status("") as status:
        status.update(escape(f"reading {candidate} with transformers"))
        proofs = [(published, proof_of(candidate, model, base))]
        if champion is not None:
            proof = Proof.read(read_manifest(Path(champion.path)))
            if model.weights.kind != config.model.weights.kind:  # an engine holds adapters or whole models
                to = export_version(run_dir, config, f"v{champion.ref.version}", Path(merged, "champion"), True)
                champion = champion.model_copy(update={"path": str(to)})
            proofs.append((champion, proof))
        status.update(escape(f"weighing {candidate} against {against}"))
        return asyncio.run(run(proofs))


def export_version(run_dir: Path, config: Config, name: str, to: Path | None, merged: bool) -> Path:
    """Raises: ConfigError if `name` is not a version."""
    digits = name.removeprefix("v")
    if not digits.isdecimal():
        raise ConfigError(f"{name!r} is not a version; expected the form v3")
    from training.versions.export import export

    ref = PolicyRef(version=int(digits))
    return export(run_dir, ref, config.model, to or run_dir / "export" / f"v{ref.version}", merged)


def _as_published(folder: Path, ref: PolicyRef, fingerprint: str) -> Published:
    return Published(ref=ref, path=str(folder.absolute()), parent=BASE, window=0, fingerprint=fingerprint)


def _fingerprint(folder: Path) -> str:
    """Raises: ArtifactError if the folder holds no weights."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ArtifactError(f"{folder} holds no safetensors file; give a PEFT adapter or a model saved by transformers")
    return hashlib.sha256("".join(digest_file(file) for file in files).encode()).hexdigest()


def _ledger(run_dir: Path) -> GateLedger:
    reader = RunReader(run_dir)
    ledger = reader.read(GateLedger)
    reader.close()
    return ledger or GateLedger()


def _champion(run_dir: Path) -> Published | None:
    """The run's champion; None if that is the base."""
    reader = RunReader(run_dir)
    lineage = reader.read(LineageFact) or LineageFact()
    published = {each.ref.version: each for each in reader.versions()}
    reader.close()
    return published.get(lineage.champion)
