"""The text of a message as it was received, whatever shape its content has."""

from __future__ import annotations

from agentrl.types import JSON


def message_text(message: JSON) -> str:
    """Content that is a text, a list of parts (their texts, a line each), or absent."""
    content = message.get("content")
    if isinstance(content, list):
        texts = (part.get("text") for part in content if isinstance(part, dict))
        return "\n".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""
