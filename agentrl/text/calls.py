"""Tool calls as models write them, read strictly: a call is whole and well formed, or it is text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from json import JSONDecodeError
from typing import Any, Protocol

from agentrl.text.plain import PlainTokenizer
from agentrl.types import JSON, ToolCall


def _refuse(constant: str) -> Any:
    raise JSONDecodeError(f"{constant} is no JSON", constant, 0)


_STRICT = json.JSONDecoder(parse_constant=_refuse)


class CallReader(Protocol):
    """Reads one block of calls, its opening and closing id included."""

    def __call__(self, ids: Sequence[int], tools: Sequence[JSON]) -> tuple[ToolCall, ...] | None:
        """The calls without their ids; None where the block is malformed."""
        ...


class JsonCalls:
    """Blocks of the form `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, one call each."""

    def __init__(self, tokenizer: PlainTokenizer) -> None:
        self._tokenizer = tokenizer

    def __call__(self, ids: Sequence[int], tools: Sequence[JSON]) -> tuple[ToolCall, ...] | None:
        call = json_call(self._tokenizer.decode(ids[1:-1]))
        return None if call is None else (call,)


class PackageCalls:
    """Blocks in a notation of the family's own, read by its parser in the `renderers` package.

    Such notations hold no JSON; the arguments are written as JSON here, in the order sampled.
    """

    def __init__(self, family: Any, prefix: Sequence[int]) -> None:
        """`prefix`: ids that tell the parser that reasoning is over."""
        self._family = family
        self._prefix = list(prefix)

    def __call__(self, ids: Sequence[int], tools: Sequence[JSON]) -> tuple[ToolCall, ...] | None:
        try:
            parsed = self._family.parse_response([*self._prefix, *ids], tools=list(tools) or None)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
            # Sampled ids can be anything and the parser is not ours: what it trips over is malformed.
            return None
        return as_calls(parsed.tool_calls)


def as_calls(attempts: Sequence[Any]) -> tuple[ToolCall, ...] | None:
    """The package's attempts as calls; None where there is none or one of them failed."""
    calls = []
    for attempt in attempts:
        name, value = attempt.name, attempt.arguments
        text = value if isinstance(value, str) else _dumps(value or {})
        if attempt.status != "ok" or not isinstance(name, str) or text is None:
            return None
        call = json_call(json.dumps({"name": name, "arguments": text}))
        if call is None:
            return None
        calls.append(call)
    return tuple(calls) or None


def json_call(text: str) -> ToolCall | None:
    """The call in a JSON object with "name" and "arguments"; None where it is not one.

    Arguments are the text as sampled. Arguments left out are `{}`; arguments given as a string that holds a JSON
    object, a common slip, are that string.
    """
    found = members(text)
    try:
        name = json.loads(found.get("name", "null"))
        arguments = found.get("arguments", "{}")
        value = strict_loads(arguments)
        if isinstance(value, str):
            arguments = value
            value = strict_loads(value)
    except (ValueError, RecursionError):
        return None
    if (
        not isinstance(name, str)
        or not name
        or not isinstance(value, dict)
        or not _writable(name + arguments)
    ):
        return None
    return ToolCall(id="", name=name, arguments=arguments)


def members(text: str) -> dict[str, str]:
    """The members of a JSON object, each value as the text that stands there; {} where the text is no object."""
    text = text.strip()
    found: dict[str, str] = {}
    try:
        if not isinstance(strict_loads(text), dict):
            return {}
        at = 1
        while (at := _skip(text, at)) < len(text) - 1:
            key, at = _STRICT.raw_decode(text, _skip(text, at + (text[at] == ",")))
            start = _skip(text, _skip(text, at) + 1)
            _, at = _STRICT.raw_decode(text, start)
            found[key] = text[start:at]
    except (ValueError, RecursionError):
        return {}
    return found


def strict_loads(text: str) -> Any:
    """JSON as its standard has it: no NaN, no Infinity.

    Raises ValueError, also for whole numbers too long to convert, and RecursionError for very deep nesting.
    """
    return _STRICT.decode(text)


def _skip(text: str, at: int) -> int:
    while text[at] in " \t\n\r":
        at += 1
    return at


def _dumps(value: Any) -> str | None:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError, RecursionError):
        return None


def _writable(text: str) -> bool:
    """Half a surrogate pair cannot be sent to the client or stored."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
