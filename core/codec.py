"""Messages as bytes: MessagePack on the wire and on disk, tokens and log-probabilities packed little-endian.

Nothing is ever unpickled. A message is stored as `{"kind": class name, "schema": number, "body": fields}`. The decoder
refuses an unknown kind and a schema newer than its own.
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
"""CRC-32 of the rest, size, and the message compressed by zstd: a quarter of zlib's time, and no larger."""
_DEFLATED = b"z"
"""Compressed by zlib, as older programs wrote it; read only."""
_CHECKED = b"c"
"""CRC-32 and a short message, not compressed."""
_PLAIN = b"p"
"""Neither checked nor compressed: between actors, and in records of older programs."""
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
    """A deterministic id of these parts, 32 hexadecimal digits: the same parts always give the same id."""
    return hashlib.sha256("".join(f"{len(part)}:{part}" for part in parts).encode()).hexdigest()[:32]


def sample_vote_id(candidate_id: str) -> str:
    """Id of the vote that a sample casts.

    Rows that are written together get ids with a common prefix where possible: here the candidates and votes of one
    group, in `example_id` its examples. An index then writes them to one page, which matters in runs of weeks."""
    return f"sample:{candidate_id}"


def example_id(method: str, group_id: str, name: str) -> str:
    """`name`: the id of its candidate, or of its candidates together."""
    return f"{group_id}-{stable_id(method, name)[:16]}"


def encode(message: Message, *, compress: bool = True) -> bytes:
    """`compress=False` is for long messages between actors."""
    packed = _packed(_tree(message))
    return _framed(packed) if compress else _PLAIN + packed


def encode_batch(messages: Sequence[Message]) -> bytes:
    """For messages between actors. Not compressed: compression costs more than sending."""
    return _PLAIN + _packed([_tree(message) for message in messages])


def decode(kind: type[M], data: bytes) -> M:
    """Raises: ArtifactError if the bytes are not one message of this kind."""
    return _message(kind, _unframe(data))


def decode_batch(kind: type[M], data: bytes) -> list[M]:
    """Raises: ArtifactError if the bytes are not a batch of this kind."""
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
    """The fields of a nested message. A frozen message has no attributes but its fields."""
    if not isinstance(value, Message):
        raise TypeError(f"a message holds {value!r}, which cannot be encoded")
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
    """The form on disk. A check detects flipped bits."""
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
    """The bytes behind the checksum. Raises: ValueError if it does not match."""
    if _check(body[4:]) != body[:4]:
        raise ValueError("its checksum does not match")
    return body[4:]


@functools.cache
def _zstd() -> Any:
    """pyarrow's codec. Imported on first use: pyarrow is slow to import, and many processes read no long record."""
    return import_module("pyarrow").Codec("zstd", compression_level=1)


def _expanded(body: bytes) -> bytes:
    """Raises: ValueError; OSError (from pyarrow) for bytes that are not zstd."""
    sized = _checked(body)
    size = int.from_bytes(sized[:4], "little")
    if size > _MOST_BYTES:
        raise ValueError(f"it claims to hold {size} bytes, but a message has at most {_MOST_BYTES}")
    return _zstd().decompress(sized[4:], decompressed_size=size, asbytes=True)


def _inflated(body: bytes) -> bytes:
    """Raises: zlib.error; ValueError for more than `_MOST_BYTES`, a truncated stream, or trailing bytes."""
    stream = zlib.decompressobj()
    plain = stream.decompress(body, _MOST_BYTES)
    if not stream.eof or stream.unused_data:
        raise ValueError(f"it is truncated, has trailing bytes, or holds more than {_MOST_BYTES} bytes")
    return plain


_FRAMES: dict[bytes, Callable[[bytes], bytes]] = {
    _PLAIN: bytes,
    _CHECKED: _checked,
    _COMPRESSED: _expanded,
    _DEFLATED: _inflated,
}
