"""Commands that need no running system: weigh a checkpoint, make anchors, export a version."""

import asyncio
import hashlib
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from core.answers import extractor
from core.artifacts import digest_file
from core.config import Config, Full, PromptsConfig, load
from core.errors import ArtifactError, ConfigError
from core.messages import BASE, Decision, PolicyRef, Prompt, Published, Sampling
from core.store.facts import GateLedger, LineageFact
from core.store.writer import RunReader
from methods.data import prompts
from methods.data.held_out import probes_of
from serve.engine.arguments import environment
from serve.engine.engine import Engine
from serve.engine.local_policy import EnginePolicy
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


def weigh_checkpoint(candidate: Path, run_dir: Path, console: Console) -> Decision:
    """The gate's decision on a checkpoint of the run's base model, from any trainer: a PEFT adapter, or a whole model
    if the run uses whole models. Uses a fresh gate, so nothing counts in the run's ledger. Only the champion's
    agreement is read from the ledger, because it shows whether the anchors are saturated.

    Raises: ConfigError if the run has no probes; ArtifactError if the folder is no checkpoint."""
    config = load(run_dir / "config.yaml")
    probes, certified = probes_of(config)
    if not probes:
        raise ConfigError("this run has neither gate.anchors nor gate.keys, so there are no probes; set one of them")
    published = _as_published(candidate, OFFLINE_CANDIDATE)
    champion = _champion(run_dir)
    known = _ledger(run_dir).under(champion.ref if champion else BASE)

    async def run() -> Decision:
        async with offline_policy(config) as (engine, policy):
            await engine.stage(published)
            if champion is not None:
                await engine.stage(champion)
            counts = known.model_dump(include={"champion_asked", "champion_hits"})
            gate = Gate(config.gate, GateLedger(champion=known.champion, **counts))
            weighing = Weighing(
                policy=policy,
                gate=gate,
                probes=probes,
                rng=Random(f"{config.run.seed}:{published.fingerprint}"),
                candidate=published.ref,
                champion=gate.ledger.champion,
                extract=extractor(config.method.answer),
                max_tokens=config.method.sampler.max_tokens,
                certified=certified,
            )
            return await weighing.verdict()

    with console.status(f"weighing {candidate} against {champion.ref if champion else BASE}"):
        return asyncio.run(run())


def make_anchors(questions: PromptsConfig, config: Config, to: Path, samples: int, min_share: float) -> tuple[int, int]:
    """Write held-out questions with the base model's majority answers, for the gate. Returns the numbers of questions
    and of anchors.

    Reads no answer key. Raises: ConfigError if no question reaches the share."""
    pool = prompts.read(questions, config.run.seed)
    extract = extractor(config.method.answer)
    sampling = Sampling(
        n=samples, temperature=config.method.sampler.temperature, max_tokens=config.method.sampler.max_tokens
    )

    async def ask(policy: EnginePolicy, prompt: Prompt, seats: asyncio.Semaphore) -> tuple[str, str, float] | None:
        async with seats:
            candidates = await policy.generate(prompt, sampling, BASE)
        answers = Counter(extract(c.text) for c in candidates if c.finish == "stop")
        answers.pop(None, None)
        if not answers:
            return None
        ((winner, votes),) = answers.most_common(1)
        share = votes / samples
        return (prompts.asked_text(prompt), str(winner), share) if share >= min_share else None

    async def run() -> list[tuple[str, str, float]]:
        async with offline_policy(config) as (_, policy):
            seats = asyncio.Semaphore(max(1, 2 * config.serve.engine.max_seqs // samples))
            found = await asyncio.gather(*(ask(policy, prompt, seats) for prompt in pool))
        return [anchor for anchor in found if anchor is not None]

    anchors = asyncio.run(run())
    if not anchors:
        raise ConfigError(
            f"the base model reaches a share of {min_share} on none of {len(pool)} questions; lower --min-share"
        )
    asked, answers, shares = zip(*anchors, strict=True)
    weights = Path(config.model.path) / "model.safetensors"
    digest = digest_file(weights) if weights.is_file() else ""
    table = pa.table({"prompt": asked, "answer": answers, "share": shares})
    pq.write_table(table.replace_schema_metadata({"model_sha256": digest}), to)
    return len(pool), len(anchors)


def export_version(run_dir: Path, config: Config, name: str, to: Path | None, merged: bool) -> Path:
    """Raises: ConfigError if `name` is not a version."""
    digits = name.removeprefix("v")
    if not digits.isdecimal():
        raise ConfigError(f"{name!r} is not a version; expected the form v3")
    from training.versions.export import export

    ref = PolicyRef(version=int(digits))
    return export(run_dir, ref, config.model, to or run_dir / "export" / f"v{ref.version}", merged)


def _as_published(folder: Path, ref: PolicyRef) -> Published:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ArtifactError(f"{folder} holds no safetensors file; give a PEFT adapter or a model saved by transformers")
    digest = hashlib.sha256("".join(digest_file(file) for file in files).encode()).hexdigest()
    return Published(ref=ref, path=str(folder.absolute()), parent=BASE, window=0, fingerprint=digest)


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
