"""Files of text evidence: transcripts of agents in JSON (`agentrl.signals.dialects` knows the forms), comments and
lists of rules. Reading only; what becomes of it says `agentrl.signals.transcripts`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from agentrl.errors import UserError
from agentrl.signals.dialects import as_chat, chat_tools, entry, is_item, is_record
from agentrl.types import JSON

SUFFIXES: Final = (".jsonl", ".json", ".md", ".txt")
FORMATS: Final = (
    '{"messages": [...]} with messages as OpenAI\'s chat API or Anthropic\'s takes them, {"input": [...]} with items '
    "of OpenAI's Responses, or the session files of Claude Code and Codex as they are"
)
"""Transcripts that can be read."""
_BULLET = re.compile(r"^\s*(?:[-*+]|\d+[.)])\s+(?:\[[ xX]\]\s+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comment:
    """Somebody's words on work that is done."""

    text: str
    request: str = ""
    """What had been asked for, where the file says it."""
    form: Literal["comment", "rule", "paragraph"] = "comment"
    """A comment of a JSON file, an item of a list, or running text, which may be about anything."""
    where: str = ""
    """Line and file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    messages: tuple[JSON, ...]
    """As OpenAI's chat API has them."""
    tools: tuple[JSON, ...] = ()
    where: str = ""
    """Line and file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What files held, in their order."""

    items: tuple[Transcript | Comment, ...] = ()

    @property
    def transcripts(self) -> tuple[Transcript, ...]:
        return tuple(item for item in self.items if isinstance(item, Transcript))

    @property
    def comments(self) -> tuple[Comment, ...]:
        return tuple(item for item in self.items if isinstance(item, Comment))


def read_evidence(path: Path) -> Evidence:
    """Reads a file, or all files of a folder whose name ends in one of SUFFIXES.

    Raises:
        UserError: a file cannot be read or holds something else; the message names file, line and remedy.
    """
    if not path.exists():
        raise UserError(f"there is no {path}: name a file or a folder")
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES and file.is_file())
    if not files:
        raise UserError(f"{path} holds no file that ends in {', '.join(SUFFIXES)}")
    return Evidence(items=tuple(item for file in files for item in _items(file)))


def _items(file: Path) -> Iterator[Transcript | Comment]:
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is no text in UTF-8 ({error}): save it in UTF-8, or name another") from error
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}; name another") from error
    if file.suffix in (".md", ".txt"):
        yield from _paragraphs(file, text)
        return
    values = list(_values(file, text))
    entries = [entry(value) for _, value in values]
    has_loose = any(is_item(value) for _, value in values)
    threads: dict[str, list[JSON]] = {}
    for (where, value), line in zip(values, entries, strict=True):
        if line is not None:
            threads.setdefault(line.thread, []).extend([] if line.item is None else [line.item])
        elif is_item(value):
            threads.setdefault("", []).append(value)
        elif not (is_record(value) and (has_loose or any(entries))):
            yield from _read(where, value)
    for items in threads.values():
        if items:
            yield Transcript(messages=tuple(as_chat(items, joined=any(entries))), where=str(file))


def _values(file: Path, text: str) -> Iterator[tuple[str, Any]]:
    """(where it stands, value) of each line, or of each item of a JSON file."""
    lines = [(str(file), text)] if file.suffix == ".json" else []
    if not lines:
        rows = enumerate(
            text.split("\n"), 1
        )  # a string of JSON may hold what else ends a line, U+2028 for one
        lines = [(f"line {number} of {file}", line) for number, line in rows if line.strip()]
    for where, line in lines:
        try:
            value = json.loads(line)
        except ValueError as error:
            raise UserError(
                f"{where} is not JSON: {error}; mend it, or give the file another ending: .json holds one value, "
                ".jsonl one a line, .md and .txt hold rules as text"
            ) from error
        if isinstance(value, dict) and isinstance(value.get("lessons"), list):
            value = value["lessons"]
        if isinstance(value, list) and not _is_conversation(value):
            yield from ((f"item {number} of {where}", item) for number, item in enumerate(value, 1))
        else:
            yield where, value


def _read(where: str, value: Any) -> Iterator[Transcript | Comment]:
    if isinstance(value, list) and _is_conversation(value):
        yield Transcript(messages=tuple(as_chat(value)), where=where)
        return
    if isinstance(value, str):
        yield Comment(text=value, where=where)
        return
    if isinstance(value, dict):
        said = value.get("body") or value.get("comment") or value.get("text")
        items = value.get("messages") or value.get("input")
        if isinstance(items, list) and _is_conversation(items):
            system = value.get("system") or value.get("instructions")
            first = [{"role": "system", "content": system}] if isinstance(system, str | list) else []
            tools = chat_tools(value.get("tools"))
            chat = tuple(as_chat([*first, *items]))
            yield Transcript(messages=chat, tools=tuple(tools), where=where)
            return
        if isinstance(said, str):
            yield Comment(text=said, request=str(value.get("request") or ""), where=where)
            return
    raise UserError(
        f"{where} is neither a transcript nor a comment: write {FORMATS}; "
        'or {"body": "what should be done", "request": "what was asked for"}'
    )


def _is_conversation(value: list[Any]) -> bool:
    return bool(value) and all(map(is_item, value))


def _paragraphs(file: Path, text: str) -> Iterator[Comment]:
    """List items and paragraphs of Markdown, without front matter, headings, tables and blocks of code."""
    lines = list(enumerate(text.splitlines(), 1))
    ends = [number for number, line in lines if line.strip() == "---"]
    if len(ends) > 1 and ends[0] == 1:
        lines = lines[ends[1] :]
    paragraph: list[str] = []
    first = 0
    in_code = is_item = False
    for number, line in (*lines, (0, "")):
        fence = line.lstrip().startswith("```")
        in_code = in_code != fence
        begins = bool(_BULLET.match(line))
        beside = line.lstrip().startswith("|") or line.startswith("#")
        if (not line.strip() or beside or begins or fence) and paragraph:
            where = f"line {first} of {file}"
            yield Comment(text=" ".join(paragraph), form="rule" if is_item else "paragraph", where=where)
            paragraph = []
        if line.strip() and not beside and not fence and not in_code:
            is_item = begins or (is_item and bool(paragraph))
            first = first if paragraph else number
            paragraph.append(_BULLET.sub("", line).strip())
