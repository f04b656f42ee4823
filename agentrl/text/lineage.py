"""Which turn does a request answer? Told from the messages alone, because clients send their history again.

In this order: a call id that the gateway minted; the hash of all messages up to the last reply; the same last reply in
the same session (a compacted history); and, for clients that drop a reply they could not use, the hash of the messages
up to where it stood. Candidates come from the log, of one scope only: that is the caller's to see to.

Keys are hashes with a secret of the run, so that a key in the log tells nothing about a message that was redacted.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from agentrl.text.canonical import canonical, content_text, reply_text
from agentrl.types import JSON, MatchedBy

_MINTED_IN_TEXT = re.compile(r"call[A-Za-z0-9_]{8,}")
_NOT_ALPHANUMERIC = re.compile(r"[^A-Za-z0-9]")


class Candidate(Protocol):
    """A turn of the log that a request may answer."""

    @property
    def id(self) -> str: ...

    @property
    def session(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """The turn that a request answers."""

    turn_id: str | None
    """None: no turn, or more than one that cannot be told apart."""
    session: str | None
    """That turn's."""
    matched_by: MatchedBy
    num_messages: int
    """So many messages of the request are that turn's prompt and reply; what follows them is its next state."""


NO_MATCH = Match(turn_id=None, session=None, matched_by=MatchedBy.NONE, num_messages=0)


class Lineage:
    """Keys of messages under one secret, and the decision.

    Args:
        secret: at least 16 bytes, kept for as long as the log; other secrets give other keys.
    """

    def __init__(self, secret: bytes) -> None:
        if len(secret) < 16:
            raise ValueError(f"the lineage secret has {len(secret)} bytes; use secrets.token_bytes(32)")
        self._key = hashlib.blake2b(secret, digest_size=32).digest()

    def history_key(self, messages: Sequence[JSON]) -> str:
        """Key of a whole conversation. A turn is found by that of its messages and its reply."""
        return self._chain(messages)[-1][2]

    def prefix_keys(self, messages: Sequence[JSON]) -> list[tuple[int, str]]:
        """(number of messages, key) of every prefix that ends in a reply, longest first."""
        chain = self._chain(messages)
        return [(number, key) for number, role, key in reversed(chain) if role == "assistant"]

    def asked_keys(self, messages: Sequence[JSON]) -> list[tuple[int, str]]:
        """(number of messages, key) of every earlier request whose reply the client may have dropped, longest first.

        Such a request ended in a message behind the last reply of this history, before its last message.
        """
        found: list[tuple[int, str]] = []
        for number, role, key in reversed(self._chain(messages)[1:-1]):
            if role == "assistant":
                break
            found.append((number, key))
        return found

    def reply_key(self, message: JSON) -> str:
        """Key of one assistant message."""
        return self._hash(reply_text([message]))

    def last_reply_key(self, messages: Sequence[JSON]) -> tuple[int, str] | None:
        """(number of messages up to it, key) of the last reply in a history; None where there is none."""
        found = [(number, text) for number, role, text in canonical(messages) if role == "assistant"]
        return (found[-1][0], self._hash(found[-1][1])) if found else None

    def task_key(self, messages: Sequence[JSON]) -> str:
        """16 hexadecimal digits of the first user message, the same in every run; no secret goes in.

        Pass redacted messages: without a secret of the run, a short text can be found by trying.
        """
        first = next((message for message in messages if message.get("role") == "user"), {})
        text = " ".join(content_text(first.get("content")).split())
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def _chain(self, messages: Sequence[JSON]) -> list[tuple[int, str, str]]:
        """(number of messages, role of the last, key) of every prefix, the empty one first."""
        key = self._hash("conversation")
        chain = [(0, "", key)]
        for number, role, text in canonical(messages):
            key = self._hash(key + text)
            chain.append((number, role, key))
        return chain

    def _hash(self, text: str) -> str:
        data = text.encode("utf-8", "surrogatepass")
        return hmac.new(self._key, data, hashlib.sha256).hexdigest()[:32]


def decide(
    messages: Sequence[JSON],
    *,
    session: str | None,
    called: Sequence[Candidate] = (),
    same_history: Sequence[Candidate] = (),
    same_reply: Sequence[Candidate] = (),
    same_question: Mapping[int, Sequence[Candidate]] | None = None,
) -> Match:
    """The turn that `messages` answer, given what the log holds of their scope.

    Args:
        session: the request's, None where it is not known yet.
        called: turns that made one of `call_ids`.
        same_history: turns whose history key is the first of `prefix_keys`.
        same_reply: turns whose reply key is that of the last reply; only those of the session count.
        same_question: for a history without a reply to match, turns that have no next state and whose messages have
            one of `asked_keys`, by that key's number of messages.
    """
    num_messages = max((n for n, role, _ in canonical(messages) if role == "assistant"), default=0)
    if called:
        return _match(called, session, MatchedBy.TOOL_CALL_ID, num_messages or _first_tool(messages))
    if num_messages and same_history:
        return _match(same_history, session, MatchedBy.HISTORY, num_messages)
    in_session = [candidate for candidate in same_reply if candidate.session == session]
    if num_messages and in_session:
        return _match(in_session, session, MatchedBy.LAST_REPLY, num_messages)
    for number, candidates in sorted((same_question or {}).items(), reverse=True):
        if candidates:
            return _match(candidates, session, MatchedBy.HISTORY, number)
    return NO_MATCH


def call_ids(messages: Sequence[JSON]) -> list[str]:
    """Call ids, letters and digits only, that tell which turn the messages answer; to be looked up in the log.

    They stand in the tool messages behind the last reply, in the reply itself, or, with one client, in its text.
    """
    last = max((i for i, message in enumerate(messages) if message.get("role") == "assistant"), default=-1)
    found = [message.get("tool_call_id") for message in messages[last + 1 :] if message.get("role") == "tool"]
    if last >= 0 and not any(found):
        reply = messages[last]
        found = [call.get("id") for call in reply.get("tool_calls") or ()]
        if not any(found):
            found = list(_MINTED_IN_TEXT.findall(content_text(reply.get("content"))))
    return list(dict.fromkeys(_NOT_ALPHANUMERIC.sub("", str(call_id)) for call_id in found if call_id))


def next_messages(messages: Sequence[JSON], num: int, asked: Sequence[JSON] = ()) -> tuple[JSON, ...]:
    """What followed a turn: the messages behind its reply up to the next one.

    Args:
        num: `Match.num_messages`.
        asked: the messages of the turn's own request. Messages of theirs that a client took from before the reply
            and put behind it (one moves its context message to the end of every request) are not news.
    """
    now, before = canonical(messages[:num]), canonical(asked)
    moved = [text for _, _, text in before]
    for _, _, text in now:
        if text in moved:
            moved.remove(text)
    found: list[JSON] = []
    for message in messages[num:]:
        if message.get("role") == "assistant":
            break
        alone = [text for _, _, text in canonical([message])]
        if alone and alone[0] in moved:
            moved.remove(alone[0])
        else:
            found.append(message)
    return tuple(found)


def _match(candidates: Sequence[Candidate], session: str | None, how: MatchedBy, num_messages: int) -> Match:
    """An exact session wins a tie; a tie that stays is ambiguous, and no turn is taken for another."""
    exact = [candidate for candidate in candidates if candidate.session == session]
    found = {candidate.id: candidate for candidate in exact or candidates}
    if len(found) > 1:
        return Match(turn_id=None, session=None, matched_by=MatchedBy.AMBIGUOUS, num_messages=num_messages)
    (only,) = found.values()
    return Match(turn_id=only.id, session=only.session, matched_by=how, num_messages=num_messages)


def _first_tool(messages: Sequence[JSON]) -> int:
    return next(i for i, message in enumerate(messages) if message.get("role") == "tool")
