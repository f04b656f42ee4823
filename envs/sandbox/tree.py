"""A look at a directory tree that follows no link, waits for nothing and stays within bounds.

Runs inside the sandbox (see `launch`).
"""

from __future__ import annotations

import binascii
import errno
import os
import stat

MAX_ENTRIES, MAX_DEPTH, MAX_FILE, MAX_TOTAL = 1000, 16, 64 * 1024, 2**20


class Tree:
    """What a snapshot found. Whatever cannot be read, or is too much, makes it incomplete."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}
        self.directories: list[str] = []
        self.links: dict[str, str] = {}
        self.total = 0
        self.complete = True

    def add_folder(self, descriptor: int, prefix: str, depth: int) -> None:
        """Adds a directory's entries and closes its descriptor."""
        try:
            for name in sorted(os.listdir(descriptor)):
                if len(self.files) + len(self.directories) + len(self.links) >= MAX_ENTRIES:
                    self.complete = False
                    return
                try:
                    self.add(name, descriptor, prefix + name, depth)
                except OSError:
                    self.complete = False
        finally:
            os.close(descriptor)

    def add(self, name: str, folder: int, path: str, depth: int) -> None:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            self.links[path] = os.readlink(name, dir_fd=folder)
        elif stat.S_ISDIR(status.st_mode):
            self.directories.append(path)
            if depth == MAX_DEPTH:
                raise OSError(errno.ELOOP, "too deep")
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
            self.add_folder(os.open(name, flags, dir_fd=folder), path + "/", depth + 1)
        elif stat.S_ISREG(status.st_mode):
            self.files[path] = ""
            if status.st_size > MAX_FILE or self.total + status.st_size > MAX_TOTAL:
                raise OSError(errno.EFBIG, "too big")
            data = read_file(name, folder)
            self.total += len(data)
            self.files[path] = binascii.b2a_base64(data, newline=False).decode()


def read_file(name: str, folder: int) -> bytes:
    """At most MAX_FILE bytes. A name that became a link meanwhile is an OSError; a pipe is not waited on."""
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    try:
        return os.read(descriptor, MAX_FILE)
    finally:
        os.close(descriptor)
