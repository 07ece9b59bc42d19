"""The fallback chat template, and a digest that shows whether engine and trainer render chats alike."""

import hashlib
import json

PLAIN_TEMPLATE = "{{ bos_token }}{% for message in messages %}{{ message['content'] + '\\n' }}{% endfor %}"
"""For a model without a chat template: one message per line."""


def render_id(tokenizer_json: str, template: str) -> str:
    """Digest of the whole tokenizer (the content of `tokenizer.json`), the chat template and its arguments."""
    rendering = [tokenizer_json, template, {"add_generation_prompt": True}]
    return hashlib.sha256(json.dumps(rendering, sort_keys=True).encode()).hexdigest()[:16]
