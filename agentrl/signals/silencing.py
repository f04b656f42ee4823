"""Comments by which a checker says nothing of a line or a file: whether a command or an edit adds one, and whether the
user asked for that."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from agentrl.signals.requested import requested

_NAMES = (
    r"(?:noqa|nosec|nolint|type:\s*ignore|pylint:\s*disable|shellcheck\s+disable|eslint-disable"
    r"|@?ts-(?:ignore|nocheck)|rubocop:\s*disable)"
)
_COMMENT = re.compile(rf"(?i)(?:#|//|/\*)\s*{_NAMES}")
_NAMED = re.compile(rf"(?i){_NAMES}")

_ASKED = re.compile(
    r"(?i)\b(?:suppress|silence|ignore|disable|mute)\b.{0,40}\b(?:warnings?|lint\w*|rules?|complaints?|alarms?)\b"
    r"|\b(?:noqa|nosec|nolint)\b|type:\s?ignore|eslint-disable"
)

_HEREDOC = re.compile(r"(?s)(?<!<)(?<!sh )<<-?[ \t]*(['\"]?)(\w+)\1([^\n]*)\n(?:.*?\n)??[ \t]*(?:\2\b|\Z)")
"""A text within a command, which no shell runs."""
_NESTED = re.compile(r"(?s)\b(?:ba|da|z)?sh\s+-\w*c\s+(?:'([^']*)'|\"((?:\\.|[^\"\\])*)\")")
_TOKEN = re.compile(
    r"""(?xs) (?P<redirect> [\d&]?>>?[&|]? | <+ ) | (?P<end> [&;\n]+ | \|\| ) | (?P<pipe> \|&? )
    | (?P<word> (?: '[^']*(?:'|\Z) | "(?:\\.|[^"\\])*\\?(?:"|\Z) | \\. | [^\s'"|&;<>\\] )+ )"""
)
_IN_PLACE = re.compile(r"-\w*i|--in-place")
_EDITORS = frozenset(("sed", "gsed", "perl"))
_READS_ONLY = frozenset((
    "grep", "egrep", "fgrep", "rg", "ag", "ack", "head", "tail", "find", "ls", "nl", "diff", "git", "wc", "sort",
    "uniq",
))  # fmt: skip
"""Programs whose arguments say what is looked for, not what is written."""
_SUBSTITUTES = re.compile(
    r"(?s)(?<![A-Za-z_])s([^\w\s\\])(?P<old>(?:\\.|(?!\1)[^\\])*)\1(?P<new>(?:\\.|(?!\1)[^\\])*)\1"
)
_ADDRESS = re.compile(r"(?m)(?:^|[;{,])\s*/(?:\\.|[^/\\\n])+/(?=\s*[,!]?\s*[A-Za-z{])")

_BESIDES = re.compile(
    r"(?i)(?:^|_)(?:path|file|filename|command|mode|id|rev|language|description|explanation|instructions?|reason)$"
)
"""Arguments of an edit tool that are no text of the file."""


def asks_for_comments(asked: str) -> bool:
    """Whether users asked for such comments, or to silence a checker."""
    return requested(_ASKED, asked)


def command_adds_comment(command: str) -> bool:
    """Whether a shell command writes such a comment to a file.

    What it only looks for, what it removes, and a file that is written as a whole count for nothing.
    """
    for programs, is_written in _pipelines(_HEREDOC.sub(r"<<\2\3\n", _NESTED.sub(r"\1\2", command))):
        for words in programs:
            edits = not _EDITORS.isdisjoint(words)
            if not is_written and not (edits and any(map(_IN_PLACE.match, words))):
                continue
            if edits and _COMMENT.search(_written_by_editor(words)):
                return True
            if not edits and words[0] not in _READS_ONLY and _COMMENT.search(" ".join(words)):
                return True
    return False


def edit_adds_comment(texts: Mapping[str, str], *, inserts: bool) -> bool:
    """Whether an edit puts such a comment where none was.

    Args:
        texts: the arguments of the edit tool by name. The old text is named so, else it is the first.
        inserts: whether the tool inserts its only text; else a lone text is a whole file, and nobody knows what it
            held before.
    """
    parts = {name: text for name, text in texts.items() if not _BESIDES.search(name)}
    old = [name for name in parts if name.casefold().startswith("old")]
    if not old and len(parts) > 1:
        old = [next(iter(parts))]
    if not old and not inserts:
        return False
    return any(_COMMENT.search(text) for name, text in parts.items() if name not in old) and not any(
        _NAMED.search(parts[name]) for name in old
    )


def _pipelines(command: str) -> Iterator[tuple[list[list[str]], bool]]:
    """The programs of each pipeline as words without quotes, and whether something is written to a file."""
    programs: list[list[str]] = [[]]
    is_written = False
    redirect = ""
    for token in _TOKEN.finditer(f"{command}\n"):
        word = token["word"]
        if word is not None and redirect:
            is_written |= ">" in redirect and redirect[0] not in "23456789" and word != "/dev/null"
            redirect = ""
        elif word is not None:
            programs[-1].append(re.sub(r"^(['\"])(.*)\1$", r"\2", word, flags=re.DOTALL))
        elif token["redirect"]:
            redirect = "" if token["redirect"].endswith(("&", "<<<")) else token["redirect"]
        elif token["pipe"]:
            programs.append([])
        else:
            made = [words for words in programs if words]
            yield made, is_written or any("tee" in words for words in made)
            programs, is_written, redirect = [[]], False, ""


def _written_by_editor(words: list[str]) -> str:
    """What is left of the scripts of sed or perl without what they look for."""
    script = "\n".join(word for word in words if not word.startswith("-"))
    script = _SUBSTITUTES.sub(
        lambda found: " " if _NAMED.search(found["old"]) else f" {found['new']} ", script
    )
    return re.sub(r"\\(.)", r"\1", _ADDRESS.sub(" ", script))
