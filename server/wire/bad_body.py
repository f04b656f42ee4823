"""A body that did not validate, as one refusal in the client's words: `messages[0].content must be a string or ...`."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, from_json

from server.wire.errors import Refused

Path = tuple[str | int, ...]

_MEMBERS = {
    "list[Part]": "a list of parts",
    "list[str]": "a list of strings",
    "NamedTool": "an object that names a function",
}
"""What the members of unions, which pydantic puts into the place of an error, are for the client."""
_WANTED = {
    "string_type": "a string",
    "string_too_long": "at most {max_length} characters long",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "literal_error": "{expected}",
    "greater_than_equal": "at least {ge:g}",
    "greater_than": "above {gt:g}",
    "less_than_equal": "at most {le:g}",
}
"""By an error's type."""
_EMPTY = ("too_short", "string_too_short")
_MAX_SHOWN = 40


def refused_body(error: ValidationError, data: bytes, model: type[BaseModel]) -> Refused:
    """The first thing that is wrong with a body, and how many more there are."""
    items = error.errors(include_url=False)
    if items[0]["type"] == "json_invalid":
        return Refused(f"The body is not valid JSON: {items[0]['ctx']['error']}.", code="invalid_value")
    body = from_json(data)
    found: dict[Path, list[ErrorDetails]] = {}
    for item in items:
        found.setdefault(_place(item, body), []).append(item)
    # Of a union's members the one that was meant fails deepest inside; the others are beside the point.
    outer = {place[:length] for place in found for length in range(len(place))}
    ends = [place for place in found if place not in outer]
    said = _said(ends[0], found[ends[0]], model)
    more = f" (and {len(ends) - 1} more)" if len(ends) > 1 else ""
    return Refused(f"{said}{more}.", param=_named(ends[0]) or None, code="invalid_value")


def _place(item: ErrorDetails, body: Any) -> Path:
    """Where in the body: an error's place without the members of unions."""
    place: list[str | int] = []
    for part in item["loc"]:
        inside = isinstance(part, int) if isinstance(body, list) else isinstance(body, dict) and part in body
        if inside:
            body = body[part]
        if inside or (item["type"] == "missing" and part == item["loc"][-1]):
            place.append(part)
    return tuple(place)


def _named(place: Path) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")


def _said(place: Path, items: list[ErrorDetails], model: type[BaseModel]) -> str:
    name, first = _named(place) or "The body", items[0]
    if first["type"] == "missing":
        return f"{name} is missing"
    if first["type"] == "extra_forbidden":
        return f"There is no field {name!r}. Known: {', '.join(model.model_fields)}"
    if first["type"] in _EMPTY:
        return f"{name} must not be empty"
    wanted = dict.fromkeys(_wanted(item) for item in items)
    if None in wanted:
        return f"{name}: {first['msg']}"
    return f"{name} must be {' or '.join(map(str, wanted))} (got {_shown(first['input'])})"


def _wanted(item: ErrorDetails) -> str | None:
    """What a value had to be; None where that is not to be had in short."""
    member = _MEMBERS.get(str(item["loc"][-1])) if item["loc"] else None
    wanted = member or _WANTED.get(item["type"])
    return None if wanted is None else wanted.format(**item.get("ctx", {}))


def _shown(value: Any) -> str:
    """What was sent, as far as it is short."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, str) and len(value) > _MAX_SHOWN:
        return f"{len(value)} characters"
    return json.dumps(value, ensure_ascii=False)
