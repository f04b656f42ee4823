"""What of a turn's row can be computed without the database: packed streams, hashes, JSON texts."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache

from agentrl.store import codec
from agentrl.store.conversations import Content, content_of, scope_key
from agentrl.types import Sampling, Turn, VersionSpan

SAME = b"="
"""`raw_logprobs` where they equal `logprobs`: temperature 1 without filters, the common case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedTurn:
    """A turn and its columns as they are stored, but for those that name other rows."""

    turn: Turn
    history_key: str
    reply_key: str
    messages: tuple[Content, ...]
    tools: Content
    sampling: Content
    prompt: bytes
    """The prompt ids as uint32."""
    sampled: bytes
    """The sampled ids as uint32."""
    prompt_ids: bytes | None
    """The whole prompt packed; None where it may be stored as what it adds to the parent's."""
    token_ids: bytes
    logprobs: bytes
    raw_logprobs: bytes | None
    num_allowed: bytes | None
    reply: bytes
    error: str | None
    block_spans: str | None
    shown_lessons: str | None
    version_spans: str | None
    """Only where it is not one span over the whole reply."""
    redacted_spans: str | None


def pack_turn(turn: Turn, history_key: str, reply_key: str) -> PackedTurn:
    """Raises ValueError for an id outside [0, 2**32)."""
    done, key = turn.completion, scope_key(turn.scope)
    # Only the first turn of a conversation is all new; packing what a later one resends would be for nothing.
    first = turn.parent is None
    prompt, sampled = codec.id_bytes(turn.prompt_ids), codec.id_bytes(done.token_ids)
    logprobs = codec.pack_floats(done.logprobs)
    raw = None if done.raw_logprobs is None else codec.pack_floats(done.raw_logprobs)
    whole = VersionSpan(version=done.version, start=0, end=len(done.token_ids))
    spans = [[span.version, span.start, span.end] for span in done.version_spans]
    calls = [[call.id, call.name, call.arguments] for call in turn.reply.tool_calls]
    redacted = [[span.path, span.start, span.end, span.rule] for span in turn.redacted_spans]
    return PackedTurn(
        turn=turn,
        history_key=history_key,
        reply_key=reply_key,
        messages=tuple(content_of(key, message, pack=first) for message in turn.messages),
        tools=content_of(key, turn.tools),
        sampling=_sampling(key, turn.sampling),
        prompt=prompt,
        sampled=sampled,
        prompt_ids=codec.pack_id_bytes(prompt) if first else None,
        token_ids=codec.pack_id_bytes(sampled),
        logprobs=logprobs,
        raw_logprobs=SAME if raw is not None and raw == logprobs else raw,
        num_allowed=None if done.num_allowed is None else codec.pack_ids(done.num_allowed),
        reply=codec.pack_json([turn.reply.text, turn.reply.reasoning, calls]),
        error=None if turn.error is None else codec.storable(turn.error),
        block_spans=codec.to_json(turn.block_spans) if turn.block_spans else None,
        shown_lessons=codec.to_json(turn.shown_lessons) if turn.shown_lessons else None,
        version_spans=None if done.version_spans in ((), (whole,)) else codec.to_json(spans),
        redacted_spans=codec.to_json(redacted) if redacted else None,
    )


@lru_cache(maxsize=256)
def _sampling(key: bytes, sampling: Sampling) -> Content:
    """Clients ask with the same few settings all day."""
    return content_of(key, {field.name: getattr(sampling, field.name) for field in fields(Sampling)})
