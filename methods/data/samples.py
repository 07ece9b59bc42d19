"""Questions to try on a run's model, as whole chats: few-shot turns belong to the question."""

import json
from pathlib import Path
from typing import Any

from core.config import Config
from core.errors import ConfigError
from methods.data import prompts

Turn = dict[str, str]
"""`role` and `content`."""
MOST = 6


def sample_chats(config: Config) -> list[list[Turn]]:
    """The samples of the model's manifest, else the first prompts of the pool, without the system message that
    `prompts.system` adds. Each ends with the user's question."""
    manifest = Path(config.model.path).parent / "manifest.json"
    samples = _samples(manifest) if manifest.is_file() and config.prompts.kind == "file" else []
    if samples:
        return [[{"role": "user", "content": sample}] for sample in samples]
    pool = prompts.read(config.prompts, config.run.seed)
    added = 0 if config.prompts.system is None else 1
    chats = (pool[place].messages[added:] for place in range(min(MOST, len(pool))))
    return [[{"role": turn.role, "content": turn.content} for turn in chat] for chat in chats]


def examples(config: Config) -> list[Turn]:
    """The turns that a task puts before each of its questions; none for prompts from a file."""
    return [] if config.prompts.kind == "file" else sample_chats(config)[0][:-1]


def _samples(manifest: Path) -> list[str]:
    """Raises: ConfigError."""
    try:
        found: list[Any] = json.loads(manifest.read_bytes()).get("try") or []
        return [str(sample) for sample in found]
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise ConfigError(f"{manifest} is damaged ({error}); restore it or remove it") from None
