# pyright: basic
"""Writes complete versions to disk, one folder each: `<run_dir>/versions/v0012/`.

A folder has safetensors files that PEFT, transformers and vLLM load unchanged, and a manifest. The manifest has the
digest of every tensor, the lineage, and the proof: the log-probabilities that show that an engine has this version."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from core.arrival_proof import Proof, digest_tensor, fingerprint
from core.artifacts import appearing, digest_file, read_manifest, sweep
from core.codec import pack_floats, pack_ids
from core.errors import ArtifactError
from core.messages import BASE, PolicyRef, Published
from training.learner.learner import Learner
from training.learner.model import LearnerModel

ADAPTER = "adapter_model.safetensors"


def version_dir(run_dir: Path, ref: PolicyRef) -> Path:
    return run_dir / "versions" / f"v{ref.version:04d}"


def publish_base(learner: Learner, run_dir: Path, sequences: Sequence[Sequence[int]]) -> Published:
    """Publish version 0: a manifest without weights. It names the base model and fixes the proof's sequences.

    If the run directory has a version 0, this function checks it and keeps it with its sequences.
    Raises: ArtifactError if the run was made with another base model, or if no sequence has two tokens."""
    path = version_dir(run_dir, BASE)
    digest, there = learner.parallel.by_first(lambda: _known_base(learner.trained_model, path))
    if there is not None:
        return there
    if not any(len(sequence) > 1 for sequence in sequences):
        raise ArtifactError("the proof needs at least one sequence of two tokens, got none; give prompts with answers")
    learner.trained_model.load_base()
    scores = tuple(pack_floats(score) for score in learner.score(sequences))
    proof = Proof(sequences=tuple(pack_ids(s) for s in sequences), base=scores, parent=scores, version=scores)
    manifest = _manifest(learner.trained_model, BASE, BASE, 0, {}, {}, proof)
    manifest |= {"fingerprint": digest, "base_digest": digest}

    def write() -> Published:
        with appearing(path, manifest):
            pass
        return _published(manifest, path)

    return learner.parallel.by_first(write)


def _known_base(model: LearnerModel, path: Path) -> tuple[str, Published | None]:
    """Digest of the base model, and version 0 if the run has one. Raises: ArtifactError if its base model differs."""
    sweep(path.parent)
    digest = base_digest(model)
    if not path.exists():
        return digest, None
    manifest = read_manifest(path)
    if manifest.get("base_digest") != digest:
        raise ArtifactError(
            f"{path.parents[1]} was made with the base model {manifest.get('base_path')!r} (digest "
            f"{str(manifest.get('base_digest'))[:12]}), but model.path={model.config.path!r} has digest "
            f"{digest[:12]}; use that model, or another run directory"
        )
    return digest, _published(manifest, path)


def publish(
    learner: Learner, ref: PolicyRef, parent: PolicyRef, window: int, run_dir: Path, stats: Mapping[str, float]
) -> Published:
    """Publish the learner's weights as version `ref`. The proof needs version 0 and the parent on disk.

    Raises: ArtifactError if `ref` exists already or the parent does not; StorageFull, and then no file is left."""
    base = Proof.read(read_manifest(version_dir(run_dir, BASE)))
    proof = Proof(
        sequences=base.sequences,
        base=base.version,
        parent=Proof.read(read_manifest(version_dir(run_dir, parent))).version,
        version=tuple(pack_floats(score) for score in learner.score(base.token_ids)),
    )
    path = version_dir(run_dir, ref)
    model = learner.trained_model
    manifest = _manifest(model, ref, parent, window, stats, {}, proof)
    weights = model.state() if model.lora is None else model.weights()

    def write() -> Published:
        with appearing(path, manifest) as aside:
            _save(model, weights, aside)
            manifest["tensors"] = tensors_of(aside)
            manifest["fingerprint"] = fingerprint({name: t["digest"] for name, t in manifest["tensors"].items()})
        return _published(manifest, path)

    return learner.parallel.by_first(write)


def tensors_of(path: Path) -> dict[str, dict[str, Any]]:
    """Tensor name -> dtype, shape and digest, for every tensor in the folder's safetensors files."""
    return {name: describe(tensor) for name, tensor in read_tensors(path).items()}


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    return {name: t for file in sorted(path.glob("*.safetensors")) for name, t in load_file(file).items()}


def describe(tensor: torch.Tensor) -> dict[str, Any]:
    dtype, shape = str(tensor.dtype).removeprefix("torch."), list(tensor.shape)
    data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return {
        "dtype": dtype,
        "shape": shape,
        "digest": digest_tensor(dtype, shape, data.tobytes()),
    }


def base_digest(model: LearnerModel) -> str:
    """Digest of the base model's safetensors files, in its folder or in the Hugging Face cache."""
    path = model.base_path()
    folder = path if isinstance(path, Path) else Path(snapshot_download(path, local_files_only=True))
    files = {file.name: digest_file(file) for file in sorted(folder.glob("*.safetensors"))}
    if not files:
        raise ArtifactError(f"{folder} holds no safetensors files; convert the base model with save_pretrained")
    return fingerprint(files)


def _save(model: LearnerModel, weights: dict[str, torch.Tensor], folder: Path) -> None:
    if model.lora is None:
        model.model.save_pretrained(folder, state_dict=weights)
        AutoTokenizer.from_pretrained(model.config.path).save_pretrained(folder)
        return
    there = {name: tensor.cpu().contiguous() for name, tensor in weights.items()}
    save_file(there, folder / ADAPTER, metadata={"format": "pt"})
    model.model.peft_config["default"].save_pretrained(str(folder))
    file = folder / "adapter_config.json"
    settings = json.loads(file.read_text())
    settings |= {"base_model_name_or_path": str(model.base_path()), "inference_mode": True}
    file.write_text(json.dumps(settings, indent=1))


def _manifest(
    model: LearnerModel,
    ref: PolicyRef,
    parent: PolicyRef,
    window: int,
    stats: Mapping[str, float],
    tensors: dict[str, Any],
    proof: Proof,
) -> dict[str, Any]:
    return {
        "kind": "full" if model.lora is None else "lora",
        "ref": str(ref),
        "parent": str(parent),
        "window": window,
        "base_path": str(model.base_path()),
        "fingerprint": "",
        "stats": dict(stats),
        "tensors": tensors,
        "proof": proof.model_dump(mode="json"),
    }


def read_published(path: Path) -> Published:
    """Read the record of a version from its folder. Raises: ArtifactError."""
    return _published(read_manifest(path), path)


def _published(manifest: Mapping[str, Any], path: Path) -> Published:
    try:
        return Published(
            ref=PolicyRef.parse(manifest["ref"]),
            path=str(path),
            parent=PolicyRef.parse(manifest["parent"]),
            window=manifest["window"],
            fingerprint=manifest["fingerprint"],
            stats=manifest["stats"],
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise ArtifactError(f"the manifest in {path} is not that of a version ({error}); restore the folder") from None
