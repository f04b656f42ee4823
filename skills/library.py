"""The skills of a run: RUN/skills/SCOPE/NAME/SKILL.md, one folder a skill, made for reading and editing by hand.

Files are written beside their place and moved there, so a reader never sees half a skill and never waits for a writer.
A file that a hand broke is left alone, reported with its remedy in `faults`, and not used until it is mended.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from agentrl.store.folders import make_folder
from agentrl.text.injection import hides
from skills.marks import suspicion
from skills.skill_file import FILE_NAME, MAX_BODY, MAX_FRONT, SkillError, SkillFile, SkillState, digest, parse

SKILLS_FOLDER = "skills"
"""Below the run's folder."""
DISCOVERED = (".agents/skills", ".claude/skills")
"""Where other agents look for skills, below a project or a home."""
ALIKE = 0.8
"""Least share of common words (Jaccard) of two texts that say the same."""
MAX_LINES = 24
"""Of a text that grows line by line."""
MAX_IMPORT_BYTES = 8 * 2**20
"""Of one skill's folder."""

_SCOPE = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_CODE = re.compile(r"`([^`\n]+)`")

Kept = Literal["written", "revised", "merged", "retired"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What a summariser proposes."""

    name: str
    description: str
    body: str
    adds: bool = False
    """Its lines stand for themselves: a skill of this name keeps its own and gets those that are new."""
    is_quoted: bool = False
    """What others said in it passed the gates of hints before it was written: its lines are not asked again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a draft comes from."""

    turn_ids: tuple[str, ...]
    version: int
    score: float | None


class SkillLibrary:
    """The skills of one scope; skills never cross scopes.

    Args:
        root: the run's folder of skills.
        scope: as on turns.
    """

    def __init__(self, root: Path, scope: str = "default") -> None:
        self.scope = scope
        self.path = root / scope_folder(scope)
        self.faults: dict[str, str] = {}
        """Folders that hold no well-formed skill, with the remedy; as of the last `all`."""
        self._read: dict[str, tuple[tuple[int, int, int], SkillFile]] = {}

    def all(self, state: SkillState | None = None) -> list[SkillFile]:
        """The well-formed skills by name; those that did not change since the last call are not read again."""
        self.faults = {}
        found = []
        for folder in _folders(self.path):
            try:
                skill = self._load(folder)
            except SkillError as error:
                self.faults[folder.name] = str(error)
                continue
            if state is None or skill.state is state:
                found.append(skill)
        return found

    def get(self, name: str) -> SkillFile:
        """Raises SkillError where there is no such skill, or none that is well formed."""
        folder = self.path / name
        if Path(name).name != name or not (folder / FILE_NAME).is_file():
            known = ", ".join(folder.name for folder in _folders(self.path)) or "none"
            raise SkillError(f"there is no skill {name!r} in scope {self.scope!r}; there are: {known}")
        return self._load(folder)

    def learn(
        self, draft: Draft, origin: Origin, *, state: SkillState = SkillState.ACTIVE
    ) -> tuple[SkillFile, Kept]:
        """Takes up what an episode taught: a new skill, a new text of one, or one more episode behind one.

        A skill of the draft's name is revised where agentrl wrote its text, and left as it is where a hand did. A draft
        that says what another skill says already is merged into that one. A retired skill stays retired, and an active
        one keeps its text where new texts are to be PROPOSED.

        Args:
            state: of a new skill or a new text.
        """
        same = next((skill for skill in self.all() if skill.name == draft.name), None)
        if same is None:
            same = next((skill for skill in self.all() if alike(skill.body, draft.body)), None)
        if same is None:
            if draft.name in self.faults:
                raise SkillError(f"skill {draft.name!r} cannot be read: {self.faults[draft.name]}")
            fresh = SkillFile(name=draft.name, description=draft.description, body=draft.body).in_state(state)
            return self._save(_learned(fresh, origin, revision=0)), "written"
        if same.state is SkillState.RETIRED:
            return same, "retired"
        # What somebody approved stays as it is while new texts need an approval.
        is_approved = state is SkillState.PROPOSED and same.state is SkillState.ACTIVE
        if same.name == draft.name and not same.is_edited and not is_approved:
            anew = _anew(same, draft)
            if digest(anew.body) != digest(same.body):
                revision = same.revision + 1
                return self._save(_learned(anew.in_state(state), origin, revision=revision)), "revised"
        return self._save(_learned(same, origin)), "merged"

    def change(self, name: str, state: SkillState) -> SkillFile:
        """Approves a skill (ACTIVE) or retires it. Raises SkillError where there is none."""
        return self._save(self.get(name).in_state(state))

    def take(self, source: Path, *, state: SkillState = SkillState.ACTIVE) -> list[str]:
        """Copies skills in: `source` is a skill's folder, a folder of such folders, or a project that has one.

        Args:
            state: of the skills, but of those that read like an attack (`skills.marks`): they are PROPOSED. What they
                say of their own state and provenance is left out.

        Returns:
            their names.

        Raises:
            SkillError: a folder holds no well-formed skill, one whose text hides something, or a skill of that name is
                here already; nothing is copied.
        """
        folders = skill_folders(source)
        taken = {}
        for folder in folders:
            taken[folder.name] = _checked(folder)
            if (self.path / folder.name).exists():
                raise SkillError(
                    f"skill {folder.name!r} is here already: rename one, or delete {self.path / folder.name}"
                )
        for folder in folders:
            with self._moving(folder.name) as place:
                shutil.copytree(folder, place, dirs_exist_ok=True)
                skill = taken[folder.name]
                fresh = skill.without_provenance()
                begins = state if suspicion(fresh) is None else SkillState.PROPOSED
                if begins is not SkillState.ACTIVE:
                    fresh = fresh.in_state(begins)
                if fresh != skill:  # else the file stays as its author wrote it
                    (place / FILE_NAME).write_text(fresh.render(), encoding="utf-8")
        return [folder.name for folder in folders]

    def give(self, target: Path, names: Sequence[str] = ()) -> list[Path]:
        """Copies skills out, with the files beside them, into a folder where other agents look (`.agents/skills`).

        Args:
            names: the skills; none = every active one.

        Raises:
            SkillError: a skill is unknown or stands in the target already; nothing is copied.
            UserError: the target cannot be made.
        """
        chosen = [self.get(name) for name in names] if names else self.all(SkillState.ACTIVE)
        taken = [skill.name for skill in chosen if (target / skill.name).exists()]
        if taken:
            raise SkillError(
                f"{target} has {', '.join(taken)} already: delete them there, or name another folder"
            )
        make_folder(target)
        for skill in chosen:
            shutil.copytree(self.path / skill.name, target / skill.name)
        return [target / skill.name for skill in chosen]

    def _load(self, folder: Path) -> SkillFile:
        path = folder / FILE_NAME
        try:
            status = path.stat()
            mark = (status.st_mtime_ns, status.st_size, status.st_ino)
            known = self._read.get(folder.name)
            if known is not None and known[0] == mark:
                return known[1]
            skill = read(folder)
        except OSError as error:
            raise SkillError(f"{path} cannot be read: {error.strerror}") from error
        self._read[folder.name] = (mark, skill)
        return skill

    def _save(self, skill: SkillFile) -> SkillFile:
        folder = self.path / skill.name
        if not folder.exists():
            with self._moving(skill.name) as place:
                (place / FILE_NAME).write_text(skill.render(), encoding="utf-8")
            return skill
        handle, name = tempfile.mkstemp(prefix=".", suffix=".new", dir=folder)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(skill.render())
        Path(name).chmod(0o644)
        Path(name).replace(folder / FILE_NAME)
        return skill

    @contextmanager
    def _moving(self, name: str) -> Iterator[Path]:
        """A folder to fill, which becomes the skill's once the body is done."""
        self.path.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(prefix=".new-", dir=self.path))
        try:
            yield place
            place.chmod(0o755)
            place.rename(self.path / name)
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise


def scope_folder(scope: str) -> str:
    """A folder's name for a scope: its own where it makes a safe one, else a hash."""
    if _SCOPE.fullmatch(scope) and not scope.startswith("scope-"):
        return scope
    return "scope-" + hashlib.sha256(scope.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def read(folder: Path) -> SkillFile:
    """The skill in a folder. Raises SkillError, with the file's path."""
    path = folder / FILE_NAME
    if path.stat().st_size > 4 * (MAX_BODY + MAX_FRONT):
        raise SkillError(f"{path} has {path.stat().st_size} bytes: move detail into files beside it")
    try:
        return parse(path.read_text(encoding="utf-8"), folder=folder.name)
    except UnicodeDecodeError as error:
        raise SkillError(f"{path} is not UTF-8 text: save it as that") from error
    except SkillError as error:
        raise SkillError(f"{path}: {error}") from error


def skill_folders(source: Path) -> list[Path]:
    """The folders with a SKILL.md in `source`, in itself or where agents look. Raises SkillError without any."""
    source = source.resolve()
    if (source / FILE_NAME).is_file():
        return [source]
    for place in (source, *(source / name for name in DISCOVERED)):
        folders = _folders(place)
        if folders:
            return folders
    raise SkillError(
        f"{source} holds no skill: name a folder with {FILE_NAME}, a folder of such folders, or a project with "
        + " or ".join(DISCOVERED)
    )


def alike(a: str, b: str) -> bool:
    """Whether two texts say the same: the same words of code and mostly the same words around them."""
    # Code decides: "run `x`" and "run `y`" share nearly all their words and contradict each other.
    if set(_CODE.findall(a)) != set(_CODE.findall(b)):
        return False
    first, second = ({*re.findall(r"\w+", text.lower())} for text in (a, b))
    return bool(first) and len(first & second) >= ALIKE * len(first | second)


def vouched(body: str, drafts: Sequence[str], least: int) -> str:
    """The lines of a skill's text that at least so many episodes said, in like words; empty where there are none."""
    said = [[_line(line) for line in draft.splitlines()] for draft in drafts]

    def says(lines: Sequence[str], line: str) -> bool:
        return any(line == other or alike(line, other) for other in lines)

    kept = [
        line
        for line in body.splitlines()
        if _line(line) and sum(says(lines, _line(line)) for lines in said) >= least
    ]
    return "" if all(line.startswith("#") for line in kept) else "\n".join(kept)


def _line(line: str) -> str:
    """A line without the number of a step."""
    return re.sub(r"^\d+\. ", "", line.strip())


def _anew(skill: SkillFile, draft: Draft) -> SkillFile:
    """A skill with the text of a draft, or with the lines that the draft adds, up to MAX_LINES."""
    if not draft.adds:
        return replace(skill, description=draft.description, body=draft.body)
    lines = dict.fromkeys((*skill.body.splitlines(), *draft.body.splitlines()))
    return replace(skill, body="\n".join(list(lines)[: max(MAX_LINES, len(skill.body.splitlines()))]))


def _learned(skill: SkillFile, origin: Origin, *, revision: int | None = None) -> SkillFile:
    return skill.learned(
        turn_ids=origin.turn_ids, version=origin.version, score=origin.score, revision=revision
    )


def _folders(path: Path) -> list[Path]:
    """Folders of skills, by name; what is being written begins with a dot."""
    if not path.is_dir():
        return []
    return sorted(
        folder for folder in path.iterdir() if folder.name[:1] != "." and (folder / FILE_NAME).is_file()
    )


def _checked(folder: Path) -> SkillFile:
    """The skill in a folder that may be copied. Raises SkillError for one that may not."""
    size = 0
    for path in (folder, *folder.rglob("*")):
        if path.is_symlink():
            raise SkillError(
                f"{path} is a link, which may lead anywhere: put a copy of the file in its place"
            )
        if not path.is_file() and not path.is_dir():
            raise SkillError(f"{path} is neither a file nor a folder: take it out")
        size += path.stat().st_size if path.is_file() else 0
    if size > MAX_IMPORT_BYTES:
        raise SkillError(f"{folder} has {size} bytes: keep a skill below {MAX_IMPORT_BYTES}")
    skill = read(folder)
    fault = hides(f"{skill.name}\n{skill.description}\n{skill.body}")
    if fault is not None:
        raise SkillError(f"{folder / FILE_NAME} holds {fault}: take that out, if you trust the rest")
    return skill
