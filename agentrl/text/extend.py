"""A prompt that continues its parent's ids verbatim, or the reason why it must not.

The client's history is rendered by the template and compared, message by message, with the parent's ids: what the
model did not sample must agree id for id, what it did must read the same. Then the ids of the new messages follow the
parent's; anything else would put words into the history that the client or the template has taken out of it.

A client that leaves reasoning out of its history has not edited it, most have no field for it: it is put back before
rendering. Whether it stays is the template's to say.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agentrl.text.reading import ReplyReader
from agentrl.text.turns import Segment, Turns
from agentrl.types import JSON, Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """The turn that a request answers."""

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    """As sampled, the stop id included when one was sampled."""
    num_messages: int
    """So many messages of the new request are the parent's prompt and reply."""


class Differs(Exception):
    """Why the parent's ids cannot be continued; a short phrase."""


def extended(
    parent: Parent,
    history: Sequence[JSON],
    *,
    render: Callable[[Sequence[JSON]], tuple[int, ...]],
    turns: Turns,
    reader: ReplyReader,
    stop_ids: frozenset[int],
    keep_all: bool,
) -> tuple[int, ...]:
    """The parent's ids, what closes its reply, and the ids of the new messages up to the next reply's header.

    Args:
        history: all messages of the new request, normal form.
        render: their prompt ids by the template.
        keep_all: earlier reasoning stays even where the template drops it.

    Raises:
        Differs: with the reason.
    """
    known = parent.prompt_ids + parent.completion_ids
    old = _messages_of(parent, turns, stop_ids)
    said = {index: reader.parse_message(_content(known, segment)) for index, segment in _replies(old)}
    ids = render(
        _with_reasoning(history[: parent.num_messages], list(said.values()))
        + list(history[parent.num_messages :])
    )
    new = turns.segments(ids)
    if len(new) <= len(old):
        raise Differs("the client's history is shorter than the parent's")
    if known[: old[0].start] != ids[: new[0].start]:
        raise Differs("the system prompt or the tools changed")
    for index, (before, now) in enumerate(zip(old, new, strict=False)):
        if before.role != now.role:
            raise Differs("the client's history differs from the parent's")
        if index not in said:
            if known[before.start : before.end] != ids[now.start : now.end]:
                raise Differs(_changed(before.role))
        elif _content(known, before) != _content(ids, now):
            _compare(said[index], reader.parse_message(_content(ids, now)), keep_all=keep_all)
    added = new[len(old) : -1]
    if not added:
        raise Differs("nothing follows the parent's reply")
    if any(segment.role == "assistant" for segment in added):
        raise Differs("the client added an assistant message")
    return known + _joined(parent.completion_ids, ids[added[0].start :], turns, reader, stop_ids)


def _messages_of(parent: Parent, turns: Turns, stop_ids: frozenset[int]) -> list[Segment]:
    """The parent's messages, its reply last."""
    if any(token_id in stop_ids for token_id in parent.completion_ids[:-1]):
        raise Differs("the parent's reply goes on behind a stop id")
    found = turns.segments(parent.prompt_ids)
    if not found or found[-1].role != "assistant":
        raise Differs("the parent's prompt does not end with a reply's header")
    last = found[-1]
    end = len(parent.prompt_ids) + len(parent.completion_ids)
    stopped = bool(parent.completion_ids) and parent.completion_ids[-1] in stop_ids
    # What was sampled is one message, whatever headers the model may have made up in it.
    return [*found[:-1], Segment("assistant", last.start, last.body, end - stopped, end)]


def _replies(segments: Sequence[Segment]) -> list[tuple[int, Segment]]:
    return [(index, segment) for index, segment in enumerate(segments) if segment.role == "assistant"]


def _content(ids: Sequence[int], segment: Segment) -> tuple[int, ...]:
    return tuple(ids[segment.body : segment.close])


def _with_reasoning(history: Sequence[JSON], said: Sequence[Reply]) -> list[JSON]:
    """The client's messages with the reasoning that it left out."""
    replies = [message for message in history if message["role"] == "assistant"]
    if len(replies) != len(said) or not history or history[-1]["role"] != "assistant":
        raise Differs("the client's history does not hold the parent's replies")
    left = iter(said)
    restored = []
    for message in history:
        if message["role"] == "assistant":
            reasoning = next(left).reasoning
            if reasoning and not message.get("reasoning_content"):
                message = message | {"reasoning_content": reasoning}
        restored.append(message)
    return restored


def _compare(sampled: Reply, told: Reply, *, keep_all: bool) -> None:
    if sampled.text.strip() != told.text.strip() or _calls(sampled) != _calls(told):
        raise Differs("the client changed an assistant message")
    if sampled.reasoning != told.reasoning and not keep_all:
        raise Differs(
            "the client changed the reasoning" if told.reasoning else "the template drops earlier reasoning"
        )


def _calls(reply: Reply) -> list[tuple[str, str]]:
    return [
        (call.name, json.dumps(json.loads(call.arguments), sort_keys=True, ensure_ascii=False))
        for call in reply.tool_calls
    ]


def _changed(role: str) -> str:
    return (
        "the system prompt or the tools changed"
        if role == "system"
        else f"the client changed a {role} message"
    )


def _joined(
    completion_ids: tuple[int, ...],
    tail: tuple[int, ...],
    turns: Turns,
    reader: ReplyReader,
    stop_ids: frozenset[int],
) -> tuple[int, ...]:
    """The new messages, with what has to stand between them and the sampled ids."""
    if not completion_ids or completion_ids[-1] not in stop_ids:
        return (*reader.closing_ids(completion_ids), *turns.close_ids, *turns.after, *tail)
    if completion_ids[-1] == tail[0]:
        # Where messages have no end of their own, a reply stops by sampling the next header's first id.
        return tail[1:]
    return (*turns.after, *tail)
