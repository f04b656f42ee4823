"""The files of policy versions: written whole or not at all, checked, and deleted only when law 8 lets them go.

    versions/000007/            default line; other lines have a folder of their own under versions/
        model.safetensors ..    whatever the writer wrote
        manifest.json           every file with its size and sha256
        STABLE                  sha256 of the manifest; written last

A version is written into a hidden folder beside its place, synced to disk, then renamed. A folder without STABLE is
no version: `numbers` does not see it and `clean` removes it. A whole one that nobody published is set aside, as
.unknown-000008: a crash left it, or an older copy of learning.db was put back, and then it may have served.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from agentrl.errors import StoreError
from agentrl.types import PolicyVersion, VersionFile, VersionState

if TYPE_CHECKING:  # it opens learning.db, which asks what versions there are
    from agentrl.store.version_log import VersionLog

MANIFEST, STABLE = "manifest.json", "STABLE"
LINE, UNKNOWN = "policy=", ".unknown-"
NUMBERED = re.compile(r"\d{6,}")


class VersionStore:
    """Folders of one line of versions. One writer at a time: the learner.

    Args:
        run_dir: the run's folder.
        policy: the line.
    """

    def __init__(self, run_dir: Path | str, policy: str = "default") -> None:
        self._run_dir = Path(run_dir)
        self.policy = policy
        versions = self._run_dir / "versions"
        # "=" keeps a line named "000001" apart from version 1 of the default line.
        self.root = versions if policy == "default" else versions / f"{LINE}{quote(policy, safe='')}"

    def path(self, number: int) -> Path:
        """Folder of a version, whether it exists or not."""
        return self.root / f"{number:06d}"

    def relative_path(self, number: int) -> str:
        """The same, relative to the run's folder, as `PolicyVersion.path` wants it."""
        return self.path(number).relative_to(self._run_dir).as_posix()

    def write(self, number: int, write_files: Callable[[Path], None]) -> list[VersionFile]:
        """Writes a version; it is on disk, whole and synced, when this returns.

        Args:
            number: not used before.
            write_files: puts the files into the (temporary) folder that it is given; subfolders are welcome.

        Returns:
            Every file, by path, without manifest.json and STABLE.

        Raises:
            StoreError: the number is taken, or nothing but plain files may be written and something else was.
        """
        target = self.path(number)
        if is_stable(target):
            raise StoreError(f"{target} exists: version numbers are never used again")
        remove(target)
        self.root.mkdir(parents=True, exist_ok=True)
        folder = self.root / f".writing-{target.name}"
        remove(folder)
        folder.mkdir()
        try:
            write_files(folder)
            files = _inspect(folder)
            manifest = {"policy": self.policy, "number": number, "created_at": time.time()}
            listed = [{"path": file.path, "sha256": file.sha256, "size": file.size} for file in files]
            text = json.dumps(manifest | {"files": listed}, indent=2) + "\n"
            (folder / MANIFEST).write_text(text, encoding="utf-8")
            for path in [*_plain_files(folder), *(p for p in folder.rglob("*") if p.is_dir()), folder]:
                _sync(path)
            # After everything it vouches for is on disk, so that it cannot outlive it in a power cut.
            (folder / STABLE).write_text(hashlib.sha256(text.encode()).hexdigest() + "\n", encoding="ascii")
            _sync(folder / STABLE)
            _sync(folder)
            folder.rename(target)
            _sync(self.root)
        except BaseException:
            remove(folder)
            raise
        return files

    def numbers(self) -> list[int]:
        """The versions that are whole on disk, ascending."""
        if not self.root.is_dir():
            return []
        found = (path for path in self.root.iterdir() if NUMBERED.fullmatch(path.name))
        return sorted(int(path.name) for path in found if is_stable(path))

    def set_aside(self) -> list[int]:
        """The versions that `clean` set aside, ascending."""
        names = (path.name.removeprefix(UNKNOWN) for path in self.root.glob(f"{UNKNOWN}*"))
        return sorted(int(name) for name in names if NUMBERED.fullmatch(name))

    def newest(self) -> int:
        """The highest number on disk, set aside or not; 0 where there is none."""
        return max((*self.numbers(), *self.set_aside()), default=0)

    def verify(self, version: PolicyVersion) -> list[str]:
        """Sentences naming each file of a version that is missing, altered or not recorded; reads all of it."""
        folder = self._run_dir / version.path
        name = f"version {version.number} of {version.policy!r}"
        faults = self.unfit(version)
        if not is_stable(folder):
            return faults
        try:
            found = {file.path: file for file in _inspect(folder)}
        except StoreError as error:
            return [*faults, f"{name}: {error}"]
        recorded = {file.path: file for file in version.files}
        faults += [f"{name}: {path} was not recorded" for path in sorted(found.keys() - recorded.keys())]
        for path in sorted(recorded.keys() & found.keys()):
            before, now = recorded[path], found[path]
            if before.size == now.size and before.sha256 != now.sha256:
                faults.append(f"{name}: {path} has sha256 {now.sha256}, recorded was {before.sha256}")
        return faults

    def unfit(self, version: PolicyVersion) -> list[str]:
        """Sentences naming what keeps a version from being loaded: each recorded file that is missing or has another
        size. As fast for large weights; links are followed, as loading does, and what is there beside does no harm.
        """
        folder = self._run_dir / version.path
        name = f"version {version.number} of {version.policy!r}"
        if not is_stable(folder):
            return [f"{name}: {folder} is missing or was not written to its end"]
        faults = []
        for file in sorted(version.files, key=lambda file: file.path):
            path = folder / file.path
            if not path.is_file():
                faults.append(f"{name}: {file.path} is missing")
            elif (size := path.stat().st_size) != file.size:
                faults.append(f"{name}: {file.path} has {size} bytes, recorded were {file.size}")
        manifest = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
        if (folder / STABLE).read_bytes().strip() != manifest.encode():
            faults.append(f"{name}: {MANIFEST} is not the one that {STABLE} vouches for")
        return faults

    def delete(self, number: int) -> None:
        """Removes the files of a version at once or, after a crash, by `clean`. Whether they may go is
        `LearningLog.forget_files`'s to say; `prune` does both."""
        target = self.path(number)
        if target.exists():
            going = self.root / f".deleting-{target.name}"
            remove(going)
            target.rename(going)
            remove(going)

    def clean(self, versions: Sequence[PolicyVersion]) -> list[int]:
        """Removes what a crash left: half-written and half-deleted folders, and versions whose files were forgotten.
        A whole version that is not in `versions` is set aside; the newest of those stays, for who wants it back.

        Args:
            versions: the whole line.

        Returns:
            The numbers set aside now. Call it when the learner starts, never beside a running one.
        """
        if not self.root.is_dir():
            return []
        known, kept = {v.number for v in versions}, {v.number for v in versions if v.path}
        moved = []
        for path in sorted(self.root.iterdir()):
            if path.name.startswith((".writing-", ".deleting-")):
                remove(path)
            elif NUMBERED.fullmatch(path.name):
                number = int(path.name)
                if not is_stable(path) or number in known - kept:
                    remove(path)
                elif number not in known:
                    aside = self.root / f"{UNKNOWN}{path.name}"
                    remove(aside)
                    path.rename(aside)
                    moved.append(number)
        for number in self.set_aside()[:-1]:
            remove(self.root / f"{UNKNOWN}{number:06d}")
        return sorted(moved)


def disposable(
    versions: Sequence[PolicyVersion], pins: Mapping[int, Sequence[str]], *, keep: int, base: int = 0
) -> list[int]:
    """Numbers of a line whose files may go (law 8), ascending.

    Never: the base, what serves, candidates and what they were built upon, pinned versions (teachers are pinned), the
    rollback target (the nearest ancestor of the serving version that has files), the `keep` newest retired ones, and
    the `older` ones before them.

    Args:
        versions: the whole line.
        pins: number -> holders.
        keep: newest retired versions to keep beyond those, and about as many older ones.
        base: the line's first version, whose files are the user's own.
    """
    by_number = {version.number: version for version in versions}
    needed = {base, *pins}
    for version in versions:
        if version.state in (VersionState.SERVING, VersionState.CANDIDATE):
            needed.add(version.number)
            ancestor = by_number.get(-1 if version.parent is None else version.parent)
            while ancestor is not None and not ancestor.path:
                ancestor = by_number.get(-1 if ancestor.parent is None else ancestor.parent)
            if ancestor is not None:
                needed.add(ancestor.number)
    retired = [version.number for version in versions if version.state is VersionState.RETIRED]
    spare = [number for number in retired if number not in needed]
    kept = needed | set(spare[max(0, len(spare) - keep) :]) | older(retired, keep)
    return [version.number for version in versions if version.path and version.number not in kept]


def older(retired: Sequence[int], keep: int) -> set[int]:
    """Of the retired versions, ascending, one for each doubling of their age, for `keep` doublings behind the newest.

    The n-th stays at the ages 2^k to 2^(k+1)-1, counted in retired versions, where 2^k divides n: just one does at each
    age, and none is wanted at a greater age that was not kept at all smaller ones.
    """
    found = set()
    for place, number in enumerate(retired, 1):
        doublings = (len(retired) - place).bit_length() - 1
        if 0 <= doublings < keep.bit_length() - 1 + keep and place % 2**doublings == 0:
            found.add(number)
    return found


def prune(log: VersionLog, store: VersionStore, *, keep: int) -> list[int]:
    """Deletes the files of versions that nothing needs; the records stay. Returns their numbers."""
    numbers = log.forget_files(store.policy, lambda versions, pins: disposable(versions, pins, keep=keep))
    for number in numbers:
        store.delete(number)
    return numbers


def lines_on_disk(run_dir: Path) -> list[VersionStore]:
    """The default line's folders and those of every other line that has any."""
    others = sorted(path.name.removeprefix(LINE) for path in (run_dir / "versions").glob(f"{LINE}*"))
    return [VersionStore(run_dir), *(VersionStore(run_dir, unquote(name)) for name in others)]


def is_stable(folder: Path) -> bool:
    """Whether a folder is a version that was written to its end."""
    return (folder / STABLE).is_file() and (folder / MANIFEST).is_file()


def remove(path: Path) -> None:
    """Removes a folder with all it holds; one that is not there is no error."""
    if path.is_dir():
        shutil.rmtree(path)


def checksum(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plain_files(folder: Path) -> list[Path]:
    """Raises StoreError for a link or a device: its content would not be the version's own."""
    paths = [path for path in sorted(folder.rglob("*")) if not path.is_dir() or path.is_symlink()]
    for path in paths:
        if path.is_symlink() or not path.is_file():
            raise StoreError(f"{path} is no plain file; a version holds plain files only")
    return paths


def _inspect(folder: Path) -> list[VersionFile]:
    own = {MANIFEST, STABLE}
    files = [(path, path.relative_to(folder).as_posix()) for path in _plain_files(folder)]
    return [
        VersionFile(path=name, sha256=checksum(path), size=path.stat().st_size)
        for path, name in files
        if name not in own
    ]


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
