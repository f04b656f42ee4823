"""The part of an AGENTS.md that is agentrl's: between two marks, which nobody sees when the file is shown."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from agentrl.errors import UserError

BEGIN = "<!-- agentrl lessons: begin (`agentrl lessons export` writes what stands between these marks) -->"
END = "<!-- agentrl lessons: end -->"


def write_part(path: Path, text: str) -> None:
    """Puts a text between the marks of a file, or behind what it holds where it has none; makes the file where there is
    none. Everything outside the marks stays byte for byte.

    Raises:
        UserError: one mark stands without the other, or more than once; the file is as it was.
        OSError: it cannot be read or written.
    """
    target = path.resolve()  # a link to another agent's file stays a link
    old = target.read_bytes() if target.exists() else b""
    new = with_part(old, text, name=str(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(new)
        Path(part).chmod(target.stat().st_mode & 0o7777 if target.exists() else 0o644)
        Path(part).replace(target)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def with_part(old: bytes, text: str, *, name: str) -> bytes:
    """`old` with a text between its marks, in the line ends of the file.

    Args:
        name: of the file, for messages.
    """
    newline = b"\r\n" if b"\r\n" in old else b"\n"
    # A lesson that holds a mark must not end the part.
    lines = [BEGIN, *text.replace("<!--", "<! --").strip("\n").split("\n"), END]
    part = newline.join(line.encode(errors="replace") for line in lines)  # half a character is no text
    begin, end = BEGIN.encode(), END.encode()
    if (old.count(begin), old.count(end)) == (0, 0):
        if not old:
            return part + newline
        gap = newline if old.endswith(b"\n") else 2 * newline
        return old + gap + part + newline
    before, _, rest = old.partition(begin)
    _, found, after = rest.partition(end)
    if (old.count(begin), old.count(end)) != (1, 1) or not found:
        raise UserError(
            f"{name} does not hold the marks {BEGIN!r} and {END!r} once each, in this order: put them right, or remove "
            "both to have the lessons written behind the rest"
        )
    return before + part + after
