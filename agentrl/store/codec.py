"""Values to blobs and back. Every pack_* has an unpack_* that gives the value again, bit for bit.

Ids: planes of bytes (all low bytes, then all second bytes, ..) as wide as the largest id needs. Planes above the
second are nearly constant in any vocabulary and are deflated; the two below hardly shrink, and trying costs three
times the rest, so they are deflated only where ids are small. 2,000 ids take 4.5 kB where JSON takes 12. A stream of
one value over and over, such as the support sizes of unfiltered sampling, is kept as that value and its count.
Log-probs: float32, the precision engines give; a Python float that has more bits is rounded to it.
What is shown to people alone: float16.
Texts: UTF-8 with lone surrogates let through (a client's JSON may hold them), deflated from 256 bytes on.
What is deflated is an ordinary zlib stream, written by ISA-L in two fifths of zlib's own time.
"""

from __future__ import annotations

import hashlib
import json
import sys
import zlib
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

PLAIN, DEFLATED, SPLIT, CONSTANT = 0, 8, 16, 24
"""How an id blob is packed, in its first byte beside the width of an id in bytes (1 to 4): nothing deflated, all of
it, all but the two lowest planes, or one id and its count."""
MIN_IDS = 256
"""Fewer ids are not worth deflating."""
MIN_CONSTANT = 9
"""Fewer than this many equal ids are as short when they are kept as they are."""
MIN_TEXT = 256
"""Shorter texts, in bytes, are not worth deflating."""


def id_bytes(ids: Sequence[int]) -> bytes:
    """Ids as little-endian uint32. Raises ValueError for an id outside [0, 2**32)."""
    try:
        packed = array("I", ids)
    except OverflowError as error:
        raise ValueError(f"a token id lies outside [0, 2**32): {error}") from error
    assert packed.itemsize == 4
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def pack_id_bytes(data: bytes) -> bytes:
    """What `id_bytes` gave, packed; no ids give an empty blob."""
    if not data:
        return b""
    length = len(data) // 4
    if length >= MIN_CONSTANT and data[:4] == data[-4:] and data == data[:4] * length:
        return bytes([4 | CONSTANT]) + data[:4] + length.to_bytes(4, "little")
    ids = np.frombuffer(data, dtype="<u4")
    width = max(1, (int(ids.max()).bit_length() + 7) // 8)
    planes = ids.view(np.uint8).reshape(-1, 4)[:, :width].T.tobytes()
    if length >= MIN_IDS:
        plain = 2 * length if width > 2 else 0
        # The deflated part comes first: it knows its own end, and what follows it are the plain planes.
        packed = isal_zlib.compress(planes[plain:], 1) + planes[:plain]
        if len(packed) < len(planes):
            return bytes([width | (SPLIT if plain else DEFLATED)]) + packed
    return bytes([width | PLAIN]) + planes


def unpack_id_bytes(blob: bytes) -> bytes:
    """The little-endian uint32 bytes of a packed blob. Raises ValueError for a damaged one."""
    if not blob:
        return b""
    width, way, planes = blob[0] & 7, blob[0] & ~7, blob[1:]
    if not 1 <= width <= 4 or way not in (PLAIN, DEFLATED, SPLIT, CONSTANT):
        raise ValueError(f"id blob begins with {blob[0]:#04x}, which no packing has")
    if way == CONSTANT:
        if len(planes) != 8:
            raise ValueError(f"id blob of one value has {len(planes)} bytes, not 8")
        return planes[:4] * int.from_bytes(planes[4:], "little")
    if way != PLAIN:
        planes = _inflate(planes, way, width)
    if len(planes) % width:
        raise ValueError(f"id blob has {len(planes)} bytes, not a multiple of its width {width}")
    ids = np.zeros((len(planes) // width, 4), dtype=np.uint8)
    ids[:, :width] = np.frombuffer(planes, dtype=np.uint8).reshape(width, -1).T
    return ids.tobytes()


def _inflate(data: bytes, way: int, width: int) -> bytes:
    inflate = zlib.decompressobj()
    try:
        high = inflate.decompress(data) + inflate.flush()
    except zlib.error as error:
        raise ValueError(f"id blob cannot be inflated: {error}") from error
    low = inflate.unused_data
    if not inflate.eof or len(low) * (width - 2) != (len(high) * 2 if way == SPLIT else 0):
        raise ValueError("id blob ends before its last plane")
    return low + high


def pack_ids(ids: Sequence[int]) -> bytes:
    return pack_id_bytes(id_bytes(ids))


def unpack_ids(blob: bytes) -> tuple[int, ...]:
    return ids_of(unpack_id_bytes(blob))


def ids_of(data: bytes) -> tuple[int, ...]:
    """Little-endian uint32 bytes as ids."""
    return tuple(np.frombuffer(data, dtype="<u4").tolist())


def pack_floats(values: Sequence[float]) -> bytes:
    packed = array("f", values)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def unpack_floats(blob: bytes) -> tuple[float, ...]:
    """Raises ValueError for a blob whose length is no multiple of 4."""
    return tuple(np.frombuffer(blob, dtype="<f4").tolist())


def pack_halves(values: NDArray[np.float16]) -> bytes:
    """float16 in planes of bytes, deflated where that helps: signs and exponents are alike, the other bits are not."""
    planes = np.ascontiguousarray(values, dtype="<f2").view(np.uint8).reshape(-1, 2).T.tobytes()
    small = isal_zlib.compress(planes, 1)
    return b"z" + small if len(small) < len(planes) else b"p" + planes


def unpack_halves(blob: bytes) -> NDArray[np.float16]:
    """Raises ValueError for a damaged blob."""
    try:
        planes = zlib.decompress(blob[1:]) if blob[:1] == b"z" else blob[1:]
    except zlib.error as error:
        raise ValueError(f"float blob cannot be inflated: {error}") from error
    if blob[:1] not in (b"z", b"p") or len(planes) % 2:
        raise ValueError("float blob begins or ends as no packing does")
    halves = np.frombuffer(planes, dtype=np.uint8).reshape(2, -1).T
    return np.ascontiguousarray(halves).view("<f2").reshape(-1).astype(np.float16)


def pack_text(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    if len(data) >= MIN_TEXT:
        small = isal_zlib.compress(data, 1)
        if len(small) < len(data):
            return b"z" + small
    return b"t" + data


def unpack_text(blob: bytes) -> str:
    """Raises ValueError for a damaged blob."""
    try:
        data = zlib.decompress(blob[1:]) if blob[:1] == b"z" else blob[1:]
    except zlib.error as error:
        raise ValueError(f"text blob cannot be inflated: {error}") from error
    return data.decode("utf-8", "surrogatepass")


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def to_json(value: Any) -> str:
    """Compact JSON in the order received: the order of keys decides how a template renders a tool."""
    return _ENCODER.encode(value)


def pack_json(value: Any) -> bytes:
    return pack_text(to_json(value))


def unpack_json(blob: bytes) -> Any:
    return json.loads(unpack_text(blob))


def storable(text: str) -> str:
    """Text for a TEXT column: lone surrogates, which UTF-8 has no form for, become U+FFFD."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def digest(values: Iterable[Any]) -> bytes:
    """[16] checksum of one row of numbers, texts, blobs and NULLs: any value, type, length or order changes it."""
    head: list[Any] = []
    blobs: list[bytes] = [b""]
    for value in values:
        if isinstance(value, bytes):
            head.append(("blob", len(value)))
            blobs.append(value)
        else:
            head.append(value)
    blobs[0] = to_json(head).encode()
    return hashlib.blake2b(b"".join(blobs), digest_size=16).digest()
