"""The files of a simulated shell: a small tree in memory with the errors of the real programs."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

MAX_ENTRIES = 4096
MAX_TOTAL = 16 * 2**20


class FileError(Exception):
    """What the operating system would say, for example "No such file or directory"."""


class FileTree:
    """Files, directories and symbolic links by normalised absolute path. The parents of a path are directories."""

    def __init__(self, directories: tuple[str, ...] = ("/home/agent", "/srv", "/tmp")) -> None:  # noqa: S108
        self.files: dict[str, bytes] = {}
        self.directories: set[str] = {"/"}
        self.links: dict[str, str] = {}
        for path in directories:
            self.make_directory(path, parents=True)

    def exists(self, path: str) -> bool:
        return path in self.files or path in self.directories or path in self.links

    def resolve(self, path: str) -> str:
        """The path behind a chain of symbolic links at its end."""
        for _ in range(8):
            if path not in self.links:
                return path
            path = posixpath.normpath(posixpath.join(posixpath.dirname(path), self.links[path]))
        raise FileError("Too many levels of symbolic links")

    def read(self, path: str) -> bytes:
        path = self.resolve(path)
        if path in self.directories:
            raise FileError("Is a directory")
        if path not in self.files:
            raise FileError("No such file or directory")
        return self.files[path]

    def write(self, path: str, data: bytes) -> None:
        path = self.resolve(path)
        if path in self.directories:
            raise FileError("Is a directory")
        self._check_parent(path)
        total = sum(map(len, self.files.values())) - len(self.files.get(path, b"")) + len(data)
        if total > MAX_TOTAL or (path not in self.files and self._num_entries() >= MAX_ENTRIES):
            raise FileError("No space left on device")
        self.files[path] = data

    def make_directory(self, path: str, *, parents: bool = False) -> None:
        if parents:
            if path in self.directories:
                return
            parent = posixpath.dirname(path)
            if parent != path:
                self.make_directory(parent, parents=True)
        elif self.exists(path):
            raise FileError("File exists")
        self._check_parent(path)
        if self._num_entries() >= MAX_ENTRIES:
            raise FileError("No space left on device")
        self.directories.add(path)

    def make_link(self, path: str, target: str) -> None:
        if self.exists(path):
            raise FileError("File exists")
        self._check_parent(path)
        self.links[path] = target

    def remove(self, path: str) -> None:
        """Removes a file or link."""
        if path in self.links:
            del self.links[path]
        elif path in self.files:
            del self.files[path]
        elif path in self.directories:
            raise FileError("Is a directory")
        else:
            raise FileError("No such file or directory")

    def remove_directory(self, path: str) -> None:
        """Removes an empty directory."""
        if path not in self.directories:
            raise FileError("Not a directory" if self.exists(path) else "No such file or directory")
        if next(self.below(path), None) is not None:
            raise FileError("Directory not empty")
        self.directories.discard(path)

    def remove_tree(self, path: str) -> None:
        for inside in list(self.below(path)):
            self.files.pop(inside, None)
            self.links.pop(inside, None)
            self.directories.discard(inside)
        self.directories.discard(path)

    def below(self, path: str) -> Iterator[str]:
        """Every path below a directory."""
        prefix = path.rstrip("/") + "/"
        for paths in (self.files, self.directories, self.links):
            for inside in paths:
                if inside.startswith(prefix) and inside != "/":
                    yield inside

    def names(self, path: str) -> list[str]:
        """The sorted names directly in a directory."""
        depth = len(path.rstrip("/")) + 1
        return sorted(inside[depth:] for inside in self.below(path) if "/" not in inside[depth:])

    def _check_parent(self, path: str) -> None:
        parent = posixpath.dirname(path)
        if parent not in self.directories:
            raise FileError("Not a directory" if parent in self.files else "No such file or directory")

    def _num_entries(self) -> int:
        return len(self.files) + len(self.directories) + len(self.links)
