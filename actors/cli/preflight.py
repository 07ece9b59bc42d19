"""Checks before the start, so that a run that cannot work fails early: access, files, overlap, port, disk, memory."""

import json
import os
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import psutil
import pyarrow.parquet as pq

from actors.cli import webhooks
from actors.storage.run_dir import RUNS
from actors.storage.store import free_bytes
from core.arrival_proof import fingerprint
from core.artifacts import MANIFEST, digest_file, read_manifest
from core.chat_template import rendered
from core.config import Config, Full, Lora
from core.errors import ConfigError, PromptError
from core.messages import ChatMessage, Prompt
from core.redact import redactor
from methods import recipes
from methods.data import prompts
from methods.data.held_out import kept_out, lacks_anchors, probes_of, report_questions, unanswered
from methods.data.other_tasks import other_tasks
from methods.data.probes import refuse_overlap
from serve.http import cors, keys_file
from training import objectives
from training.gate import slices
from training.gate.power import too_few

GIB = 2**30
RAY_BYTES = 1.5 * GIB
"""Ray, Ray Serve and the light actors."""
RAY_TRAIN_BYTES = 0.8 * GIB
"""Ray Train's own actors, without its workers."""
ENGINE_FIXED_BYTES = 1.2 * GIB
"""An engine's two processes, without weights and KV cache."""
TRAINER_FIXED_BYTES = 0.6 * GIB
BYTES_OF = {"float32": 4, "bfloat16": 2, "auto": 2, "float16": 2}


@dataclass(frozen=True)
class Memory:
    """Bytes that a run needs at its peak, by part."""

    engines: float
    kv_caches: float
    trainer: float
    ray: float = RAY_BYTES

    @property
    def total(self) -> float:
        return self.engines + self.kv_caches + self.trainer + self.ray


def check(config: Config, joining: bool = False) -> list[str]:
    """Returns notes for the user, such as skipped lines and merged duplicates. `joining`: the run joins a cluster,
    whose gateway may already listen on the port.

    Raises: ConfigError naming the field and the remedy."""
    notes = check_access(config, os.environ)
    if config.run.webhooks.urls and webhooks.secret_of(os.environ.get(webhooks.SECRET)) is None:
        notes.append(f"webhooks are not signed: set {webhooks.SECRET} to a secret that their receivers know")
    method = recipes.build(config.method)
    objectives.check(method)
    redactor(config.prompts.live.redact)
    _check_model(config)
    pool = prompts.read(config.prompts, config.run.seed)
    probes, _ = probes_of(config)
    report = report_questions(config)
    held_out = unanswered(config)
    others = other_tasks(config)
    to_answer = [] if held_out is None else list(prompts.read(held_out, setting="gate.held_out"))
    asked = [*(question.prompt for question in probes), *to_answer]
    suspects = list(filter(kept_out(config, [*probes, *report]).holds, pool))
    refuse_overlap(suspects, asked, config.prompts.path, "the gate's probes")
    keyed = [question.prompt for question in report]
    if report:
        refuse_overlap(suspects, keyed, config.prompts.path, config.report.questions or "")
        refuse_overlap(asked, keyed, "the gate's probes", config.report.questions or "")
    for other in others:
        refuse_overlap(pool, [question.prompt for question in other.questions], config.prompts.path, other.name)
    _check_anchors(config)
    if not joining:
        _check_port(config.serve.host, config.serve.port)
    check_disk(config)
    _check_memory(config)
    notes += [f"skipped {report}" for report in pool.reports]
    notes += check_template(config, {"prompts.path": pool, "the gate's probes": asked, "report.questions": keyed})
    if pool.duplicates:
        notes.append(f"{pool.duplicates} duplicate prompts in {config.prompts.path} were merged")
    if suspects:
        notes.append(
            f"{len(suspects)} of {len(pool)} prompts are nearly the same as gate or report questions, and are left out"
        )
    if "behaviour" in method.columns and config.learning.replay_windows > 1:
        notes.append(
            f"recipe {method.name} is meant for samples of the current version; learning.replay_windows="
            f"{config.learning.replay_windows} also trains on older samples, the published method uses 1"
        )
    if config.gate.enabled and lacks_anchors(config, Path(config.run.dir) if config.run.dir else None):
        to = config.gate.anchors or "the run directory"
        notes.append(
            f"there are no anchors yet: the base first answers {len(to_answer)} held-out questions, "
            f"{config.gate.anchor_samples} times each (in {to}); candidates wait until then"
        )
    few = too_few(config.gate, len(probes)) if probes and config.gate.enabled else None
    notes += [few] if few is not None else []
    notes += slices.notes(probes, config.gate) if config.gate.enabled else []
    if not probes and not to_answer:
        notes.append(
            "neither gate.anchors nor gate.keys nor gate.held_out is set: every candidate will be held, none promoted"
        )
    return notes


def check_access(config: Config, environ: Mapping[str, str]) -> list[str]:
    """Returns notes. Raises: ConfigError if keys cannot be read, or if other machines can reach a server without
    keys."""
    keys = keys_file.read(config.serve.access, environ)
    if not keys.held and not cors.is_loopback(config.serve.host):
        raise ConfigError(
            f"serve.host={config.serve.host!r} can be reached from other machines; without keys anyone there can use "
            "and administer it; make a key with `ratchet keys NAME --role admin --file keys.txt` and set "
            "serve.access.keys=keys.txt, or keep serve.host=127.0.0.1"
        )
    return keys_file.notes(keys, config.serve.access)


def memory(config: Config, parameters: int, shape: Mapping[str, int]) -> Memory:
    """Memory that a run needs, computed from the model's size and the settings."""
    full = isinstance(config.model.weights, Full)
    engines = config.serve.replicas + (1 if full else 0)
    weights = parameters * BYTES_OF[config.model.engine_dtype]
    trained = parameters if full else _lora_parameters(config, shape)
    gradient_and_adam = 3 * 4
    tokens = min(config.learning.batch_tokens, config.learning.micro_batch_tokens or config.learning.batch_tokens)
    activations = 16 * tokens * shape["hidden_size"] * shape["num_hidden_layers"] * 4
    logits = 3 * tokens * shape["vocab_size"] * 4
    objective = recipes.build(config.method).objective
    copies = 2 if full and objective.uses_base else 1
    read = copies * parameters * BYTES_OF[config.model.trainer_dtype]
    workers = config.learning.devices
    # each worker loads the whole model before it keeps its shard
    trainer = workers * (read + TRAINER_FIXED_BYTES) + trained * gradient_and_adam + activations + logits
    return Memory(
        engines=engines * (weights + ENGINE_FIXED_BYTES),
        kv_caches=engines * (config.serve.engine.kv_cache_bytes or 0),
        trainer=trainer,
        ray=RAY_BYTES + (RAY_TRAIN_BYTES if workers > 1 else 0),
    )


def here(config: Config, need: Memory) -> Memory:
    """Memory needed on this node only."""
    cluster = config.cluster
    if cluster.serving is not None:
        need = replace(need, engines=0, kv_caches=0)
    return replace(need, trainer=0) if cluster.training is not None else need


def parameters_of(folder: Path) -> int:
    """The number of parameters, from the headers of the safetensors files, without reading the weights."""
    total = 0
    for file in folder.glob("*.safetensors"):
        try:
            with file.open("rb") as opened:
                size = int.from_bytes(opened.read(8), "little")
                if size > file.stat().st_size:
                    raise ValueError(f"its header claims {size} bytes, more than the file has")
                header = json.loads(opened.read(size))
            total += sum(_product(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ConfigError(f"{file} is not a safetensors file ({error}); restore it") from None
    return total


def _check_model(config: Config) -> None:
    folder = Path(config.model.path)
    looks_local = folder.is_absolute() or config.model.path.startswith((".", "models/"))
    if not folder.is_dir():
        if looks_local:
            raise ConfigError(
                f"model.path={config.model.path!r} is not a folder; give one with config.json and safetensors files"
            )
        return
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise ConfigError(f"model.path={config.model.path!r} has no {name}; save the model and its tokenizer there")
    positions, asked = shape_of(folder / "config.json")["max_position_embeddings"], config.serve.engine.max_tokens
    if positions and asked > positions:
        raise ConfigError(f"serve.engine.max_tokens={asked} exceeds the {positions} positions of the model; lower it")


def check_template(config: Config, asked: Mapping[str, Iterable[Prompt]]) -> list[str]:
    """Notes on the prompts that the model's chat template refuses, by where they come from. Templates refuse sequences
    of roles, so each sequence is tried once. Raises: ConfigError if nothing of one source can be asked."""
    files = [Path(config.model.path) / name for name in ("tokenizer_config.json", "chat_template.jinja")]
    if not any(b"raise_exception" in file.read_bytes() for file in files if file.is_file()):
        return []  # it refuses nothing; the import below takes a second
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(config.model.path)

    @cache
    def refusal(roles: tuple[str, ...]) -> str:
        chat = [ChatMessage.model_validate({"role": role, "content": "Hello"}) for role in roles]
        try:
            rendered(tokenizer, tokenizer.chat_template, chat)
        except PromptError as error:
            return str(error)
        return ""

    notes: list[str] = []
    for source, some in asked.items():
        those = list(some)
        refused = [(prompt, why) for prompt in those if (why := refusal(tuple(m.role for m in prompt.messages)))]
        if refused:
            first, why = refused[0]
            named = f"the first, {prompts.asked_text(first)[:60]!r}: {why}"
            if len(refused) == len(those):
                raise ConfigError(f"no prompt of {source} can be asked; {named}; correct the roles, or prompts.system")
            notes.append(f"{len(refused)} of {len(those)} prompts of {source} cannot be asked; {named}")
    return notes


def _check_anchors(config: Config) -> None:
    """Refuse anchors that another base model answered: they would repeat that model's mistakes."""
    path = config.gate.anchors
    weights = Path(config.model.path) / "model.safetensors"
    if path is None or config.gate.keys is not None:
        return
    if lacks_anchors(config, None):
        if Path(path).suffix != ".parquet":
            raise ConfigError(
                f"gate.anchors={path} does not exist and would be made; give it a name that ends in .parquet"
            )
        return
    if not weights.is_file() or Path(path).suffix != ".parquet":
        return  # only Parquet files of `ratchet anchors` name the model that answered
    try:
        made_for = (pq.read_schema(path).metadata or {}).get(b"model_sha256", b"").decode()
    except (OSError, ValueError) as error:
        raise ConfigError(f"gate.anchors={path} cannot be read: {error}") from None
    if made_for and made_for != digest_file(weights):
        raise ConfigError(
            f"gate.anchors={path} were made with another model than {config.model.path}; make new ones with "
            "`ratchet anchors`, or set gate.anchors=null (then every candidate is held)"
        )


def check_same_base(config: Config, run_dir: Path) -> None:
    """Raises: ConfigError if the run directory was made with another base model."""
    manifest = run_dir / "versions" / "v0000" / MANIFEST
    folder = Path(config.model.path)
    if not manifest.is_file() or not folder.is_dir():
        return
    made_with = read_manifest(manifest.parent).get("base_digest")
    now = fingerprint({file.name: digest_file(file) for file in sorted(folder.glob("*.safetensors"))})
    if made_with != now:
        raise ConfigError(
            f"{run_dir} was made with another base model than model.path={config.model.path!r}; use that one, or "
            "another run directory"
        )


def check_disk(config: Config, free: Callable[[Path], int] = free_bytes) -> None:
    """Raises: ConfigError if the disk has less than run.min_free_bytes free."""
    place = Path(config.run.dir) if config.run.dir else RUNS
    there = next(folder for folder in (place.absolute(), *place.absolute().parents) if folder.is_dir())
    if free(there) < config.run.min_free_bytes:
        raise ConfigError(
            f"{free(there) / 2**20:.0f} MiB are free on the disk of {place}, run.min_free_bytes requires "
            f"{config.run.min_free_bytes / 2**20:.0f}; free some space, or choose another disk with --dir"
        )


def _check_port(host: str, port: int) -> None:
    if ":" in host:
        raise ConfigError(f"serve.host={host!r} is an IPv6 address, and Ratchet serves on IPv4 only; use 127.0.0.1")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except socket.gaierror as error:
            raise ConfigError(f"serve.host={host!r} is no address of this machine ({error.strerror})") from None
        except OSError as error:
            raise ConfigError(
                f"serve.port={port} on {host} cannot be used ({error.strerror}); stop the process that listens "
                "there, or choose another with serve.port=N (0 picks a free one)"
            ) from None


def _check_memory(config: Config) -> None:
    folder = Path(config.model.path)
    if not folder.is_dir() or not any(folder.glob("*.safetensors")):
        return
    shape = shape_of(folder / "config.json")
    need = here(config, memory(config, parameters_of(folder), shape))
    have = psutil.virtual_memory().available
    if need.total > have and not has_gpu():
        parts = ", ".join(f"{name} {value / GIB:.1f}" for name, value in vars(need).items())
        learning = config.learning
        raise ConfigError(
            f"this run needs about {need.total / GIB:.1f} GiB ({parts}), {have / GIB:.1f} GiB are free; lower "
            f"serve.engine.kv_cache_bytes (now {config.serve.engine.kv_cache_bytes}), serve.replicas (now "
            f"{config.serve.replicas}) or learning.micro_batch_tokens (now {learning.micro_batch_tokens}, in steps of "
            f"{learning.batch_tokens}), or take a smaller model"
        )


def shape_of(file: Path) -> dict[str, int]:
    """Sizes from a model's config.json; an optional size that is missing is 0. Raises: ConfigError naming the bad
    field."""
    try:
        read = json.loads(file.read_bytes())
        shape = {name: int(read[name]) for name in ("hidden_size", "num_hidden_layers", "vocab_size")}
        missing = [name for name, size in shape.items() if size < 1]
        shape |= {name: int(read.get(name) or 0) for name in ("intermediate_size", "max_position_embeddings")}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"{file} is not a model's config ({error!r}); restore it") from None
    if missing:
        raise ConfigError(f"{file} says {missing[0]}={shape[missing[0]]}, expected at least 1; restore it")
    return shape


def _lora_parameters(config: Config, shape: Mapping[str, int]) -> int:
    assert isinstance(config.model.weights, Lora)
    widest = max(shape["hidden_size"], shape.get("intermediate_size", 0))
    per_layer = len(config.model.weights.targets) * config.model.weights.rank * (shape["hidden_size"] + widest)
    return per_layer * shape["num_hidden_layers"]


def has_gpu() -> bool:
    return Path("/dev/nvidia0").exists()


def _product(shape: Iterable[int]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product
