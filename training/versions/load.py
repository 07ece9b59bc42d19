# pyright: basic
"""Loads a published version into the learner: the champion after a rejection, the newest version after a crash.

The trainer writes no checkpoint of its own. Each window starts with a new optimizer, so a published version's weights
and its window number are the trainer's whole state."""

from pathlib import Path

from core.arrival_proof import fingerprint
from core.artifacts import MANIFEST, verify
from core.errors import ArtifactError
from core.messages import BASE, PolicyRef, Published
from training.learner.learner import Learner
from training.versions.publish import describe, read_published, read_tensors, version_dir


def load_version(learner: Learner, run_dir: Path, ref: PolicyRef) -> Published:
    """Load the weights of version `ref` into the learner. Checks the digest of every tensor first.

    Raises: ArtifactError naming the file or tensor that is damaged, missing or from another model."""
    path = version_dir(run_dir, ref)
    manifest = verify(path)
    published = read_published(path)
    if ref == BASE:
        learner.trained_model.load_base()
        return published
    kind = "full" if learner.trained_model.lora is None else "lora"
    if manifest["kind"] != kind:
        raise ArtifactError(f"{path} holds {manifest['kind']} weights, the learner has {kind}; fix model.weights.kind")
    weights = read_tensors(path)
    found = {name: describe(tensor)["digest"] for name, tensor in weights.items()}
    wrong = [name for name in manifest["tensors"] if found.get(name) != manifest["tensors"][name]["digest"]]
    if wrong or fingerprint(found) != published.fingerprint:
        raise ArtifactError(f"tensors {wrong[:4]} in {path} are not the published ones; restore or remove the folder")
    learner.trained_model.load_weights(weights)
    return published


def published_versions(run_dir: Path) -> list[Published]:
    """All complete versions on disk, oldest first. Folders that a crash left incomplete are not included."""
    folders = (run_dir / "versions").glob("v[0-9]*")
    found = [read_published(folder) for folder in folders if (folder / MANIFEST).is_file()]
    return sorted(found, key=lambda published: published.ref.version)
