"""What a tool printed, where a client sends it as a user's message.

Agents that write their commands as text have no tool messages: what came of a command comes back under the role of the
user. Nobody said it, so `heard` and `as_heard` show such a message as the tool's and the command before it as a call;
all that makes hints and reactions looks at a conversation through them. The log keeps what the client sent.

A user's message is an observation where it follows a reply, and

- it is the frame of a known client (`_FRAMES`), from its beginning to its end where the frame has an end: what stands
  behind an output that somebody pasted is his; or
- it begins as agents' loops begin an observation (`_BEGINS`), and the reply names an action or holds code; or
- the request had no tools, and the reply holds one command in the form that its client reads: mini-swe-agent's own, or
  the fenced block of a shell at its end where the first messages ask for one and show it. What follows a command that
  is run is what it printed, whatever it says.

All else stays the user's: an error that he pastes, or a correction of a block that he was shown. In a client of the
last kind a person who breaks in is taken for the tool: nothing tells the two apart.

Forms, where they are no recording of ours: mini-swe-agent 1 and 2 (src/minisweagent/config), smolagents 1.26
(memory.py), SWE-agent (config/default.yaml), OpenHands (fn_call_converter.py), LlamaIndex (core/agent/react/types.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from agentrl.text.content import message_text
from agentrl.types import JSON, NextState, Reply, ToolCall, Turn

SHELL: Final = "bash"
"""The name of the tool that a command in a text is a call of."""
_TAGS = (
    "returncode|output|stdout|stderr|observation|tool_response|tool_result|tool_output|command_output"
    "|function_results?|execution_results?"
)
_FRAMES = re.compile(
    rf"""(?x)
    (?P<code> (?:<exception>.*?</exception>\s*)? <returncode>\s*(?P<number>-?\d+)\s*</returncode>\s* (?:<output>)? )
    | <(?P<tag>{_TAGS})> | ```(?P<fence>output|stdout|stderr|observation)[ ]*\n
    | EXECUTION[ ]RESULT[ ]of[ ]\[[^\]\n]*\]:? | Call[ ]id:[^\n]*\nError:
    | Error:\n(?=.*\nNow[ ]let's[ ]retry:[ ]take[ ]care[ ]not[ ]to[ ]repeat[ ]previous[ ]errors!)
    | (?=Your[ ]command[ ]ran[ ]successfully[ ]and[ ]did[ ]not[ ]produce[ ]any[ ]output\.)
    | The[ ]last[ ]command[ ](?=<command>.*\nThe[ ]output[ ]of[ ]the[ ]command[ ]was:\n)
    """,
    re.DOTALL,
)
"""What a known client begins an observation with."""
_BEGINS = re.compile(r"Observation:[ ]*(?:\n|\Z)|OBSERVATION:|(?:Command|COMMAND) (?:output|OUTPUT):")
_ACTS = re.compile(r"```|(?m:^Action:)|<(?:function|code|execute)\b")
_REACTS = re.compile(r"(?m)^Action:")
_REACTED = re.compile(r"Observation:")
"""The inline form of ReAct, which a user may well write: it counts only behind a reply that names its action."""
_OWN_FORMS: Final = {
    "```mswea_bash_command": "\n```",
    "<mswea_bash_command>": "</mswea_bash_command>",
}
"""What a command stands between in mini-swe-agent's own forms, which no chat has."""
_FENCED = re.compile(r"(?s)(?:\A|\n)```(?P<label>bash|sh|shell|)[ \t]*\n(?P<body>.*)\n```\s*\Z")
_ASKS = re.compile(
    r"(?i)\b(?:your|every|each)\s+(?:response|reply|answer|message|turn|step)s?\b"
    r"[^.\n]{0,60}\b(?:one|a single)\b[^.\n]{0,30}\b(?:block|command|action)\b"
)
"""How instructions ask for one command in every reply."""
_CLOSED = re.compile(r"</\w+>\Z")
MAX_INSTRUCTIONS: Final = 100_000
"""Characters of a first message that are read."""


def as_heard(turn: Turn, state: NextState) -> tuple[Turn, NextState]:
    """A turn and what followed it, with observations as a tool's; those themselves where there is none."""
    following = state.messages if state.end is None else ()
    reply = _with_calls({"role": "assistant", "content": turn.reply.text}, turn.reply.tool_calls)
    messages = [*turn.messages, reply, *following]
    shown = heard(messages, turn.tools)
    at = len(turn.messages)
    if shown == messages:
        return turn, state
    calls = turn.reply.tool_calls if shown[at] == reply else made_calls(turn.reply, at)
    return (
        replace(turn, messages=tuple(shown[:at]), reply=replace(turn.reply, tool_calls=calls)),
        replace(state, messages=tuple(shown[at + 1 :])) if following else state,
    )


def made_calls(reply: Reply, at: int = 0) -> tuple[ToolCall, ...]:
    """The calls of a reply to which a tool has answered; of one without calls the command in its text.

    Args:
        at: where the reply stands in its conversation.
    """
    command = None if reply.tool_calls else _command(reply.text)
    if command is None:
        return reply.tool_calls
    arguments = json.dumps({"command": command}, ensure_ascii=False)
    return (ToolCall(id=f"said{at}", name=SHELL, arguments=arguments),)


def heard(messages: Sequence[JSON], tools: Sequence[JSON], *, start: int = 0) -> list[JSON]:
    """A conversation, message by message, with observations as a tool's and the commands before them as calls.

    Args:
        messages: as the client sent them.
        tools: of the request.
        start: the first message that is looked at; those before it stay as they are.
    """
    found = list(messages)
    asks = _Instructions(messages)
    reply: int | None = None
    for at in range(start, len(messages)):
        role = messages[at].get("role")
        if role == "assistant":
            reply = at
        elif role == "user" and reply is not None:
            text = message_text(messages[at])
            said = message_text(messages[reply])
            output = _unframed(text, said)
            if output is None and at == reply + 1 and not tools and _is_run(said, asks, reply):
                output = text
            if output is not None:
                if not found[reply].get("tool_calls"):
                    found[reply] = _with_calls(found[reply], made_calls(Reply(text=said), reply))
                call_id = next((call.get("id") for call in found[reply].get("tool_calls") or ()), None)
                found[at] = {"role": "tool", "tool_call_id": call_id or "", "content": output}
    return found


class _Instructions:
    """The first messages of a conversation, each read once however many replies there are."""

    def __init__(self, messages: Sequence[JSON]) -> None:
        self._messages = messages[:2]
        self._found: dict[tuple[int, str], bool] = {}

    def ask_for(self, label: str, *, before: int) -> bool:
        """Whether one that stands before a reply asks for one block in every reply, and shows one of that label."""
        return any(self._asks(at, label) for at in range(min(before, len(self._messages))))

    def _asks(self, at: int, label: str) -> bool:
        if (at, label) not in self._found:
            message = self._messages[at]
            is_told = message.get("role") in ("system", "developer", "user")
            text = message_text(message)[:MAX_INSTRUCTIONS] if is_told else ""
            shown = re.search(rf"(?m)^[ \t]*```{label}[ \t]*$", text)
            self._found[at, label] = shown is not None and _ASKS.search(text) is not None
        return self._found[at, label]


def _with_calls(message: JSON, calls: Sequence[ToolCall]) -> JSON:
    written = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in calls
    ]
    return message | {"tool_calls": written} if written else message


def _unframed(text: str, reply: str) -> str | None:
    """What stands in a client's frame, behind it the exit code where the frame holds one; None without a frame."""
    text = text.strip()
    frame = _FRAMES.match(text)
    if frame is None:
        begins = (_BEGINS.match(text) if _ACTS.search(reply) else None) or (
            _REACTED.match(text) if _REACTS.search(reply) else None
        )
        return None if begins is None else text[begins.end() :].strip()
    inner = text[frame.end() :].strip()
    if frame["code"]:
        if inner and not _CLOSED.search(inner):
            return None
        return f"{inner.removesuffix('</output>').rstrip()}\n[exit code {frame['number']}]".lstrip("\n")
    end = f"</{frame['tag']}>" if frame["tag"] else "```" if frame["fence"] else ""
    return inner.removesuffix(end).rstrip() if inner.endswith(end) else None


def _is_run(reply: str, asks: _Instructions, at: int) -> bool:
    """Whether a client runs what the reply holds, as far as the reply's form and the first messages tell.

    Args:
        at: where the reply stands.
    """
    if any(opening in reply for opening in _OWN_FORMS):
        return True
    block = _block(reply)
    return block is not None and bool(block["label"]) and asks.ask_for(block["label"], before=at)


def _command(reply: str) -> str | None:
    """The one command in a reply: in mini-swe-agent's form, or in a shell's block at the end; None for none or more."""
    for opening, closing in _OWN_FORMS.items():
        if opening in reply:
            own, is_closed, _ = reply.partition(opening)[2].partition(closing)
            return own.strip() if is_closed and reply.count(opening) == 1 else None
    block = _block(reply)
    return None if block is None else block["body"].strip()


def _block(reply: str) -> re.Match[str] | None:
    """The only fenced block of a reply, where it is a shell's and the end."""
    return _FENCED.search(reply) if reply.count("```") == 2 else None
