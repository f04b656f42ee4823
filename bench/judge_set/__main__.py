"""Writes the halves and the sealed parts and says how large they are."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from agentrl.signals import labelled
from bench.judge_set import kit


def main() -> None:
    folder = Path(labelled.__file__).with_name("judge_set")
    for half in get_args(labelled.Half):
        path = folder / f"{half}.jsonl"
        path.write_text(kit.lines(half), encoding="utf-8")
        print(f"{path}: {len(labelled.read_half(half))} turns, {path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
