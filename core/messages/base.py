"""What crosses a wall. Two narrow waists keep every method apart from every other part:

    upstream all meets in `Group`:     alternative continuations of one context by one role, made by one version
    downstream all meets in `Example`: Imitate | Prefer | Reinforce

Messages are frozen and refuse unknown fields. Token ids and log-probabilities travel as packed little-endian bytes
(`core.codec`), never as lists. **A reference answer is no field of Prompt**: answer keys reach only the evaluator's
report, so that "label-free" can be read off the constructors.
"""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

KINDS: dict[str, type["Message"]] = {}


class Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64")
    SCHEMA: ClassVar[int] = 1

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        KINDS[cls.__name__] = cls

    def __reduce__(self) -> tuple[Any, ...]:
        """To another process a message travels as at rest: a few bytes, and checked when it arrives."""
        from core.codec import encode  # which imports this

        return arrived, (encode(self, compress=False),)

    @classmethod
    def migrate(cls, body: dict[str, Any], schema: int) -> dict[str, Any]:
        """The fields of an older schema as those of this one."""
        return body


def arrived(data: bytes) -> Message:
    from core.codec import decode

    return decode(Message, data)
