"""How a chat becomes text, and the digest by which engine and trainer know that they render alike."""

import hashlib
import json

PLAIN_TEMPLATE = "{{ bos_token }}{% for message in messages %}{{ message['content'] + '\\n' }}{% endfor %}"
"""For a model without a chat template: every message on a line of its own."""


def render_id(tokenizer_json: str, template: str) -> str:
    """Digest of the whole tokenizer (as `tokenizer.json` says it), the chat template and its arguments."""
    rendering = [tokenizer_json, template, {"add_generation_prompt": True}]
    return hashlib.sha256(json.dumps(rendering, sort_keys=True).encode()).hexdigest()[:16]
