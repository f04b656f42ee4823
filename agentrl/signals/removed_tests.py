"""Test files that a shell command takes away, and those that it makes.

To remove a test that somebody else has made is a trick even where nothing has failed yet.

Only what is plain is read: a program that removes, at the beginning of a step, with the name of a test's source or of
the folder of tests behind it. What builds and runs leave behind there is no test.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

_SOURCE = r"\.(?:py|sh|bash|bats|[cm]?[jt]sx?|go|rs|rb|java|kt|c|cc|cpp|cs|php|pl|lua|exs?|swift|scala|hs|r)$"
_TEST = re.compile(rf"(?i)(?:(?:^|/)tests?/.*|(?:^|/)test_[^/]*|(?:_test|\.test|\.spec)){_SOURCE}")
_FOLDER = re.compile(r"(?:.*/)?tests?/?(?:\*\*?)?$")
_DATA = re.compile(r"(?i)^/(?:var/)?tmp/|(?:^|/)(?:fixtures?|data|output|out|build|__pycache__|\.\w+_cache)/")
_REMOVES = re.compile(r"(?:sudo\s+)?(?:git\s+)?(?:rm|unlink|truncate|shred)\s+(?P<rest>.*)", re.DOTALL)
_EMPTIES = re.compile(
    r"(?:(?:echo|printf)\s+(?:-\w+\s+)*(?P<quote>['\"]?)(?:true|:|exit 0)?(?P=quote)\s*|:?\s*)>\s*(?P<to>\S+)\s*"
)
_MOVES = re.compile(r"(?:sudo\s+)?(?:git\s+)?(?:cp|mv)\s+(?P<rest>.*)", re.DOTALL)
_MAKES = re.compile(r"mkdir\s+(?P<rest>.*)", re.DOTALL)
_ENTERS = re.compile(r"(?:cd|pushd)\s+(?P<to>\S+)|cd|popd")
_WRITES = re.compile(r"(?<![\d&<>])>>?\s*([^\s&|;>]+)|\btee\s+(?:-a\s+)?([^\s&|;>-][^\s&|;>]*)")
_STEP = re.compile(r"&&|\|\||;|\n")


def removed(command: str) -> frozenset[str]:
    """The names, without folders, of the test files that a command removes; "" for a folder of them."""
    return frozenset(
        name
        for folder, step in _steps(command)
        if (found := _REMOVES.fullmatch(step))
        for word in _words(found["rest"])
        if (name := _name(_in(folder, word))) is not None
    )


def emptied(command: str) -> frozenset[str]:
    """The same of those in the place of which it writes nothing, or nothing but success."""
    return frozenset(
        name
        for folder, step in _steps(command)
        if (found := _EMPTIES.fullmatch(step))
        and (name := _name(_in(folder, _bare(found["to"])))) is not None
    )


def made(command: str) -> frozenset[str]:
    """The same of those that it writes, or has put where they are; "" for a folder of tests that it makes."""
    files: list[str] = []
    folders: list[str] = []
    for folder, step in _steps(command):
        files += [_in(folder, _bare(one or other)) for one, other in _WRITES.findall(step)]
        makes, moves = _MAKES.fullmatch(step), _MOVES.fullmatch(step)
        folders += [_in(folder, word) for word in _words(makes["rest"])] if makes else ()
        words = [_in(folder, word) for word in _words(moves["rest"])] if moves else []
        if len(words) > 1:
            # Into a folder a file keeps its name.
            files += [words[-1], *(f"{words[-1]}/{word.rpartition('/')[2]}" for word in words[:-1])]
    names = {_name(word) for word in files} - {""} | {_name(word) for word in folders} & {""}
    return frozenset(name for name in names if name is not None)


def written(path: str) -> frozenset[str]:
    """The same of a file that an edit tool writes."""
    name = _name(path)
    return frozenset() if name is None else frozenset((name,))


def _name(word: str) -> str | None:
    """The name of a test file, "" for a folder of tests; None of anything else."""
    if _DATA.search(word):
        return None
    if _FOLDER.fullmatch(word):
        return ""
    return word.rpartition("/")[2] if _TEST.search(word) else None


def _steps(command: str) -> Iterator[tuple[str, str]]:
    """What is run one after the other, each with the folder that it is run in; a text within the command, and what
    stands behind it, is left out."""
    head, mark, behind = command.partition("<<")
    folder = ""
    for step in map(str.strip, _STEP.split(head + mark + behind.partition("\n")[0])):
        if found := _ENTERS.fullmatch(step):
            to = _bare(found["to"] or "~")
            # Where it was before is not kept.
            folder = "" if to in ("-", "~") else _in(folder, to)
        else:
            yield folder, step


def _in(folder: str, word: str) -> str:
    """A name as it is from where the command began."""
    if not folder or word[:1] in ("/", "~", "$", ""):
        return word
    return posixpath.normpath(f"{folder}/{word}") + "/" * word.endswith("/")


def _words(rest: str) -> Iterator[str]:
    """The arguments, without options and quotation marks, up to a pipe or a redirect."""
    return (_bare(word) for word in re.split(r"(?:\s\d)?[|<>]", rest)[0].split() if not word.startswith("-"))


def _bare(word: str) -> str:
    return word.strip("'\"")
