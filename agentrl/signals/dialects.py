"""Transcripts as agents write them, in the form of OpenAI's chat API.

    chat         {"role", "content", "tool_calls"}                                     as it stands
    Messages     {"role", "content": [{"type": "tool_use" | "tool_result" | "text" ..}]}    Anthropic's API
    Responses    {"type": "message" | "function_call" | "function_call_output" ..}      OpenAI's newer API
    Claude Code  {"type": "user" | "assistant", "message": one of Messages, "sessionId"}    a line of its session files
    Codex        {"type": "response_item", "payload": one of Responses}                 a line of its rollout files

Of a shell's call the command alone is kept: beside it agents write what they mean by it, which is no argument. Left out
are reasoning, what a client says of itself, and what it wrote into a user's message between tags.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from agentrl.signals.outputs import exit_code
from agentrl.text.content import message_text
from agentrl.types import JSON

_ROLES: Final = frozenset(("system", "developer", "user", "assistant", "tool"))
_CALLS: Final = frozenset(("function_call", "custom_tool_call", "local_shell_call"))
_OUTPUTS: Final = frozenset(f"{name}_output" for name in _CALLS)
_SILENT: Final = frozenset(("reasoning", "web_search_call", "item_reference", "compaction", "ghost_snapshot"))
"""Items of Responses without a word or a call of the agent."""
_COMMANDS: Final = ("command", "cmd")
_SHELL: Final = re.compile(r"^(?:\S*/)?(?:ba|z|da)?sh$")
_FRAME: Final = re.compile(
    r"^(?:.*\n){0,4}?(?:Exit code:|Process exited with code) (?P<code>-?\d+)\n(?:.*\n){0,4}?Output:\n(?P<text>[\s\S]*)$"
)
"""Codex's around what a command printed."""
_CLIENTS: Final = re.compile(r"<([a-z]+(?:[-_][a-z]+)+)>[\s\S]*?</\1>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A line of a session file."""

    thread: str
    item: JSON | None
    """A message or an item; None where the line is about something else."""


def entry(value: Any) -> Entry | None:
    """A message in the envelope of a session file; None for anything else."""
    if not isinstance(value, dict):
        return None
    kind, message, payload = value.get("type"), value.get("message"), value.get("payload")
    if kind == "response_item" and isinstance(payload, dict):
        return Entry(thread="codex", item=_without_tags(payload) if is_item(payload) else None)
    if kind not in ("user", "assistant") or not isinstance(message, dict) or "content" not in message:
        return None
    side = value.get("agentId") or "side" if value.get("isSidechain") else ""
    thread = f"{value.get('sessionId') or value.get('session_id')} {side}"
    item = {"role": kind} | message
    if value.get("isMeta") or value.get("isCompactSummary") or not is_item(item):
        return Entry(thread=thread, item=None)
    return Entry(thread=thread, item=_without_tags(item))


def is_record(value: Any) -> bool:
    """Whether a line of a session file is the client's own and no message: titles, snapshots, what was counted."""
    return isinstance(value, dict) and bool({"type", "record_type", "timestamp"} & value.keys())


def is_item(value: Any) -> bool:
    """Whether something is a message, or one of the items that Responses has beside them."""
    if not isinstance(value, dict):
        return False
    if str(value.get("role")) in _ROLES:
        return _has_calls(value.get("tool_calls") or [])
    return str(value.get("type")) in _CALLS | _OUTPUTS | _SILENT


def as_chat(items: Sequence[JSON], *, joined: bool = False) -> list[JSON]:
    """Messages and items as messages of the chat API.

    Args:
        joined: whether messages of the assistant that follow each other are one turn of it, written in pieces.
    """
    joined = joined or any("role" not in item for item in items)
    found: list[JSON] = []
    for item in items:
        for message in _messages(item):
            if joined and found and found[-1]["role"] == message["role"] == "assistant":
                found[-1] = _both(found[-1], message)
            else:
                found.append(message)
    return found


def chat_tools(tools: Any) -> list[JSON]:
    """Descriptions of tools as the chat API takes them; those without a name of their own are left out."""
    found = []
    for tool in tools if isinstance(tools, list) else ():
        if isinstance(tool, dict) and isinstance(tool.get("function"), dict):
            found.append(tool)
        elif isinstance(tool, dict) and isinstance(tool.get("name"), str):
            parameters = tool.get("input_schema") or tool.get("parameters") or {"type": "object"}
            function = {"name": tool["name"], "description": str(tool.get("description") or "")}
            found.append({"type": "function", "function": function | {"parameters": parameters}})
    return found


def num_calls(messages: Iterable[JSON]) -> int:
    """How many calls chat messages hold."""
    return sum(len(message.get("tool_calls") or ()) for message in messages)


def _has_calls(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(call, dict) and isinstance(call.get("function") or {}, dict) for call in value
    )


def _messages(item: JSON) -> Iterator[JSON]:
    kind = item.get("type")
    name = str(item.get("call_id") or item.get("id") or "")
    if kind in _CALLS:
        values = item.get("arguments", item.get("input", item.get("action")))
        tool = str(item.get("name") or "shell")
        yield {"role": "assistant", "content": "", "tool_calls": [_call(name, tool, values)]}
    elif kind in _OUTPUTS:
        yield {"role": "tool", "tool_call_id": name, "content": _unframed(_text(item.get("output")))}
    elif "role" in item:
        yield from _of_blocks(item)


def _of_blocks(message: JSON) -> Iterator[JSON]:
    content = message.get("content")
    blocks = [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
    by_kind = {
        kind: [block for block in blocks if block.get("type") == kind] for kind in ("tool_use", "tool_result")
    }
    if not any(by_kind.values()):
        yield message
        return
    for block in by_kind["tool_result"]:
        text = _text(block.get("content"))
        if block.get("is_error") and exit_code(text) is None:
            text += "\n[exit code 1]"
        yield {"role": "tool", "tool_call_id": str(block.get("tool_use_id", "")), "content": text}
    calls = [
        _call(str(block.get("id", "")), str(block.get("name", "")), block.get("input"))
        for block in by_kind["tool_use"]
    ]
    text = message_text({"content": [block for block in blocks if block.get("type") == "text"]})
    if calls:
        yield {"role": "assistant", "content": text, "tool_calls": calls}
    elif text:
        yield {"role": message["role"], "content": text}


def _call(id_: str, name: str, values: Any) -> JSON:
    if isinstance(values, str):
        try:
            parsed = json.loads(values)
        except (ValueError, RecursionError):
            parsed = None
        values = parsed if isinstance(parsed, dict) else values
    command = _command(values) if isinstance(values, dict) else None
    values = values if command is None else {"command": command}
    arguments = values if isinstance(values, str) else json.dumps(values, ensure_ascii=False)
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


def _command(values: JSON) -> str | None:
    """What a shell was told to run; None where it was no shell."""
    found = next((values[name] for name in _COMMANDS if values.get(name)), None)
    if isinstance(found, list) and all(isinstance(word, str) for word in found):
        runs_text = len(found) == 3 and _SHELL.match(found[0]) and found[1].startswith("-")
        found = found[2] if runs_text else " ".join(found)
    return found if isinstance(found, str) else None


def _unframed(output: str) -> str:
    """What a command printed, its exit code behind it, out of what Codex put around both."""
    if match := _FRAME.match(output):
        text, code = match["text"], int(match["code"])
    else:
        try:
            fields = json.loads(output) if output.startswith("{") else {}
            text, code = fields["output"], fields["metadata"]["exit_code"]
        except (ValueError, RecursionError, KeyError, TypeError):
            return output
    return f"{text}\n[exit code {code}]"


def _text(content: Any) -> str:
    if isinstance(content, str | list):
        return message_text({"content": content})
    return "" if content is None else json.dumps(content, ensure_ascii=False)


def _both(first: JSON, second: JSON) -> JSON:
    texts = [text for text in map(message_text, (first, second)) if text]
    calls = [*(first.get("tool_calls") or ()), *(second.get("tool_calls") or ())]
    return {"role": "assistant", "content": "\n".join(texts)} | ({"tool_calls": calls} if calls else {})


def _without_tags(item: JSON) -> JSON | None:
    """A user's message without what the client wrote into it; None where nothing is left."""
    content = item.get("content")
    if item.get("role") != "user" or not isinstance(content, str | list):
        return item
    if isinstance(content, str):
        text = _CLIENTS.sub("", content).strip()
        return item | {"content": text} if text else None
    kept = [
        block | {"text": _CLIENTS.sub("", block["text"]).strip()} if _has_text(block) else block
        for block in content
    ]
    kept = [block for block in kept if not _has_text(block) or block["text"]]
    return item | {"content": kept} if kept else None


def _has_text(block: Any) -> bool:
    return isinstance(block, dict) and isinstance(block.get("text"), str)
