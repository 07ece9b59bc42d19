"""The redaction that a test's run applies to users' texts (`prompts.live.redact`)."""

import re


def without_phone_numbers(text: str) -> str:
    return re.sub(r"\b\d{3}-\d{4}\b", "PHONE", text)
