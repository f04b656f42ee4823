"""What a version can still do of what nano could do before: some rows of its card, on a few cases each.

python -m bench.forgotten FOLDER        of any folder of nano's shape, beside the shipped weights
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from agentrl.nano import habits as h
from agentrl.nano import vocabulary as v
from agentrl.nano import weights_dir
from agentrl.nano.evaluate import Evaluation

NUM_CASES = 40
SEED = 7


def card(folder: Path, num: int = NUM_CASES) -> dict[str, float]:
    """Figures by name, greedy; the same cases for every folder. About ten seconds of one processor."""
    torch.set_num_threads(1)
    run = Evaluation(folder, SEED, num)
    rows: dict[str, Callable[[], float]] = {
        "hint, known wording": lambda: run.share(lambda: run.told("tail", v.KNOWN_WORDINGS)),
        "hint, withheld wording": lambda: run.share(lambda: run.told("tail", v.WITHHELD_WORDINGS)),
        "skill in the system message": lambda: run.share(
            lambda: run.told("system", v.KNOWN_WORDINGS, skill=True)
        ),
        "error of this task": lambda: run.share(lambda: run.refused(v.KNOWN_WORDINGS, later=False)),
        "error of an earlier task": lambda: run.share(lambda: run.refused(v.KNOWN_WORDINGS, later=True)),
        "done after success": lambda: run.share(run.finished),
        "judge, directed error: hint": lambda: run.judged("directed error")["hint"],
        "skill written": lambda: run.skills()["names the right command"],
        "wish as a hint": lambda: run.share(lambda: run.wished("tail", h.KNOWN_WISHES)),
        "correction obeyed": lambda: run.share(
            lambda: run.corrected(h.KNOWN_WISHES, whole=False, later=False)
        ),
    }
    return {name: round(figure(), 3) for name, figure in rows.items()}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--number", type=int, default=NUM_CASES, help="cases a row")
    arguments = parser.parse_args()
    before, after = (card(folder, arguments.number) for folder in (weights_dir(), arguments.folder))
    for name, figure in before.items():
        print(f"| {name} | {figure:.2f} | {after[name]:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
