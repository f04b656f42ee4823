"""What holds something open until it is closed."""

from __future__ import annotations

from typing import Self


class Closing:
    """`with` for a class that has `close`, whatever ended the block."""

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
