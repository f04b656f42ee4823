"""The learner's process as the server starts it: `python -m server.learner_main RUN_DIR`.

`agentrl.learner.process` with the run's skills put in, which agentrl itself does not know of.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from agentrl.config import read_config
from agentrl.errors import StoreError, UserError
from agentrl.learner.journal import Journal
from agentrl.learner.process import FAILED, JOURNAL, REFUSED, learn, lower_priority
from agentrl.recipes.recipe import load_recipe
from skills.source import BankSource


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the learner of the run folder named by the only argument; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m server.learner_main RUN_DIR\n")
        return REFUSED
    run_dir = Path(arguments[0])
    with ExitStack() as stack:
        try:
            skills = source_of(run_dir, stack)
        except StoreError as error:
            sys.stderr.write(f"no skills: {error}\n")
            return FAILED
        except UserError as error:
            with Journal(run_dir / JOURNAL, sys.stdout) as journal:
                journal.failed(error, again=False)
            return REFUSED
        return learn(run_dir, skills=skills, skill_lessons=tuple if skills is None else skills.lessons)


def source_of(run_dir: Path, stack: ExitStack) -> BankSource | None:
    """The run's skills, where its recipe shows any; closed with `stack`.

    Raises:
        StoreError: the bank cannot be opened.
        ConfigError: what finds skills cannot work.
    """
    try:
        config = read_config(run_dir / "config.json")
        if not load_recipe(config.learn.recipe, config.learn.overrides).shows_skills:
            return None
    except UserError:
        return None  # settings that cannot be read are the learner's to refuse, in its log and with its exit status
    lower_priority(config.learn)  # before a model is loaded
    return stack.enter_context(
        BankSource(
            run_dir,
            policy=config.policy,
            settings=config.skills,
            min_sessions=config.guards.min_sessions,
        )
    )


if __name__ == "__main__":
    sys.exit(main())
