"""What an agent does in a terminal, as a reply of its policy."""

from __future__ import annotations

import json

from agentrl.types import Reply, ToolCall


def call(command: str) -> Reply:
    """One call of the bash tool."""
    arguments = json.dumps({"command": command})
    return Reply(text="", tool_calls=(ToolCall(id="call1", name="bash", arguments=arguments),))
