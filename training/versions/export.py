# pyright: basic
"""Exports a version as a folder that PEFT or transformers can load: an adapter or a whole model."""

import json
import shutil
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

from core.artifacts import MANIFEST, verify
from core.config import ModelConfig
from core.errors import ArtifactError
from core.messages import BASE, PolicyRef
from training.versions.publish import version_dir


def export(run_dir: Path, ref: PolicyRef, model: ModelConfig, to: Path, merged: bool) -> Path:
    """Write the version to `to`. With `merged`, an adapter becomes a whole model that transformers loads without PEFT.

    Raises: ArtifactError if the version is not on disk or is damaged, or if `to` exists."""
    if to.exists():
        raise ArtifactError(f"{to} exists; choose another folder with --to")
    if ref == BASE:
        _whole(model.path, to)
        return to
    source = version_dir(run_dir, ref)
    kind = verify(source)["kind"]
    if kind == "lora" and merged:
        _merged(source, model.path, to)
    else:
        shutil.copytree(source, to, ignore=shutil.ignore_patterns(MANIFEST))
        if kind == "lora":
            _name_base(to, model.path)
    AutoTokenizer.from_pretrained(model.path).save_pretrained(to)
    return to


def _whole(source: str, to: Path) -> None:
    AutoModelForCausalLM.from_pretrained(source).save_pretrained(to)
    AutoTokenizer.from_pretrained(source).save_pretrained(to)


def _merged(adapter: Path, base: str, to: Path) -> None:
    from peft import PeftModel

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(adapter))
    model.merge_and_unload().save_pretrained(to)


def _name_base(folder: Path, base: str) -> None:
    file = folder / "adapter_config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps({**settings, "base_model_name_or_path": str(Path(base).absolute())}, indent=1))
