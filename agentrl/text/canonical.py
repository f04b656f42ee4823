"""What two versions of one message have in common, whatever a client did to it on the way.

Real clients strip white space, turn text into lists of parts and back, drop reasoning, write arguments anew, replace
call ids and move cache marks. Messages that differ only so are the same message here; anything else tells them apart.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from agentrl.text.messages import split_reasoning, tool_calls
from agentrl.types import JSON

_SKIPPED = frozenset({"system", "developer"})
_SILENT_PARTS = frozenset({"thinking", "reasoning", "redacted_thinking"})
_THOUGHT = re.compile(r"\s*<think>.*?</think>", re.DOTALL)


def canonical(messages: Sequence[JSON]) -> list[tuple[int, str, str]]:
    """The messages but system ones, as (number of messages up to and with this one, role, canonical text).

    Assistant messages in a row are one: some protocols send text and calls of one reply as items of their own.
    """
    found: list[tuple[int, str, str]] = []
    run: list[JSON] = []
    for number, message in enumerate(messages, start=1):
        role = _role(message)
        if role in _SKIPPED:
            continue
        if role == "assistant":
            if run:
                found.pop()
            run.append(message)
            found.append((number, role, reply_text(run)))
        else:
            run = []
            found.append((number, role, _dumps([role, content_text(message.get("content"))])))
    return found


def reply_text(messages: Sequence[JSON]) -> str:
    """Canonical text of the assistant messages that make up one reply."""
    texts, calls = [], []
    for message in messages:
        text = content_text(message.get("content"))
        text = split_reasoning({}, text)[1].strip() if _THOUGHT.match(text) else text
        texts += [text] if text else []
        calls += [[name, argument_value(arguments)] for _, name, arguments in tool_calls(message)]
    return _dumps(["assistant", "\n".join(texts), calls])


def content_text(content: Any) -> str:
    """The text of a content, stripped; parts that are no text are kept as JSON, reasoning and cache marks are not."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content.strip()
    if not isinstance(content, list | tuple):
        return _dumps(content)
    texts = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and part.get("type") not in _SILENT_PARTS:
            text = part.get("text")
            kept = {key: value for key, value in part.items() if key != "cache_control"}
            texts.append(text if isinstance(text, str) else _dumps(kept))
    return "".join(texts).strip()


def argument_value(arguments: str) -> Any:
    """Arguments as JSON, 1.0 and 1 alike, because JavaScript writes both as 1; text that is no JSON as it is."""
    try:
        return _plain_numbers(json.loads(arguments))
    except (ValueError, RecursionError):
        return arguments.strip()


def _plain_numbers(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, list):
        return [_plain_numbers(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain_numbers(item) for key, item in value.items()}
    return value


def _role(message: JSON) -> str:
    role = str(message.get("role"))
    return "tool" if role == "function" else role


def _dumps(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"), default=str)
