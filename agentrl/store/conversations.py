"""Messages, tools and settings by the hash of their content: what a client resends is not stored again.

    content hash  = sha256(scope key + JSON text)
    message hash  = sha256(parent's message hash, or the scope key at the start, + content hash)

Scopes enter the hashes, so two scopes never share a row even where they said the same (law 10), and whether a
scope has said something cannot be asked by guessing it. Provenance (times, versions, clients) lives on turns.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agentrl.store.codec import pack_text, to_json, unpack_json
from agentrl.store.database import scalar


def scope_key(scope: str) -> bytes:
    """[32] where every chain of a scope begins."""
    return hashlib.sha256(b"scope\0" + scope.encode("utf-8", "surrogatepass")).digest()


def content_hash(key: bytes, text: str) -> bytes:
    """[32] identity of one JSON text within the scope of `key`."""
    return hashlib.sha256(key + text.encode("utf-8", "surrogatepass")).digest()


def message_hash(parent: bytes, content: bytes) -> bytes:
    """[32] identity of a message after all those before it; `parent` is the scope key for the first."""
    return hashlib.sha256(parent + content).digest()


@dataclass(frozen=True, slots=True)
class Content:
    """One JSON value on its way into the store."""

    text: str
    hash: bytes
    body: bytes | None = None
    """The text packed, where that was worth doing ahead of time."""


def content_of(key: bytes, value: Any, *, pack: bool = False) -> Content:
    """The identity of a JSON value in the scope of `key`; needs no database.

    Args:
        key: scope key.
        value: anything that JSON can say.
        pack: whether to pack the text now, because the value is likely to be new.
    """
    text = to_json(value)
    return Content(text, content_hash(key, text), pack_text(text) if pack else None)


class Conversations:
    """Writes contents and message chains of one scope through a connection whose transaction is open."""

    def __init__(self, connection: sqlite3.Connection, scope: str) -> None:
        self._connection = connection
        self._key = scope_key(scope)
        found = scalar(connection, "SELECT id FROM scopes WHERE name = ?", (scope,))
        if found is None:
            found = connection.execute("INSERT INTO scopes (name) VALUES (?)", (scope,)).lastrowid
        self._scope = int(found)

    def content(self, content: Content) -> int:
        """The row of a value, made when new."""
        found = scalar(self._connection, "SELECT id FROM contents WHERE hash = ?", (content.hash,))
        if found is None:
            body = pack_text(content.text) if content.body is None else content.body
            found = self._connection.execute(
                "INSERT INTO contents (scope, hash, body) VALUES (?, ?, ?)", (self._scope, content.hash, body)
            ).lastrowid
        assert found is not None
        return int(found)

    def chain(self, messages: Sequence[Content]) -> int | None:
        """The row of the last message; only messages after the longest known prefix are written."""
        hashes: list[bytes] = []
        parent = self._key
        for message in messages:
            parent = message_hash(parent, message.hash)
            hashes.append(parent)
        tip: int | None = None
        known = len(hashes)
        # From the end: a resent history is known up to its last one to three messages.
        while known:
            tip = scalar(self._connection, "SELECT id FROM messages WHERE hash = ?", (hashes[known - 1],))
            if tip is not None:
                break
            known -= 1
        for message, digest in zip(messages[known:], hashes[known:], strict=True):
            tip = self._connection.execute(
                "INSERT INTO messages (parent, content, hash) VALUES (?, ?, ?)",
                (tip, self.content(message), digest),
            ).lastrowid
        return tip


def read_content(connection: sqlite3.Connection, content: int) -> Any:
    body = scalar(connection, "SELECT body FROM contents WHERE id = ?", (content,))
    if body is None:
        raise ValueError(f"content {content} is missing")
    return unpack_json(body)


def read_chain(connection: sqlite3.Connection, tip: int | None) -> tuple[Any, ...]:
    """The messages of a conversation, first to last; `tip` None is the empty conversation."""
    if tip is None:
        return ()
    rows = connection.execute(
        """WITH RECURSIVE chain (parent, content, distance) AS (
               SELECT parent, content, 0 FROM messages WHERE id = ?
               UNION ALL
               SELECT m.parent, m.content, c.distance + 1 FROM chain c JOIN messages m ON m.id = c.parent)
           SELECT contents.body FROM chain JOIN contents ON contents.id = chain.content
           ORDER BY chain.distance DESC""",
        (tip,),
    ).fetchall()
    return tuple(unpack_json(row["body"]) for row in rows)
