"""The learner's process: `python -m agentrl.learner.process RUN_DIR`.

Reads RUN_DIR/config.json, learns until SIGTERM, SIGINT or the death of its parent, and can be killed at any moment.
Exit status: 0 stopped, 2 settings that cannot work (starting again would change nothing), 1 anything else.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import IO

from agentrl.config import Config, LearnConfig, read_config
from agentrl.errors import ConfigError, StoreError, UserError
from agentrl.learner.journal import Journal
from agentrl.learner.verifier import Verifier, same_answer
from agentrl.recipes.recipe import Recipe
from agentrl.store.learning_log import LearningLog
from agentrl.teacher.contexts import SkillSource
from agentrl.types import Lesson

STOPPED, FAILED, REFUSED = 0, 1, 2
JOURNAL = "learner.log"
TEACHER = "teacher"
"""Holder of the pin on a version that the recipe names as the teacher."""
PARENT_POLL_S = 0.5
PARENT = "AGENTRL_PARENT"
"""Environment variable with the process id of the supervisor, whose end is the learner's; absent = of the parent."""
LOCK_FILE = "learner.lock"
LOCK_WAIT_S = 30.0
"""How long a learner waits for the end of another: one whose server was killed notices that within half a second, and
finishes its step first."""
LOCK_POLL_S = 0.1


class Ended(BaseException):
    """A signal came before there was anything to finish."""


class StillRunning(UserError):
    """Another learner works on the run; unlike other settings, this one heals by itself."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the learner of the run folder named by the only argument; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m agentrl.learner.process RUN_DIR\n")
        return REFUSED
    return learn(Path(arguments[0]))


def learn(
    run_dir: Path,
    *,
    skills: SkillSource | None = None,
    skill_lessons: Callable[[], Sequence[Lesson]] = tuple,
    verifier: Verifier = same_answer,
    stop: threading.Event | None = None,
) -> int:
    """The learner of a run, to its end.

    Args:
        run_dir: the run's folder, with config.json and log.db.
        skills: where the context "skill" gets skills from.
        skill_lessons: those skills as lessons, which versions are asked for.
        verifier: rewards the answers that a transform samples.
        stop: ends the learner as SIGTERM does; None makes one.
    """
    try:
        journal = Journal(run_dir / JOURNAL, sys.stdout)
    except OSError as error:
        sys.stderr.write(f"{run_dir} is no run folder: {error.strerror}\n")
        return REFUSED
    with journal:
        try:
            config = read_config(run_dir / "config.json")
            lower_priority(config.learn)
            begun = threading.Event()
            with contextlib.suppress(Ended), _ending(stop or threading.Event(), begun) as ended:
                _learn(run_dir, config, journal, skills, skill_lessons, verifier, ended, begun)
        except UserError as error:
            may_heal = isinstance(error, StillRunning)
            journal.failed(error, again=may_heal)
            return FAILED if may_heal else REFUSED
        except Exception as error:
            # Written where the supervisor looks; the traceback goes to stderr with the exit status.
            journal.failed(error, again=True)
            raise
        journal.event("stopped")
    return STOPPED


def lower_priority(settings: LearnConfig) -> None:
    """Gives the process the priority of a learner; one that has a lower one keeps it."""
    os.setpriority(os.PRIO_PROCESS, 0, max(settings.nice, os.getpriority(os.PRIO_PROCESS, 0)))


def _learn(
    run_dir: Path,
    config: Config,
    journal: Journal,
    skills: SkillSource | None,
    skill_lessons: Callable[[], Sequence[Lesson]],
    verifier: Verifier,
    stop: threading.Event,
    begun: threading.Event,
) -> None:
    # Imported here: torch takes seconds to load, and settings that cannot be read should fail before.
    import torch

    from agentrl.learner import checkpoint
    from agentrl.learner.answers_file import AnswersFile
    from agentrl.learner.base_answers import MAX_REPLY, BaseAnswers
    from agentrl.learner.build import Builder
    from agentrl.learner.guard_rules import refuse
    from agentrl.learner.guards import Guards
    from agentrl.learner.lesson_probes import LessonProbes
    from agentrl.learner.loop import LearnLoop
    from agentrl.learner.next_answers import next_answers
    from agentrl.learner.practice import Practice
    from agentrl.learner.rehearsal import Rehearsal
    from agentrl.learner.replay import beside_of
    from agentrl.learner.second_stage import SecondStage
    from agentrl.learner.trainer import Trainer
    from agentrl.learner.usefulness import Usefulness
    from agentrl.recipes.recipe import load_recipe
    from agentrl.store.feeds import HintedTurns, RewardedTurns
    from agentrl.store.versions import VersionStore
    from agentrl.teacher.recall import MAX_REMEMBERED, HintMemory
    from agentrl.text.renderer import load_renderer

    torch.set_num_threads(config.learn.num_threads)
    recipe = load_recipe(config.learn.recipe, config.learn.overrides)
    refuse(config, recipe)
    if recipe.shows_skills and skills is None:
        raise ConfigError(
            f"recipe {recipe.name!r} shows skills to the teacher, but this learner was started without a skill "
            "library: start it by `agentrl learner`, or choose a recipe with context = 'hindsight_hint'"
        )
    with contextlib.ExitStack() as stack:
        stack.enter_context(_alone(run_dir, journal, stop))
        log = stack.enter_context(LearningLog(run_dir))
        model_path = _model_path(run_dir, config, log)
        versions = VersionStore(run_dir, config.policy)
        _keep_teacher(log, config.policy, recipe)
        trainer = Trainer(
            model_path,
            recipe,
            config.learn,
            version_path=versions.path,
            keeps_base=config.guards.max_kl_base > 0,
        )
        checkpoint.check_names(trainer)
        renderer = load_renderer(model_path, thinking_retention=config.thinking_retention)
        positions = [part.params.get("position") for part in recipe.context.parts]
        for position in positions:
            if position is None or position in renderer.positions:
                continue
            raise ConfigError(
                f"recipe {recipe.name!r} shows the teacher a block at {position!r}, which agentrl cannot find in "
                f"prompts of the family {renderer.family!r}: use a model with a ChatML template, or a recipe without "
                "a context"
            )
        rewarded = stack.enter_context(RewardedTurns(run_dir, config.policy))
        hinted = stack.enter_context(HintedTurns(run_dir, config.policy, most=MAX_REMEMBERED))
        builder = Builder(
            recipe=recipe,
            renderer=renderer,
            max_len=trainer.max_len,
            skills=skills,
            memory=HintMemory(),
            stage=SecondStage.of(trainer, renderer, verifier=verifier),
            later=partial(next_answers, log),
            rehearsal=Rehearsal.of(trainer, renderer),
            practice=Practice.of(trainer, renderer, log.corrected_beginnings),
            usefulness=Usefulness.of(trainer, renderer),
        )
        guards = stack.enter_context(Guards(run_dir, config, recipe, log=log, journal=journal))
        loop = LearnLoop(
            run_dir,
            config,
            trainer=trainer,
            builder=builder,
            log=log,
            versions=versions,
            rewarded=rewarded,
            hinted=hinted,
            journal=journal,
            beside=beside_of(
                recipe,
                log=log,
                builder=builder,
                writer=renderer,
                policy=config.policy,
                seed=config.learn.seed,
            ),
            probes=LessonProbes(log, renderer, trainer, policy=config.policy, skills=skill_lessons),
            guards=guards,
            answers=BaseAnswers(
                renderer.stop_ids,
                AnswersFile(
                    run_dir,
                    policy=config.policy,
                    base=model_path,
                    vocab_size=trainer.policy.head().shape[0],
                    max_reply=MAX_REPLY,
                    journal=journal,
                ),
            ),
        )
        loop.start()
        begun.set()
        loop.run(stop)


def _model_path(run_dir: Path, config: Config, log: LearningLog) -> Path:
    """Folder of version 0; a run's first learner begins the line with it."""
    first = log.version(config.policy, 0)
    if first is not None:
        return run_dir / first.path
    if config.model == "nano":
        # By name and only here: the learner trains any model and is built upon none.
        folder: Path = importlib.import_module("agentrl.nano").weights_dir()
    else:
        folder = Path(config.model).expanduser().resolve()
    if not (folder / "config.json").is_file():
        raise ConfigError(f"model = {config.model!r}: {folder} is no model folder, it has no config.json")
    log.ensure_base(config.policy, str(folder))
    return folder


def _keep_teacher(log: LearningLog, policy: str, recipe: Recipe) -> None:
    """Pins the version that is the teacher, so that its files stay (law 8), and frees one that was."""
    teacher = getattr(recipe.sync, "version", 0)
    for number, holders in log.pins(policy).items():
        if TEACHER in holders and number != teacher:
            log.unpin(policy, number, TEACHER)
    if teacher:
        try:
            log.pin(policy, teacher, TEACHER)
        except StoreError as error:
            raise ConfigError(
                f"sync 'fixed' names version {teacher} as the teacher, but {error}: name one that `agentrl versions "
                "--json` shows as on_disk, or 0"
            ) from error


@contextlib.contextmanager
def _alone(run_dir: Path, journal: Journal, stop: threading.Event) -> Iterator[None]:
    """Holds the learner's lock: a second learner would take the first one's claims for those of a dead one. The
    system frees it when the process ends, however it ends."""
    deadline = time.monotonic() + LOCK_WAIT_S
    with (run_dir / LOCK_FILE).open("a") as lock:
        if not _locked(lock):
            journal.event(
                "waiting", message=f"another learner still works on {run_dir}", at_most_s=LOCK_WAIT_S
            )
        while not _locked(lock):
            if time.monotonic() > deadline or stop.wait(LOCK_POLL_S):
                raise StillRunning(f"another learner works on {run_dir}: stop it first")
        yield


def is_at_work(run_dir: Path) -> bool:
    """Whether a learner holds the run."""
    path = run_dir / LOCK_FILE
    if not path.exists():
        return False
    with path.open("a") as lock:
        return not _locked(lock)


def _locked(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _ending(stop: threading.Event, begun: threading.Event) -> Iterator[threading.Event]:
    """Sets `stop` on SIGTERM, SIGINT and when the parent process is gone; a signal before `begun` raises Ended."""

    def end(_signal: int, _frame: FrameType | None) -> None:
        stop.set()
        if not begun.is_set():
            # Loading torch and a model takes seconds in which nobody looks at `stop`.
            raise Ended

    # A parent that died while we started is known by its number alone: we have another one by now.
    parent = int(os.environ.get(PARENT, os.getppid()))
    done = threading.Event()

    def watch() -> None:
        while not done.wait(PARENT_POLL_S):
            if os.getppid() != parent:
                stop.set()
                return

    in_main = threading.current_thread() is threading.main_thread()
    before = (
        {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)} if in_main else {}
    )
    watcher = threading.Thread(target=watch, name="agentrl-learner-parent", daemon=True)
    watcher.start()
    try:
        yield stop
    finally:
        done.set()
        watcher.join()
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
