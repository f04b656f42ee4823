"""The files of policy versions: written whole or not at all, checked, and deleted only when law 8 lets them go.

    versions/000007/            default line; other lines have a folder of their own under versions/
        model.safetensors ..    whatever the writer wrote
        manifest.json           every file with its size and sha256
        STABLE                  sha256 of the manifest; written last

A version is written into a hidden folder beside its place, synced to disk, then renamed. A folder without STABLE is
no version: `numbers` does not see it and `clean` removes it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from agentrl.errors import StoreError
from agentrl.types import PolicyVersion, VersionFile, VersionState

if TYPE_CHECKING:  # it opens learning.db, which asks what versions there are
    from agentrl.store.version_log import VersionLog

MANIFEST, STABLE = "manifest.json", "STABLE"
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
        self.root = versions if policy == "default" else versions / f"policy={quote(policy, safe='')}"

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

    def verify(self, version: PolicyVersion, *, contents: bool = True) -> list[str]:
        """Sentences naming each file of a version that is missing, altered or not recorded.

        Args:
            contents: read all of it; otherwise only sizes are compared, which is as fast for large weights.
        """
        folder = self._run_dir / version.path
        name = f"version {version.number} of {version.policy!r}"
        if not is_stable(folder):
            return [f"{name}: {folder} is missing or was not written to its end"]
        recorded = {file.path: file for file in version.files}
        found = {file.path: file for file in _inspect(folder, contents=contents)}
        faults = [f"{name}: {path} is missing" for path in sorted(recorded.keys() - found.keys())]
        faults += [f"{name}: {path} was not recorded" for path in sorted(found.keys() - recorded.keys())]
        for path in sorted(recorded.keys() & found.keys()):
            before, now = recorded[path], found[path]
            if before.size != now.size:
                faults.append(f"{name}: {path} has {now.size} bytes, recorded were {before.size}")
            elif contents and before.sha256 != now.sha256:
                faults.append(f"{name}: {path} has sha256 {now.sha256}, recorded was {before.sha256}")
        manifest = (folder / MANIFEST).read_bytes()
        if (folder / STABLE).read_text(encoding="ascii").strip() != hashlib.sha256(manifest).hexdigest():
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

    def clean(self, known: Collection[int]) -> list[str]:
        """Removes what a crash left: half-written and half-deleted folders, and versions not in `known`.

        Args:
            known: numbers of the line's versions whose files are to be kept.

        Returns:
            Names of the folders removed. Call it when the learner starts, never beside a running one.
        """
        if not self.root.is_dir():
            return []
        removed = []
        for path in sorted(self.root.iterdir()):
            numbered = NUMBERED.fullmatch(path.name)
            if path.name.startswith((".writing-", ".deleting-")) or (
                numbered and (int(path.name) not in known or not is_stable(path))
            ):
                remove(path)
                removed.append(path.name)
        return removed


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


def _inspect(folder: Path, *, contents: bool = True) -> list[VersionFile]:
    own = {MANIFEST, STABLE}
    files = [(path, path.relative_to(folder).as_posix()) for path in _plain_files(folder)]
    return [
        VersionFile(path=name, sha256=checksum(path) if contents else "", size=path.stat().st_size)
        for path, name in files
        if name not in own
    ]


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
