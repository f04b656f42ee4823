"""One skill as a file: SKILL.md in the format of the Agent Skills convention.

    ---
    name: use-zorp-instead-of-cat            lowercase letters, digits, single hyphens; the folder's name
    description: Use when asked to ...       when to use it, at most 1,024 characters
    license, compatibility, metadata, ...    optional; fields that we do not know are kept as they are
    ---
    Markdown for whoever does the work.

What agentrl adds stands under `metadata` in keys of its own, which are texts as the convention wants them.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

import yaml

from agentrl.errors import UserError

FILE_NAME: Final = "SKILL.md"
MAX_NAME: Final = 64
MAX_DESCRIPTION: Final = 1024
MAX_COMPATIBILITY: Final = 500
MAX_BODY: Final = 40_000
"""Characters; twice what the convention advises (about 5,000 tokens)."""
MAX_FRONT: Final = 64_000
MAX_LISTED_TURNS: Final = 50
"""Turns named in a file; the bank knows them all."""

_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_BEGINS = re.compile(r"\A\ufeff?---[ \t]*\n")
_FRONT = re.compile(_BEGINS.pattern + r"(.*?)^---[ \t]*(?:\n|\Z)(.*)\Z", re.DOTALL | re.MULTILINE)
_KNOWN = ("name", "description", "license", "compatibility", "metadata")

_BROKEN = (ValueError, TypeError, ArithmeticError, LookupError, AttributeError, RecursionError)
"""What PyYAML raises, beside its own errors, for values that a hand may write: dates that are none, `!!int ''`."""

_OWN = "agentrl-"
_TURNS, _VERSION, _SCORE = "agentrl-turns", "agentrl-version", "agentrl-score"
_STATE, _REVISION, _DIGEST = "agentrl-state", "agentrl-revision", "agentrl-digest"


class SkillError(UserError):
    """A skill that is not well formed or not there; the message names the remedy."""


class SkillState(StrEnum):
    PROPOSED = "proposed"
    """Written, and not shown to a teacher until somebody approves it."""
    ACTIVE = "active"
    RETIRED = "retired"
    """Shown to no teacher any more; weights already trained stay."""


class _Loader(yaml.SafeLoader):  # type: ignore[misc] # yaml has no types
    """Plain YAML without aliases: a few lines of them can stand for gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise SkillError("the front matter uses a YAML alias (*name): write the value out")
        return super().compose_node(parent, index)


class _Dumper(yaml.SafeDumper):  # type: ignore[misc] # yaml has no types
    """Plain YAML with letters of all scripts as they are."""

    def represent_str(self, data: str) -> Any:
        # Plain scalars that hold these line ends are written as they are and read back as spaces.
        style = '"' if any(mark in data for mark in "\x85\u2028\u2029") else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _Dumper.represent_str)


@dataclass(frozen=True, slots=True, kw_only=True)
class SkillFile:
    """A well-formed skill.

    Raises:
        SkillError: a field is not what the convention allows.
    """

    name: str
    description: str
    body: str
    license: str | None = None
    compatibility: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    """Front matter fields that the convention or another agent knows, for example `allowed-tools`."""

    def __post_init__(self) -> None:
        if len(self.name) > MAX_NAME or not _NAME.fullmatch(self.name):
            raise SkillError(
                f"name {self.name!r}: use 1 to {MAX_NAME} lowercase letters, digits and single hyphens, for example "
                f"{slug(self.name)!r}"
            )
        if not self.description.strip() or len(self.description) > MAX_DESCRIPTION:
            raise SkillError(
                f"description has {len(self.description)} characters: say in 1 to {MAX_DESCRIPTION} when to use "
                "the skill"
            )
        if any("\ud800" <= character <= "\udfff" for character in self.description):
            raise SkillError("description holds half a character (a lone surrogate): write the whole one")
        if self.compatibility is not None and len(self.compatibility) > MAX_COMPATIBILITY:
            raise SkillError(
                f"compatibility has {len(self.compatibility)} characters: keep it to {MAX_COMPATIBILITY}"
            )
        if not self.body.strip() or len(self.body) > MAX_BODY:
            raise SkillError(
                f"the text below the front matter has {len(self.body)} characters: write 1 to {MAX_BODY}, and move "
                "detail into files beside SKILL.md"
            )

    @property
    def state(self) -> SkillState:
        return SkillState(self.metadata.get(_STATE, SkillState.ACTIVE))

    @property
    def turn_ids(self) -> tuple[str, ...]:
        """The newest turns that it was written from."""
        return tuple(str(self.metadata.get(_TURNS, "")).split())

    @property
    def version(self) -> int | None:
        """The policy version whose episode it was written from; None for a skill from elsewhere."""
        return None if _VERSION not in self.metadata else int(self.metadata[_VERSION])

    @property
    def score(self) -> float | None:
        """Reward of the episode that it was written from."""
        return None if _SCORE not in self.metadata else float(self.metadata[_SCORE])

    @property
    def revision(self) -> int:
        """How often its text was written anew."""
        return int(self.metadata.get(_REVISION, 0))

    @property
    def is_edited(self) -> bool:
        """Whether somebody else than agentrl wrote the text, or changed it since."""
        return self.metadata.get(_DIGEST) != digest(self.body)

    def in_state(self, state: SkillState) -> SkillFile:
        return replace(self, metadata=self.metadata | {_STATE: state.value})

    def without_provenance(self) -> SkillFile:
        """The same skill as if a hand had written it: what another run says of itself holds for that run alone."""
        return replace(
            self, metadata={key: value for key, value in self.metadata.items() if not key.startswith(_OWN)}
        )

    def learned(
        self, *, turn_ids: tuple[str, ...], version: int, score: float | None, revision: int | None = None
    ) -> SkillFile:
        """The same skill with one more episode behind it.

        Args:
            revision: of a text that agentrl wrote just now; None leaves the text's own mark alone.
        """
        turns = tuple(dict.fromkeys((*self.turn_ids, *turn_ids)))[-MAX_LISTED_TURNS:]
        found: dict[str, Any] = {_TURNS: " ".join(turns), _VERSION: str(version)}
        if score is not None:
            found[_SCORE] = f"{score:g}"
        if revision is not None:
            found |= {_REVISION: str(revision), _DIGEST: digest(self.body)}
        return replace(self, metadata=self.metadata | found)

    def render(self) -> str:
        """The text of SKILL.md."""
        front: dict[str, Any] = {"name": self.name, "description": self.description}
        for name in ("license", "compatibility"):
            if getattr(self, name) is not None:
                front[name] = getattr(self, name)
        front |= self.extra
        if self.metadata:
            front["metadata"] = self.metadata
        head = yaml.dump(front, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
        return f"---\n{head}---\n\n{self.body.strip()}\n"


def parse(text: str, *, folder: str | None = None) -> SkillFile:
    """Reads SKILL.md.

    Args:
        folder: name of the folder it stands in, which the convention wants to be the skill's name.

    Raises:
        SkillError: what is wrong and what to write instead.
    """
    try:
        skill = _parsed(text)
        _check_own(skill)
        # What cannot be written again (a number of thousands of digits) is a fault now, not when it is written.
        skill.render().encode()
    except SkillError:
        raise
    except _BROKEN as error:
        raise SkillError(
            f"the front matter holds a value that cannot be read ({type(error).__name__}): write dates and long "
            "numbers in quotes, and nest nothing deeply"
        ) from error
    if folder is not None and skill.name != folder:
        raise SkillError(f"name is {skill.name!r} in a folder {folder!r}: rename one of both")
    return skill


def _fault(error: yaml.YAMLError) -> tuple[str, str]:
    """Where the front matter is wrong, and what to do. A bracket or quotation mark that nothing closes is noticed far
    below it."""
    context, problem = (getattr(error, name, None) or "" for name in ("context", "problem"))
    mark, remedy = getattr(error, "problem_mark", None), "put texts that hold ': ' or '#' in quotes"
    if "flow" in context or ("quoted" in context and "unexpected" in problem):
        mark, remedy = (
            error.context_mark,
            "close the bracket or quotation mark there, or put the text in quotes",
        )
    elif "escape" in problem:
        remedy = "put texts that hold a backslash in single quotes"
    return ("" if mark is None else f" in line {mark.line + 2}"), remedy


def _parsed(text: str) -> SkillFile:
    text = text.replace("\r\n", "\n")
    match = _FRONT.match(text)
    if match is None:
        if _BEGINS.match(text):
            raise SkillError("its front matter does not end: close the fields with a line '---'")
        raise SkillError("it has no front matter: begin with a line '---', fields, and a line '---'")
    if len(match[1]) > MAX_FRONT:
        raise SkillError(f"the front matter has {len(match[1])} characters: keep it to {MAX_FRONT}")
    try:
        front = yaml.load(match[1], Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        where, remedy = _fault(error)
        raise SkillError(f"the front matter is not YAML{where}: {remedy}") from error
    if not isinstance(front, dict):
        raise SkillError("the front matter holds no fields: write 'name: ...' and 'description: ...'")
    for name in ("name", "description"):
        if not isinstance(front.get(name), str):
            raise SkillError(f"the front matter has no text {name!r}: add a line '{name}: ...'")
    metadata = front.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise SkillError("metadata is no map: write its entries as 'key: value' lines, indented")
    return SkillFile(
        name=front["name"],
        description=front["description"].strip(),
        body=match[2].strip(),
        license=_text(front, "license"),
        compatibility=_text(front, "compatibility"),
        metadata={str(key): value for key, value in metadata.items()},
        extra={str(key): value for key, value in front.items() if key not in _KNOWN},
    )


def digest(text: str) -> str:
    """Identity of a body: SHA-256 of its stripped text, 16 hexadecimal digits."""
    return hashlib.sha256(text.strip().encode("utf-8", "surrogatepass")).hexdigest()[:16]


def slug(text: str) -> str:
    """A well-formed name made of a text; long ones are cut and told apart by a hash."""
    words = "-".join(re.findall(r"[a-z0-9]+", text.lower())) or "skill"
    return words if len(words) <= MAX_NAME else f"{words[: MAX_NAME - 9].rstrip('-')}-{digest(text)[:8]}"


def _text(front: dict[str, Any], name: str) -> str | None:
    value = front.get(name)
    if value is None or isinstance(value, str):
        return value
    raise SkillError(f"{name} is {value!r}: write it as a text in quotes")


def _check_own(skill: SkillFile) -> None:
    """Reads our own entries once, so that what a hand broke is told where it is read and not where it is used."""
    try:
        _ = (skill.state, skill.version, skill.score, skill.revision, skill.turn_ids)
    except (ValueError, TypeError, OverflowError) as error:
        raise SkillError(
            f"metadata: {error}; {_STATE} is one of {', '.join(SkillState)}, {_VERSION} and {_REVISION} are whole "
            f"numbers and {_SCORE} is a number"
        ) from error
