"""Marks that keep control tokens typed by a client from becoming control ids.

Strings of a request are untrusted: user text, tool results, names, schemas, arguments. Before a chat template sees
them, every control token in them gets BREAK inside, and so does every edge that could complete one together with the
template's own text (`<` + name + `>`). The template copies the marked text along with its own, trusted control tokens;
the tokenizer (plain.py) then finds only those, drops the marks and encodes what stands between as plain text.

BREAK and ESCAPE are private-use characters. A client's own are kept: they travel as ESCAPE and a letter.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

BREAK = "\uf3a1"
ESCAPE = "\uf3a2"
_HIDDEN = {BREAK: ESCAPE + "b", ESCAPE: ESCAPE + "e"}
_SHOWN = {hidden: own for own, hidden in _HIDDEN.items()}
_OWN = re.compile(f"[{BREAK}{ESCAPE}]")
# A template may write JSON in ASCII only, which turns the marks into escapes of six characters.
_OWN_ESCAPED = re.compile(r"\\(?=uf3a[12])")
_MARK = re.compile(rf"{ESCAPE}[be]|{BREAK}|\\uf3a2[be]|\\uf3a1")
_SURROGATE = re.compile("[\ud800-\udfff]")
_JSON_STRING = re.compile(r'("(?:[^"\\]|\\.)*")(\s*:)?', re.DOTALL)

# Templates ask for these by name, so they must stay as they are.
_SCHEMA_WORDS = frozenset(
    {
        "type",
        "function",
        "name",
        "description",
        "parameters",
        "properties",
        "required",
        "items",
        "enum",
        "const",
    }
    | {
        "default",
        "format",
        "title",
        "strict",
        "object",
        "string",
        "array",
        "integer",
        "number",
        "boolean",
        "null",
    }
    | {
        "anyOf",
        "oneOf",
        "allOf",
        "not",
        "$ref",
        "$defs",
        "definitions",
        "pattern",
        "additionalProperties",
        "return",
    }
    | {"minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "nullable"}
)


def unmark(text: str) -> str:
    """`text` without marks; a client's own private-use characters come back."""
    if BREAK not in text and ESCAPE not in text and "\\uf3a" not in text:
        return text
    return _MARK.sub(lambda match: _SHOWN.get(match.group().replace("\\uf3a2", ESCAPE), ""), text)


class Shield:
    """Marks the control tokens of one tokenizer in untrusted strings.

    Args:
        controls: the texts of all control tokens, of two characters or more.
    """

    def __init__(self, controls: Iterable[str]) -> None:
        tokens = sorted(set(controls))
        self._tokens = frozenset(tokens)
        self._all = "\0".join(tokens)
        self._longest = max(map(len, tokens), default=0)
        self._heads = frozenset(token[:end] for token in tokens for end in range(1, len(token)))
        self._tails = frozenset(token[start:] for token in tokens for start in range(1, len(token)))
        rests: dict[str, list[str]] = defaultdict(list)
        for token in tokens:
            rests[token[0]].append(re.escape(token[1:]))
        # Only the first character is consumed, so that of two tokens that overlap both are broken.
        pattern = "|".join(f"{re.escape(first)}(?={'|'.join(rest)})" for first, rest in rests.items())
        self._control = re.compile(pattern or "(?!)")
        self._cached = lru_cache(maxsize=4096)(self._mark)

    def text(self, text: str, *, name: bool = False) -> str:
        """`text` with marks. `name`: a key or a name, which a template may put between brackets of its own."""
        return self._cached(text, name) if len(text) < 1024 else self._mark(text, name)

    def tree(self, value: Any) -> Any:
        """A JSON value with every string and key marked."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(str(key), name=True): self.tree(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.tree(item) for item in value]
        return value

    def json_text(self, text: str) -> str:
        """JSON text with its strings marked, so that they are marked in what a template decodes from it, too.

        White space and escapes stay as they were, except in a string that hides a control token behind escapes.
        Text that is no JSON is marked as plain text.
        """
        text = _SURROGATE.sub("\ufffd", text)
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            return self.text(text)
        return self._control.sub(rf"\g<0>{BREAK}", _JSON_STRING.sub(self._json_string, text))

    def _json_string(self, match: re.Match[str]) -> str:
        literal, colon = match.group(1), match.group(2) or ""
        decoded = json.loads(literal)
        marked = self.text(decoded, name=bool(colon))
        if marked == decoded:
            return match.group()
        return (json.dumps(marked, ensure_ascii=False) if "\\" in literal else f'"{marked}"') + colon

    def _mark(self, text: str, name: bool) -> str:
        text = _SURROGATE.sub("\ufffd", text)
        text = _OWN.sub(lambda match: _HIDDEN[match.group()], text)
        text = _OWN_ESCAPED.sub(rf"\\{BREAK}", text)
        marked = self._control.sub(rf"\g<0>{BREAK}", text)
        if self._inside(text, name=name):
            return BREAK + marked + BREAK
        if self._overlaps(text, self._heads, last=True):
            marked += BREAK
        if self._overlaps(text, self._tails, last=False):
            marked = BREAK + marked
        return marked

    def _inside(self, text: str, *, name: bool) -> bool:
        """Whether all of `text` could be the middle of a control token."""
        if not text or len(text) >= self._longest or text in self._tokens or text not in self._all:
            return False
        # Words are no danger in running text: no template puts half a control token on each side of a message.
        return not text.isalnum() or (name and text not in _SCHEMA_WORDS)

    def _overlaps(self, text: str, parts: frozenset[str], *, last: bool) -> bool:
        for size in range(1, min(self._longest, len(text) + 1)):
            part = text[-size:] if last else text[:size]
            if part in parts and not part.isalnum():
                return True
        return False
