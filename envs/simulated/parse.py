"""Lines of shell for the simulated shell: words, quotes, variables, patterns, pipes, redirections, `&&`, `||` and `;`.

Anything else that bash knows (substitution, loops, here-documents, background jobs) is refused by name rather than
misread.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

_OPERATOR = re.compile(r"&&|\|\||>>|2>&1|&>|2>|[;\n|<>]")
_VARIABLE = re.compile(r"\$(?:\{(\w+|\?)\}|(\w+|\?))")
_DOUBLE_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_REFUSED = re.compile(r"\$\(|`|<<|\(|&(?![&>])")
KEYWORDS = frozenset(("if", "for", "while", "until", "case", "function", "select", "{", "[[", "!", "time"))


class ShellSyntaxError(Exception):
    """What bash would say of the line, or what is not simulated."""


@dataclass(frozen=True, slots=True)
class Word:
    """Pieces of a word: (text, its kind)."""

    pieces: tuple[tuple[str, str], ...]

    @property
    def plain(self) -> str | None:
        """The text of a word without quotes and variables."""
        return self.pieces[0][0] if len(self.pieces) == 1 and self.pieces[0][1] == OPEN else None


OPEN, QUOTED, DOUBLE, VARIABLE = "open", "quoted", "double quoted", "variable"
Token = Word | str


@dataclass(slots=True)
class Stage:
    """One command of a pipeline."""

    words: list[Word] = field(default_factory=list)
    stdin: Word | None = None
    stdout: Word | None = None
    append: bool = False
    stderr: Word | None = None
    join_stderr: bool = False
    """Errors go where the output goes."""


@dataclass(slots=True)
class Pipeline:
    stages: list[Stage]
    follows: str
    """What stands before it: ";", "&&" or "||"."""


def tokens(line: str) -> list[Token]:
    """Operators as plain strings, words in pieces; nothing is filled in yet."""
    found: list[Token] = []
    pieces: list[tuple[str, str]] = []
    at = 0

    def close() -> None:
        if pieces:
            found.append(Word(tuple(pieces)))
            pieces.clear()

    while at < len(line):
        char = line[at]
        if char == "'":
            end = line.find("'", at + 1)
            if end < 0:
                raise ShellSyntaxError("unexpected EOF while looking for matching `''")
            pieces.append((line[at + 1 : end], QUOTED))
            at = end + 1
        elif char == '"':
            match = _DOUBLE_QUOTED.match(line, at)
            if match is None:
                raise ShellSyntaxError("unexpected EOF while looking for matching `\"'")
            if "`" in match[1] or "$(" in match[1]:
                raise ShellSyntaxError("command substitution is not simulated here")
            pieces.append((match[1], DOUBLE))
            at = match.end()
        elif char == "\\" and at + 1 < len(line):
            pieces.append((line[at + 1].replace("\n", ""), QUOTED))
            at += 2
        elif char in " \t":
            close()
            at += 1
        elif char == "#" and not pieces:
            at = line.find("\n", at) if "\n" in line[at:] else len(line)
        elif match := _REFUSED.match(line, at):
            raise ShellSyntaxError(f"`{match[0]}' is not simulated here")
        elif (match := _OPERATOR.match(line, at)) and not (char == "2" and pieces):
            close()
            found.append(match[0])
            at = match.end()
        elif match := _VARIABLE.match(line, at):
            pieces.append((match[0], VARIABLE))
            at = match.end()
        else:
            if pieces and pieces[-1][1] == OPEN:
                pieces[-1] = (pieces[-1][0] + char, OPEN)
            else:
                pieces.append((char, OPEN))
            at += 1
    close()
    return found


def parse(line: str) -> list[Pipeline]:
    """The pipelines of one or more lines. ShellSyntaxError: bash would refuse it, or it is not simulated."""
    pipelines: list[Pipeline] = []
    current = Pipeline(stages=[Stage()], follows=";")
    items = tokens(line)
    position = 0

    def finish() -> None:
        filled = [bool(stage.words) or stage.stdout is not None for stage in current.stages]
        if any(filled):
            if not all(filled):
                raise ShellSyntaxError("syntax error: unexpected end of file")
            pipelines.append(current)

    while position < len(items):
        item = items[position]
        stage = current.stages[-1]
        position += 1
        if isinstance(item, Word):
            if not stage.words and item.plain in KEYWORDS:
                raise ShellSyntaxError(f"`{item.plain}' is not simulated here")
            stage.words.append(item)
        elif item in (";", "\n", "&&", "||"):
            if item in ("&&", "||") and not stage.words:
                raise ShellSyntaxError(f"syntax error near unexpected token `{item}'")
            finish()
            current = Pipeline(stages=[Stage()], follows=";" if item == "\n" else item)
        elif item == "|":
            current.stages.append(Stage())
        elif item == "2>&1":
            stage.join_stderr = True
        else:
            target = items[position] if position < len(items) else "newline"
            if not isinstance(target, Word):
                raise ShellSyntaxError(f"syntax error near unexpected token `{target}'")
            position += 1
            if item == "<":
                stage.stdin = target
            elif item == "2>":
                stage.stderr = target
            else:
                stage.stdout, stage.append = target, item == ">>"
                stage.join_stderr |= item == "&>"
    finish()
    return pipelines


def text_of(word: Word, variables: Mapping[str, str]) -> str:
    """The word with its variables filled in, as one text."""
    return "".join(_fill(text, kind, variables) for text, kind in word.pieces)


def expand(word: Word, variables: Mapping[str, str], names: Callable[[str], list[str]]) -> list[str]:
    """What a word stands for: variables filled in (unquoted ones split at blanks), then the names that a pattern fits.

    Args:
        word: from `parse`.
        variables: values for `$NAME` and `$?`.
        names: the names in a directory ("" is the working directory).
    """
    if all(kind == VARIABLE for _, kind in word.pieces):
        return text_of(word, variables).split()
    text = text_of(word, variables)
    if not any(kind == OPEN and re.search(r"[*?[]", piece) for piece, kind in word.pieces):
        return [text]
    pattern = "".join(
        piece if kind == OPEN else re.sub(r"([*?[])", r"[\1]", _fill(piece, kind, variables))
        for piece, kind in word.pieces
    )
    folder, _, last = pattern.rpartition("/")
    fitting = [name for name in names(folder) if fnmatch.fnmatchcase(name, last) and not name.startswith(".")]
    return [f"{folder}/{name}" if folder else name for name in fitting] or [text]


def _fill(text: str, kind: str, variables: Mapping[str, str]) -> str:
    if kind in (OPEN, QUOTED):
        return text
    filled = _VARIABLE.sub(lambda match: variables.get(match[1] or match[2], ""), text)
    return re.sub(r'\\(["\\$])', r"\1", filled) if kind == DOUBLE else filled
