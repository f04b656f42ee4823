"""A call's arguments as they were sampled and as a client has them: what of the difference is the client's own form?

    3, 3.0, "3"          alike, and true and "True", an empty value and none
    "src/a"              "src//a", "./src/a/", "/home/u/src/a"; what "", "." and ".." stand for nobody can tell
    a long text          cut short, or with a mark in the place of a piece ("[4,000 characters omitted]", "***")

A value that was changed, but to what nobody can read (a secret, a cut text), is `Untold`.
"""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections.abc import Iterator
from itertools import dropwhile
from typing import Any, Final

from agentrl.text.redaction import is_blanked

MIN_CUT_CHARS: Final = 200
"""From this length on a text that lost its end was cut by a limit."""
MIN_ELIDED_CHARS: Final = 20
"""Nobody saves room by dots in the place of less."""
MAX_PATH_CHARS: Final = 4096
CUT_WORDS: Final = "truncated|omitted|elided|snipped|shortened|left[ ]out"
"""As a regular expression, how a client says that it left something out."""
_CUT = rf"\b(?:{CUT_WORDS}|redacted)\b"
_ELLIPSIS = r"(?:…|(?<!\.)\.{3,}+)"
_NOTE = re.compile(
    rf"""
    {_ELLIPSIS}\s{{0,3}}+ (?:[\[(<][^\[\]()<>\n]{{0,80}}?)? {_CUT} (?:[^\[\]()<>\n]{{0,80}}[\])>])?
    | \[(?=[^\[\]\n]*{_CUT})[^\[\]\n]*\]
    | <(?=[^<>\n]*{_CUT})[^<>\n]*>
    | \(\d(?=[^()\n]*{_CUT})[^()\n]*\)
    | (?<!\w)\[(?:masked|hidden)\]
    | \b\d[\d,.]{{0,12}}\s(?:more\s)?(?:chars?|characters|bytes|lines|tokens|words)\s(?:were\s)?{_CUT}
    | \A\W{{0,3}}{_CUT}\W{{0,3}}\Z
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""A client's own words for what it left out; in code the words alone mean something else."""
_DOTS = re.compile(_ELLIPSIS)
_MARK = re.compile(rf"{_NOTE.pattern} | {_DOTS.pattern} | \*{{3,}} | •{{3,}}", _NOTE.flags)
_ABSOLUTE = re.compile(r"(?:/|[A-Za-z]:[\\/]|file:/)[^\n]*|~/[^\n]*")
_SEPARATORS = re.compile(r"[\W_]+")
_MISSING: Final = object()


class Untold(Exception):
    """A value was changed, and nobody can tell to what."""


def merged(old: Any, now: Any, schema: Any, *, is_whole: bool = False) -> Any:
    """The old value with what was really changed; the old value itself where that is nothing.

    Args:
        old: as it was sampled.
        now: as the client has it.
        schema: the value's JSON schema, {} where it has none.
        is_whole: the value is all arguments, to which clients add members of which the schema knows nothing.

    Raises:
        Untold: something was changed, and nobody can tell to what.
    """
    if is_empty(old) and is_empty(now):
        return old
    if isinstance(old, dict) and isinstance(now, dict):
        return _merged_members(old, now, schema, is_whole=is_whole)
    if isinstance(old, list) and isinstance(now, list):
        return _merged_items(old, now, schema.get("items") if isinstance(schema, dict) else None)
    if isinstance(old, str) and isinstance(now, str):
        return old if _same_text(_lines(old), _lines(now)) else now
    if isinstance(old, dict | list) or isinstance(now, dict | list):
        return readable(now, old)
    return old if _scalar(old) == _scalar(now) else readable(now, old)


def readable(now: Any, old: Any) -> Any:
    """A value that takes another's place.

    Raises:
        Untold: something in it was cut or blanked, or is the absolute form of a path in the other.
    """
    relative = {_relative(leaf) for leaf in _texts(old) if len(leaf) <= MAX_PATH_CHARS and leaf[:1] != "/"}
    for leaf in _texts(now):
        if is_blanked(leaf) or _NOTE.search(leaf):
            raise Untold
        if len(leaf) <= MAX_PATH_CHARS and _ABSOLUTE.fullmatch(leaf):
            parts = _absolute(leaf).split("/")
            if any("/".join(parts[at:]) in relative for at in range(1, len(parts) + 1)):
                raise Untold
    return now


def is_empty(value: Any) -> bool:
    return value is None or value is False or value in ("", [], {})


def form(name: str) -> str:
    """file_path, filePath and file-path are one name."""
    return _SEPARATORS.sub("", name).casefold()


def _merged_members(old: dict[str, Any], now: dict[str, Any], schema: Any, *, is_whole: bool) -> Any:
    properties = schema.get("properties") if isinstance(schema, dict) else None
    known = (
        {form(key): described for key, described in properties.items()}
        if isinstance(properties, dict)
        else {}
    )
    left = {form(key): (key, value) for key, value in now.items()}
    result: dict[str, Any] = {}
    is_changed = False

    def says(key: str, value: Any) -> bool:
        """Whether a member that stands on one side alone says anything."""
        described = known.get(form(key))
        default = described.get("default", _MISSING) if isinstance(described, dict) else _MISSING
        if is_whole and form(key) not in known:
            return False
        return not is_empty(value) and (default is _MISSING or not _same(value, default))

    for key, value in old.items():
        if form(key) in left:
            _, new = left.pop(form(key))
            result[key] = merged(value, new, known.get(form(key), {}))
            is_changed = is_changed or result[key] is not value
        elif says(key, value):
            is_changed = True
        else:
            result[key] = value
    for key, new in left.values():
        # an absolute path in the place of none is where the client stands
        if says(key, new) and not _same("", new):
            result[key] = readable(new, None)
            is_changed = True
    return result if is_changed else old


def _merged_items(old: list[Any], now: list[Any], schema: Any) -> list[Any]:
    if len(old) == len(now):
        items = [merged(before, after, schema) for before, after in zip(old, now, strict=True)]
        return items if any(item is not before for item, before in zip(items, old, strict=True)) else old
    shorter = min(len(old), len(now))
    first = next((at for at in range(shorter) if not _same(old[at], now[at])), shorter)
    last = next(
        (at for at in range(shorter - first) if not _same(old[-1 - at], now[-1 - at])), shorter - first
    )
    middle = readable(now[first : len(now) - last], old[first : len(old) - last])
    return [*old[:first], *middle, *old[len(old) - last :]]


def _same(old: Any, now: Any) -> bool:
    """Whether a client may have made `now` of `old` by itself."""
    try:
        return merged(old, now, {}) is old
    except Untold:
        return False


def _same_text(old: str, now: str) -> bool:
    if old == now or _same_path(old, now) or _left_out(old, now):
        return True
    if len(old) >= MIN_CUT_CHARS and old.startswith(now):
        return True
    if is_blanked(old) and _left_out(now, old):
        return True  # the secret that redaction found in one of them only
    if is_blanked(old) or is_blanked(now) or (_NOTE.search(now) and not _NOTE.search(old)):
        raise Untold
    return False


def _left_out(old: str, now: str) -> bool:
    """Whether `now` is `old` with marks in the place of some of its pieces."""
    marks = list(_MARK.finditer(now))
    if not marks:
        return False
    ends = [*(mark.start() for mark in marks), len(now)]
    first, *pieces = [
        now[start:end].strip() for start, end in zip([0, *(mark.end() for mark in marks)], ends, strict=True)
    ]
    if not old.startswith(first) or not old.endswith(pieces[-1]):
        return False
    at = len(first)
    for number, (mark, piece) in enumerate(zip(marks, pieces, strict=True)):
        is_last = number == len(pieces) - 1
        found = len(old) - len(piece) if is_last else old.find(piece, at + 1)
        if found <= at or not _stands_for(
            mark.group(), old[at:found], now[mark.start() - 1 : mark.start()], piece
        ):
            return False
        at = found + len(piece)
    return True


def _stands_for(mark: str, gap: str, before: str, behind: str) -> bool:
    """Whether a mark says that a piece was left out; dots behind a slash say "and all below"."""
    if _DOTS.fullmatch(mark) is None or gap.strip() == mark:
        return True
    is_all_below = before == "/" and not behind.startswith("/")
    return len(gap) >= (MIN_CUT_CHARS if is_all_below else MIN_ELIDED_CHARS)


def _same_path(old: str, now: str) -> bool:
    if "\n" in old or "\n" in now or len(old) + len(now) > 2 * MAX_PATH_CHARS:
        return False
    if not _ABSOLUTE.fullmatch(now):
        return "://" not in old + now and _tidy(old) == _tidy(now)
    if _ABSOLUTE.fullmatch(old) and not old.startswith("~"):
        return _absolute(old) == _absolute(now)
    rest = _relative(old)
    return not rest or f"/{_absolute(now)}".endswith(f"/{rest}")


def _absolute(path: str) -> str:
    return _tidy(path.removeprefix("file:").replace("\\", "/"))


def _relative(path: str) -> str:
    """What stands at the end of a path's absolute form; "" where that can be anything."""
    parts = _tidy(path.replace("\\", "/")).split("/")
    return "/".join(dropwhile(lambda part: part in ("", ".", "..") or part.startswith("~"), parts))


def _tidy(path: str) -> str:
    """Of a text with white space, which may be a command, the ends alone."""
    if path and not any(map(str.isspace, path)):
        return posixpath.normpath(path)
    return path.removeprefix("./").rstrip("/") or path


def _lines(text: str) -> str:
    """Text without the white space at the ends of its lines."""
    return "\n".join(line.rstrip() for line in unicodedata.normalize("NFC", text).strip().splitlines())


def _scalar(value: Any) -> str:
    """3, 3.0 and "3" alike, and true and "True": clients turn values into what a schema says."""
    if isinstance(value, bool):
        return str(value).casefold()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip().casefold()


def _texts(value: Any) -> Iterator[str]:
    """The texts in a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
