"""JSON without the json module, whose import takes longer than starting a shell. Runs inside the sandbox."""

from __future__ import annotations

from _json import encode_basestring_ascii


def to_json(value: object) -> str:
    """Text for None, booleans, integers, strings, and lists and string-keyed dictionaries of them."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return encode_basestring_ascii(value)
    if isinstance(value, list):
        return f"[{','.join(map(to_json, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{encode_basestring_ascii(key)}:{to_json(inner)}' for key, inner in value.items())}}}"
    raise TypeError(f"no JSON for {type(value).__name__}")
