"""Messages as bytes: MessagePack on the wire and on disk, tokens and log-probabilities packed little-endian.

Nothing is ever unpickled. A message is stored as `{"kind": class name, "schema": number, "body": fields}`; a decoder
refuses a kind that it does not know and a schema that is newer than its own.
"""

import functools
import hashlib
import zlib
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from typing import Any, TypeVar, cast

import msgpack  # pyright: ignore[reportMissingTypeStubs]
import numpy as np

from core.errors import ArtifactError
from core.messages import KINDS, Message

M = TypeVar("M", bound=Message)
_msgpack: Any = msgpack

_COMPRESSED = b"s"
"""A CRC-32 of the rest; size; the message by zstd: a quarter of zlib's time, and no larger."""
_DEFLATED = b"z"
"""As older programs compressed."""
_CHECKED = b"c"
"""Short: a CRC-32 before it."""
_PLAIN = b"p"
_COMPRESS_FROM_BYTES = 1024
_MOST_BYTES = 2**30


def pack_ids(ids: Iterable[int]) -> bytes:
    """Token ids as int32[T] little-endian."""
    return np.fromiter(ids, dtype="<i4").tobytes()


def unpack_ids(packed: bytes) -> list[int]:
    return np.frombuffer(packed, dtype="<i4").tolist()


def pack_floats(values: Iterable[float]) -> bytes:
    """Log-probabilities as float32[T] little-endian."""
    return np.fromiter(values, dtype="<f4").tobytes()


def unpack_floats(packed: bytes) -> list[float]:
    return np.frombuffer(packed, dtype="<f4").tolist()


def stable_id(*parts: str) -> str:
    """The id that these parts always give, 32 hexadecimal digits: what is made twice from the same has one id."""
    return hashlib.sha256("".join(f"{len(part)}:{part}" for part in parts).encode()).hexdigest()[:32]


def sample_vote_id(candidate_id: str) -> str:
    """Of the vote that a sample casts. Ids of what is written together begin alike where they can, here those of one
    group's candidates and votes, and in `example_id`: an index takes them on one page, and a run's grow for weeks."""
    return f"sample:{candidate_id}"


def example_id(kind: str, method: str, group_id: str, candidate_id: str) -> str:
    return f"{group_id}-{stable_id(kind, method, candidate_id)[:16]}"


def encode(message: Message, *, compress: bool = True) -> bytes:
    """`compress=False`: for something long that travels from one actor to another."""
    packed = _packed(_tree(message))
    return _framed(packed) if compress else _PLAIN + packed


def encode_batch(messages: Sequence[Message]) -> bytes:
    """For what travels from one actor to another, not compressed: that costs more than to send it."""
    return _PLAIN + _packed([_tree(message) for message in messages])


def decode(kind: type[M], data: bytes) -> M:
    """Raises: ArtifactError when the bytes are not one message of this kind."""
    return _message(kind, _unframe(data))


def decode_batch(kind: type[M], data: bytes) -> list[M]:
    """Raises: ArtifactError when the bytes are not a batch of this kind."""
    trees = _unframe(data)
    if not isinstance(trees, list):
        raise ArtifactError(f"expected a batch of {kind.__name__}, found {type(trees).__name__}")
    return [_message(kind, tree) for tree in cast(list[Any], trees)]


def _tree(message: Message) -> dict[str, Any]:
    kind = type(message)
    return {"kind": kind.__name__, "schema": kind.SCHEMA, "body": vars(message)}


def _packed(tree: Any) -> bytes:
    return _msgpack.packb(tree, use_bin_type=True, default=_fields)


def _fields(value: object) -> dict[str, Any]:
    """Of a message within another; a frozen message holds nothing but its fields."""
    if not isinstance(value, Message):
        raise TypeError(f"a message holds {value!r}, which has no form on the wire")
    return vars(value)


def _message(kind: type[M], tree: Any) -> M:
    fields = cast(dict[str, Any], tree) if isinstance(tree, dict) else {"kind": type(tree).__name__}
    name, schema, body = fields.get("kind"), fields.get("schema"), fields.get("body")
    actual = KINDS.get(name) if isinstance(name, str) else None
    if actual is None or not isinstance(schema, int) or not isinstance(body, dict):
        raise ArtifactError(f"expected a {kind.__name__}, found {name!r}; was this written by another program?")
    if not issubclass(actual, kind):
        raise ArtifactError(f"expected a {kind.__name__}, found a {actual.__name__}")
    if schema > actual.SCHEMA:
        raise ArtifactError(
            f"{actual.__name__} schema {schema} is newer than this program's {actual.SCHEMA}; upgrade Ratchet"
        )
    try:
        return actual.model_validate(actual.migrate(cast(dict[str, Any], body), schema))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactError(f"not a valid {actual.__name__}: {error}") from None


def _framed(body: bytes) -> bytes:
    """As it rests: whatever flips a bit is noticed."""
    if len(body) < _COMPRESS_FROM_BYTES:
        return _CHECKED + _check(body) + body
    sized = len(body).to_bytes(4, "little") + _zstd().compress(body, asbytes=True)
    return _COMPRESSED + _check(sized) + sized


def _unframe(data: bytes) -> Any:
    mark, body = data[:1], data[1:]
    if mark not in _FRAMES:
        raise ArtifactError(f"not a Ratchet record: it begins with {mark!r}, expected one of {[*_FRAMES]}")
    try:
        return _msgpack.unpackb(_FRAMES[mark](body), raw=False)
    except (zlib.error, OSError, ValueError, TypeError, RecursionError, _msgpack.exceptions.UnpackException) as error:
        raise ArtifactError(f"a damaged record of {len(data)} bytes: {error}") from None


def _check(body: bytes) -> bytes:
    return zlib.crc32(body).to_bytes(4, "little")


def _checked(body: bytes) -> bytes:
    """Raises: ValueError."""
    if _check(body[4:]) != body[:4]:
        raise ValueError("its check does not fit")
    return body[4:]


@functools.cache
def _zstd() -> Any:
    """Of pyarrow, which is slow to import where no long record is ever met."""
    return import_module("pyarrow").Codec("zstd", compression_level=1)


def _expanded(body: bytes) -> bytes:
    """Raises: ValueError; OSError, pyarrow's, for what is no zstd."""
    sized = _checked(body)
    size = int.from_bytes(sized[:4], "little")
    if size > _MOST_BYTES:
        raise ValueError(f"it says to hold {size} bytes, more than the {_MOST_BYTES} that any message can")
    return _zstd().decompress(sized[4:], decompressed_size=size, asbytes=True)


def _inflated(body: bytes) -> bytes:
    """Raises: zlib.error; ValueError when there is more than any message can hold, or something behind it."""
    stream = zlib.decompressobj()
    plain = stream.decompress(body, _MOST_BYTES)
    if not stream.eof or stream.unused_data:
        raise ValueError(f"it is cut off, goes on after its end, or holds more than {_MOST_BYTES} bytes")
    return plain


_FRAMES: dict[bytes, Callable[[bytes], bytes]] = {
    _PLAIN: bytes,
    _CHECKED: _checked,
    _COMPRESSED: _expanded,
    _DEFLATED: _inflated,
}
