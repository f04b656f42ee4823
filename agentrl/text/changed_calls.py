"""Did a person change a call of ours before it ran, or did the client only write it in another form?

Clients write arguments anew, fill in what a tool takes by default, leave out what is empty, turn "3" into 3, make paths
absolute, and mask or cut what is long. None of that is another call. What is left is: another tool among those that
were offered, another value, an argument more or less of those that the tool's schema names.

The changed call is the sampled one with the changes alone, so that nothing of a client's form is ever learned. As the
text of a preferred answer it is JSON: a list of all calls of the reply, `[{"name": ..., "arguments": {...}}]`.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Final

from agentrl.text.canonical import argument_value
from agentrl.text.messages import tool_calls
from agentrl.text.redaction import is_blanked
from agentrl.types import JSON, ToolCall, Turn

MIN_CUT_CHARS: Final = 200
"""From this length on a text that lost its end was cut by a limit."""
_LEFT_OUT = re.compile(
    r"(?i)…|\.{3,}|\*{3,}|•{3,}|\b(?:truncated|omitted|elided|snipped|shortened|left out|redacted|masked|hidden)\b"
)
_ABSOLUTE = re.compile(r"(?:/|~/|[A-Za-z]:[\\/]|file:)\S*")
_SEPARATORS = re.compile(r"[\W_]+")
_MISSING: Final = object()


def changed_calls(turn: Turn, messages: Sequence[JSON]) -> tuple[ToolCall, ...] | None:
    """The turn's calls as somebody had them run; None where they were run as sampled, or nobody can tell.

    A call that is not among the messages, or stands beside ours, is no change: some clients run one call of several.

    Args:
        turn: with its calls as the client was told them.
        messages: the assistant messages that stand in the reply's place; redacted as the turn is.
    """
    now = [call for message in messages for call in tool_calls(message)]
    told = turn.reply.tool_calls
    by_id = {_SEPARATORS.sub("", call_id): (name, arguments) for call_id, name, arguments in now}
    if not any(call.id in by_id for call in told):
        if len(now) != len(told):
            return None
        # a client with ids of its own
        by_id = {call.id: (name, arguments) for call, (_, name, arguments) in zip(told, now, strict=True)}
    schemas = schemas_of(turn.tools)
    found = [_changed(call, *by_id[call.id], schemas) if call.id in by_id else None for call in told]
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


def calls_in(text: str, tools: Sequence[JSON]) -> tuple[ToolCall, ...]:
    """The calls of such a text; none where it is another, or names a tool that was not offered."""
    try:
        items = json.loads(text)
    except (ValueError, RecursionError):
        return ()
    schemas, found = schemas_of(tools), []
    for item in items if isinstance(items, list) else ():
        if not isinstance(item, dict) or item.keys() != {"name", "arguments"}:
            return ()
        name, arguments = item["name"], item["arguments"]
        if not isinstance(arguments, dict) or not isinstance(name, str) or name not in schemas:
            return ()
        found.append(ToolCall(id="", name=name, arguments=json.dumps(arguments, ensure_ascii=False)))
    return tuple(found)


def _changed(told: ToolCall, name: str, arguments: str, schemas: Mapping[str, JSON]) -> ToolCall | None:
    now = argument_value(arguments)
    # Under a name that nobody offered the client itself reports a call that it could not run.
    renamed = _form(name) != _form(told.name) and name in schemas
    if renamed and isinstance(now, dict):
        return ToolCall(id=told.id, name=name, arguments=json.dumps(now, ensure_ascii=False))
    old = _value(told.arguments)
    if not isinstance(old, dict) or not isinstance(now, dict) or (old and not now):
        return None
    merged = _merged(old, now, schemas.get(told.name, {}))
    if merged is None:
        return None
    return ToolCall(id=told.id, name=told.name, arguments=json.dumps(merged, ensure_ascii=False))


def _merged(old: JSON, now: JSON, schema: JSON) -> JSON | None:
    """The old arguments with what was really changed; None where that is nothing."""
    properties = schema.get("properties")
    known = {
        _form(key): described.get("default", _MISSING) if isinstance(described, dict) else _MISSING
        for key, described in (properties.items() if isinstance(properties, dict) else ())
    }
    left = {_form(key): (key, value) for key, value in now.items()}
    merged: JSON = {}
    is_changed = False

    def says(key: str, value: Any) -> bool:
        """Whether a member that stands on one side alone says anything."""
        return _form(key) in known and not _is_empty(value) and not _same(value, known[_form(key)])

    for key, value in old.items():
        if _form(key) in left:
            _, new = left.pop(_form(key))
            is_same = _same(value, new)
            merged[key] = value if is_same else new
            is_changed = is_changed or not is_same
        elif says(key, value):
            is_changed = True
        else:
            merged[key] = value
    for key, new in left.values():
        if says(key, new):
            merged[key] = new
            is_changed = True
    return merged if is_changed else None


def _same(old: Any, now: Any) -> bool:
    """Whether a client may have made `now` of `old` by itself."""
    if _is_empty(old) and _is_empty(now):
        return True
    if isinstance(old, dict) and isinstance(now, dict):
        before, after = (
            {_form(key): item for key, item in value.items() if not _is_empty(item)} for value in (old, now)
        )
        return before.keys() == after.keys() and all(_same(before[key], after[key]) for key in before)
    if isinstance(old, list) and isinstance(now, list):
        return len(old) == len(now) and all(map(_same, old, now))
    if isinstance(old, str) and isinstance(now, str):
        return _same_text(_lines(old), _lines(now))
    if isinstance(old, dict | list) or isinstance(now, dict | list):
        return False
    return _scalar(old) == _scalar(now)


def _same_text(old: str, now: str) -> bool:
    # behind a placeholder nobody can tell, and a secret must not come in by this door
    if old == now or is_blanked(old) or (_LEFT_OUT.search(now) and not _LEFT_OUT.search(old)):
        return True
    if len(old) >= MIN_CUT_CHARS and old.startswith(now):
        return True
    is_path = bool(old) and _ABSOLUTE.fullmatch(now) is not None
    return is_path and now.replace("\\", "/").endswith("/" + old.removeprefix("./").replace("\\", "/"))


def _lines(text: str) -> str:
    """Text without the white space at the ends of its lines."""
    return "\n".join(line.rstrip() for line in unicodedata.normalize("NFC", text).strip().splitlines())


def _scalar(value: Any) -> str:
    """3, 3.0 and "3" alike, and true and "True": clients turn values into what a schema says."""
    if isinstance(value, bool):
        return str(value).casefold()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip().casefold()


def _is_empty(value: Any) -> bool:
    return value is None or value is False or value in ("", [], {})


def _form(name: str) -> str:
    """file_path, filePath and file-path are one name."""
    return _SEPARATORS.sub("", name).casefold()


def _value(arguments: str) -> Any:
    """As it was sampled, 1.0 included."""
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return None
