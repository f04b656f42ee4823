"""The rows of a bench: what is there, and what is still to be run, several runs side by side."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def rows(path: Path) -> list[Row]:
    """The runs that are there."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def code(folder: Path = Path(__file__).parent) -> str:
    """The commit that a row was made by, with "+" where files were changed since; "" outside a repository."""
    answer = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return answer.stdout.strip()


def run_all(
    work: Callable[..., Row],
    cases: Sequence[tuple[Any, ...]],
    path: Path,
    *,
    jobs: int,
    say: Callable[[Row], str],
) -> int:
    """Runs `work(*case)` for each case, so many at a time, each in a process of its own, and appends its row with the
    commit that made it as "code".

    A run that fails is said and left out; the others go on.

    Returns:
        How many failed.
    """
    num_failed = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=jobs, mp_context=context, max_tasks_per_child=1) as pool:
        waiting = {pool.submit(_marked, work, *case): case for case in cases}
        for future in as_completed(waiting):
            try:
                row = future.result()
            except Exception as error:  # noqa: BLE001 - one run's fault is no reason to lose the others
                num_failed += 1
                print(f"{waiting[future]} failed:", *traceback.format_exception(error), file=sys.stderr)
                continue
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(say(row), file=sys.stderr, flush=True)
    return num_failed


def _marked(work: Callable[..., Row], *case: Any) -> Row:
    """A row with its commit, which is asked for first: the tree may change while a run goes on."""
    made_by = code()
    return {**work(*case), "code": made_by}
