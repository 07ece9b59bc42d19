"""A chat template that refuses what those of Gemma and Mistral refuse."""

import json
import shutil
from pathlib import Path

MODEL = Path(__file__).parents[2] / "models" / "word-problems" / "model"
REFUSING = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
    "{{ message['content'] + '\\n' }}{% endfor %}"
)
ALTERNATE = "Conversation roles must alternate user/assistant"


def tokenizer_with(folder: Path, template: str = REFUSING) -> Path:
    """A folder with the embedded model's tokenizer and this template."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in ("config.json", "tokenizer.json"):
        shutil.copy(MODEL / file, folder / file)
    fields = json.loads((MODEL / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**fields, "chat_template": template}))
    return folder
