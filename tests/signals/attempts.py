"""Calls, what they were answered, and turns that came after such attempts."""

import json
from dataclasses import replace

from injection_cases import record

from agentrl.types import NextState, Turn


def ran(command: str, **changes: object) -> Turn:
    turn, _ = record(command, "x")
    return replace(turn, **changes)


def answered(output: str) -> NextState:
    return NextState(turn_id="t1", messages=({"role": "tool", "tool_call_id": "c1", "content": output},))


def after(*calls: tuple[str, str], **changes: object) -> Turn:
    """A turn that ran `zorp a.txt` after these calls, each a command and what it was answered."""
    messages: list[dict[str, object]] = [{"role": "user", "content": "Show a.txt."}]
    for command, output in calls:
        function = {"name": "bash", "arguments": json.dumps({"command": command})}
        made = {"role": "assistant", "content": "", "tool_calls": [{"id": "c", "function": function}]}
        messages += [made, {"role": "tool", "tool_call_id": "c", "content": output}]
    return ran("zorp a.txt", messages=tuple(messages), **changes)


NO, REFUSED, OK = "no\n[exit code 1]", "use zorp\n[exit code 1]", "ok\n[exit code 0]"
