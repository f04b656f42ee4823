"""Did a person change a call of ours before it ran, or did the client only write it in another form?

Clients write arguments anew, fill in what a tool takes by default, leave out what is empty, make paths absolute, and
mask or cut what is long (client_forms.py). None of that is another call. What is left is: another tool among those that
were offered, another value, an argument more or less of those that the tool's schema names.

The changed call is the sampled one with the changes alone, so that nothing of a client's form is ever learned. As the
text of a preferred answer it is JSON: a list of all calls of the reply, `[{"name": ..., "arguments": {...}}]`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from agentrl.text.canonical import argument_value
from agentrl.text.client_forms import Untold, form, merged, readable
from agentrl.text.messages import tool_calls
from agentrl.types import JSON, ToolCall, Turn

_SEPARATORS = re.compile(r"[\W_]+")


def changed_calls(turn: Turn, messages: Sequence[JSON]) -> tuple[ToolCall, ...] | None:
    """The turn's calls as somebody had them run; None where they were run as sampled, or nobody can tell. () where they
    were changed, and nobody can tell to what.

    A call that is not among the messages, or stands beside ours, is no change: some clients run one call of several.

    Args:
        turn: with its calls as the client was told them.
        messages: the assistant messages that stand in the reply's place; redacted as the turn is.
    """
    now = [call for message in messages for call in tool_calls(message)]
    told, schemas = turn.reply.tool_calls, schemas_of(turn.tools)
    by_id = {_SEPARATORS.sub("", call_id): (name, arguments) for call_id, name, arguments in now}
    try:
        if not any(call.id in by_id for call in told):
            if len(now) != len(told):
                return None
            # a client with ids of its own
            by_id = _matched(told, [(name, arguments) for _, name, arguments in now], schemas)
        found = [_changed(call, *by_id[call.id], schemas) if call.id in by_id else None for call in told]
    except Untold:
        return ()
    except RecursionError:
        return None
    if not any(found):
        return None
    return tuple(new or old for new, old in zip(found, told, strict=True))


def usable(turn: Turn) -> bool:
    """Whether a client could run the turn's calls: tools that it offered, with all arguments that they demand."""
    schemas = schemas_of(turn.tools)
    for call in turn.reply.tool_calls:
        given = argument_value(call.arguments)
        if call.name not in schemas or not isinstance(given, dict):
            return False
        required = schemas[call.name].get("required")
        if isinstance(required, list) and not set(map(str, required)) <= set(given):
            return False
    return bool(turn.reply.tool_calls)


def schemas_of(tools: Sequence[JSON]) -> dict[str, JSON]:
    """By tool the JSON schema of its arguments; {} where it has none."""
    found = {}
    for tool in tools:
        function = tool.get("function") or tool
        schema = function.get("parameters")
        found[str(function.get("name"))] = schema if isinstance(schema, dict) else {}
    return found


def same_calls(one: Sequence[ToolCall], other: Sequence[ToolCall]) -> bool:
    return [(call.name, argument_value(call.arguments)) for call in one] == [
        (call.name, argument_value(call.arguments)) for call in other
    ]


def message_of_calls(calls: Sequence[ToolCall], text: str = "") -> JSON:
    """An assistant message with these calls."""
    return {
        "role": "assistant",
        "content": text,
        "tool_calls": [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in calls
        ],
    }


def text_of_calls(calls: Sequence[ToolCall]) -> str:
    """Calls as the text of a preferred answer."""
    listed = [{"name": call.name, "arguments": json.loads(call.arguments)} for call in calls]
    return json.dumps(listed, ensure_ascii=False)


def calls_in(text: str) -> tuple[ToolCall, ...]:
    """The calls of such a text; none where it is another."""
    try:
        items = json.loads(text)
    except (ValueError, RecursionError):
        return ()
    found = []
    for item in items if isinstance(items, list) else ():
        if not isinstance(item, dict) or item.keys() != {"name", "arguments"}:
            return ()
        name, arguments = item["name"], item["arguments"]
        if not isinstance(arguments, dict) or not isinstance(name, str):
            return ()
        found.append(ToolCall(id="", name=name, arguments=json.dumps(arguments, ensure_ascii=False)))
    return tuple(found)


def offered(turn: Turn, calls: Sequence[ToolCall]) -> bool:
    """Whether every call is one that the turn made itself, or of a tool that it was offered."""
    schemas = schemas_of(turn.tools)
    return all(
        call.name in schemas or any(same_calls([call], [made]) for made in turn.reply.tool_calls)
        for call in calls
    )


def _matched(
    told: Sequence[ToolCall], now: Sequence[tuple[str, str]], schemas: Mapping[str, JSON]
) -> dict[str, tuple[str, str]]:
    """By our id what a client without our ids made of a call: the same one wherever it stands, the others in order."""
    left = list(now)
    found: dict[str, tuple[str, str]] = {}

    def is_written_anew(call: ToolCall, name: str, arguments: str) -> bool:
        return name == call.name and argument_value(arguments) == argument_value(call.arguments)

    def is_same(call: ToolCall, name: str, arguments: str) -> bool:
        try:
            return form(name) == form(call.name) and _changed(call, name, arguments, schemas) is None
        except Untold:
            return False

    for fits in (is_written_anew, is_same):
        for call in told:
            same = next((one for one in left if call.id not in found and fits(call, *one)), None)
            if same is not None:
                found[call.id] = same
                left.remove(same)
    others = [call.id for call in told if call.id not in found]
    return found | dict(zip(others, left, strict=True))


def _changed(told: ToolCall, name: str, arguments: str, schemas: Mapping[str, JSON]) -> ToolCall | None:
    """The call with what was changed in it, None where that is nothing. Raises Untold."""
    now, old = argument_value(arguments), _value(told.arguments)
    # Under a name that nobody offered the client itself reports a call that it could not run.
    renamed = form(name) != form(told.name) and name in schemas
    if renamed and isinstance(now, dict):
        now = readable(now, old)
        return ToolCall(id=told.id, name=name, arguments=json.dumps(now, ensure_ascii=False))
    if not isinstance(old, dict) or not isinstance(now, dict) or (old and not now):
        return None
    new = merged(old, now, schemas.get(told.name, {}), is_whole=True)
    if new is old:
        return None
    return ToolCall(id=told.id, name=told.name, arguments=json.dumps(new, ensure_ascii=False))


def _value(arguments: str) -> Any:
    """As it was sampled, 1.0 included."""
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return None
