"""The base class of all messages."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

KINDS: dict[str, type["Message"]] = {}
"""Class name -> class, for decoding."""


class Message(BaseModel):
    """Frozen; refuses unknown fields; registered in KINDS by its class name."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64")
    SCHEMA: ClassVar[int] = 1
    WAS: ClassVar[tuple[str, ...]] = ()
    """Names under which older programs stored it."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        KINDS.update(dict.fromkeys((cls.__name__, *cls.WAS), cls))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles as encoded bytes: they are small, and validated on arrival."""
        from core.codec import encode  # imported here: core.codec imports this module

        return arrived, (encode(self, compress=False),)

    @classmethod
    def migrate(cls, body: dict[str, Any], schema: int) -> dict[str, Any]:
        """Converts fields of an older schema to this one."""
        return body


def arrived(data: bytes) -> Message:
    from core.codec import decode

    return decode(Message, data)
