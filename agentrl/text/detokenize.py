"""Text from ids, one id at a time, each character as soon as it is whole.

Every id of the tokenizers that chat models use stands for a run of bytes, whatever the notation: GPT-2's alphabet for
bytes, or words with ▁ for a space and `<0x0A>` for a byte that is no word. So text is bytes joined and decoded, which
needs no second look at earlier ids.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from agentrl.errors import ModelError

_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """The bytes of every id."""

    of: Mapping[int, bytes]
    """Ids that are not in it have no text."""
    strips: bool
    """The tokenizer puts a space before a text's first word, which decoding takes away again."""


class Detokenizer:
    """What was fed and flushed, joined, is the decoded whole. Bytes that are no UTF-8 become U+FFFD."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces.of
        self._strip = pieces.strips
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @property
    def pending(self) -> bool:
        """Whether a character has begun that is not whole yet."""
        return bool(self._decoder.getstate()[0])

    def feed(self, token_id: int) -> str:
        """The characters that are whole now."""
        return self._begun(self._decoder.decode(self._pieces.get(token_id, b"")))

    def flush(self) -> str:
        """U+FFFD for a character that was left unfinished; the next id begins a new one."""
        return self._begun(self._decoder.decode(b"", final=True))

    def _begun(self, text: str) -> str:
        if self._strip and text:
            self._strip = False
            return text.removeprefix(" ")
        return text


def decode(pieces: Pieces, token_ids: Sequence[int]) -> str:
    """The text of ids, control tokens included."""
    of = pieces.of
    text = b"".join([of.get(token_id, b"") for token_id in token_ids]).decode("utf-8", "replace")
    return text.removeprefix(" ") if pieces.strips else text


def offsets(pieces: Pieces, token_ids: Sequence[int]) -> list[tuple[int, int]]:
    """Characters [start, end) of the decoded text to which each id contributed.

    Ids that share a character all have it in their range.
    """
    detokenizer = Detokenizer(pieces)
    starts = [0] * len(token_ids)
    ends = [0] * len(token_ids)
    position = 0
    waiting: list[int] = []
    for index in range(len(token_ids) + 1):
        at_end = index == len(token_ids)
        began = not detokenizer.pending
        text = detokenizer.flush() if at_end else detokenizer.feed(token_ids[index])
        if not at_end:
            starts[index] = position
            waiting = [index] if began else [*waiting, index]
        for one in waiting:
            ends[one] = max(ends[one], position + len(text))
        position += len(text)
        if text:
            waiting = [index]
    return list(zip(starts, ends, strict=True))


def pieces_of(tokenizer: Tokenizer) -> Pieces:
    """Reads a tokenizer's decoder.

    Raises ModelError for a decoder that does not work id by id.
    """
    decoder = json.loads(tokenizer.to_str())["decoder"] or {"type": "none"}
    vocab: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
    if decoder["type"] == "ByteLevel":
        alphabet = _byte_alphabet()
        return Pieces(of={i: _byte_level(token, alphabet) for token, i in vocab.items()}, strips=False)
    steps = decoder.get("decoders", [decoder])
    kinds = {step["type"] for step in steps}
    if "Metaspace" not in kinds and not {"Replace", "Fuse"} <= kinds:
        raise ModelError(
            f"the tokenizer's decoder ({', '.join(sorted(kinds))}) is none that agentrl can read id by id"
        )
    strips = any(
        step["type"] == "Strip" or (step["type"] == "Metaspace" and step["prepend_scheme"] != "never")
        for step in steps
    )
    has_bytes = "ByteFallback" in kinds
    return Pieces(of={i: _word(token, has_bytes=has_bytes) for token, i in vocab.items()}, strips=strips)


def is_byte(token: str) -> bool:
    """Whether a token stands for a byte that is no word (`<0x0A>`)."""
    return _BYTE_TOKEN.fullmatch(token) is not None


def _byte_level(token: str, alphabet: Mapping[str, int]) -> bytes:
    if all(character in alphabet for character in token):
        return bytes(alphabet[character] for character in token)
    return token.encode()


def _word(token: str, *, has_bytes: bool) -> bytes:
    byte = _BYTE_TOKEN.fullmatch(token) if has_bytes else None
    return bytes([int(byte.group(1), 16)]) if byte else token.replace("▁", " ").encode()


def _byte_alphabet() -> dict[str, int]:
    """The characters that stand for bytes in byte-level vocabularies (GPT-2): printable ones for themselves."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
