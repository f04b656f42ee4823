"""Client messages in the one shape that chat templates get: roles, text, reasoning and calls, nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from agentrl.errors import RequestError
from agentrl.text.shield import Shield
from agentrl.types import JSON

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
_TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
_REASONING_PARTS = frozenset({"thinking", "reasoning", "redacted_thinking"})
_REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")


def normalise(messages: Sequence[JSON]) -> list[JSON]:
    """Messages with text contents, `reasoning_content` where there is any, and calls with JSON text arguments.

    Raises:
        RequestError: an unknown role, a part that is no text, or no message at all.
    """
    if not messages:
        raise RequestError("messages is empty; send at least one message", param="messages")
    return [_normal(message, index) for index, message in enumerate(messages)]


def _normal(message: JSON, index: int) -> JSON:
    role = _ROLES.get(str(message.get("role")))
    if role is None:
        raise RequestError(
            f"messages[{index}].role is {message.get('role')!r}; use system, developer, user, assistant or tool",
            param=f"messages[{index}].role",
        )
    normal: JSON = {
        "role": role,
        "content": text_of(message.get("content"), where=f"messages[{index}].content"),
    }
    if role == "tool":
        normal |= {key: str(message[key]) for key in ("tool_call_id", "name") if message.get(key)}
    if role != "assistant":
        return normal
    reasoning, content = split_reasoning(message, normal["content"])
    normal["content"] = content
    if reasoning:
        normal["reasoning_content"] = reasoning
    calls = tool_calls(message)
    if calls:
        normal["tool_calls"] = [
            {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
            for call_id, name, arguments in calls
        ]
    return normal


def text_of(content: Any, *, where: str = "content") -> str:
    """The text of a content: a string, a list of text parts, or nothing. Reasoning parts are left out.

    Raises RequestError, naming `where`, on images and the like.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list | tuple):
        raise RequestError(f"{where} must be a string or a list of parts", param=where)
    texts = []
    for number, part in enumerate(content):
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        text = part.get("text") if isinstance(part, dict) else part
        if kind == "refusal":
            text = part.get("refusal")
        if kind in _REASONING_PARTS:
            continue
        if kind not in _TEXT_PARTS and kind != "refusal":
            raise RequestError(
                f"{where}[{number}] is of type {kind!r}; this model takes text only", param=where
            )
        if not isinstance(text, str):
            raise RequestError(f"{where}[{number}] is of type {kind!r} and holds no text", param=where)
        texts.append(text)
    return "".join(texts)


def split_reasoning(message: JSON, content: str) -> tuple[str, str]:
    """Reasoning and visible text of an assistant message, wherever the client put the reasoning.

    Clients use a field, a part, or a `<think>` block at the beginning of the text.
    """
    found = next((message[key] for key in _REASONING_FIELDS if isinstance(message.get(key), str)), "")
    parts = message.get("content")
    if not found and isinstance(parts, list):
        blocks = [part for part in parts if isinstance(part, dict) and part.get("type") in _REASONING_PARTS]
        found = "".join(str(part.get("thinking") or part.get("text") or "") for part in blocks)
    opened = content.lstrip()
    if opened.startswith("<think>") and "</think>" in opened:
        inside, _, rest = opened.removeprefix("<think>").partition("</think>")
        return (found or inside).strip(), rest.lstrip("\n")
    return found.strip(), content


def tool_calls(message: JSON) -> list[tuple[str, str, str]]:
    """(id, name, arguments as JSON text) of an assistant message's calls, the old `function_call` included."""
    calls = list(message.get("tool_calls") or ())
    if not calls and isinstance(message.get("function_call"), dict):
        calls = [{"function": message["function_call"]}]
    found = []
    for call in calls:
        function = call.get("function") or call
        arguments = function.get("arguments")
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments if arguments is not None else {}, ensure_ascii=False)
        found.append((str(call.get("id") or ""), str(function.get("name") or ""), arguments or "{}"))
    return found


def shielded(messages: Sequence[JSON], shield: Shield) -> list[JSON]:
    """Normal messages with every string that a client wrote marked; the roles are ours."""
    return [_shielded(message, shield) for message in messages]


def _shielded(message: JSON, shield: Shield) -> JSON:
    marked = dict(message)
    for key in ("content", "reasoning_content"):
        if key in message:
            marked[key] = shield.text(message[key])
    for key in ("name", "tool_call_id"):
        if key in message:
            marked[key] = shield.text(message[key], name=True)
    if "tool_calls" in message:
        marked["tool_calls"] = [
            {
                "id": shield.text(call["id"], name=True),
                "type": "function",
                "function": {
                    "name": shield.text(call["function"]["name"], name=True),
                    "arguments": shield.json_text(call["function"]["arguments"]),
                },
            }
            for call in message["tool_calls"]
        ]
    return marked
