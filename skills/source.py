"""Skills for the teacher: the `SkillSource` of a learner, backed by the library and the bank of its run.

In each iteration (the building of one step) a task gets one skill, so that all turns of a group are taught with the
same one: of the task's own bank by UCB1, each skill once first; of a task without a bank, of those found by likeness,
by the same rule. What was shown for which turn is on record, text included, before the step is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from agentrl.closing import Closing
from agentrl.config import SkillsConfig
from agentrl.learner.quarantine import sign_of
from agentrl.signals.lessons import of_skill
from agentrl.store.account import SET_ASIDE, Reason
from agentrl.store.database import LEARNING_NAME
from agentrl.store.episodes import Episodes
from agentrl.store.learning_log import LearningLog
from agentrl.store.log_reader import LogReader
from agentrl.store.records import group_key
from agentrl.types import Lesson, Signal, Skill, Turn
from skills.bank import Selection, SkillBank
from skills.embed import Embedder
from skills.library import SKILLS_FOLDER, SkillLibrary, vouched
from skills.request import Request
from skills.retrieve import SkillIndex
from skills.skill_file import SkillFile, SkillState, digest
from skills.ucb import choose

MAX_FOUND = 8
"""Skills found by likeness that a task without a bank chooses from."""
Listened = Callable[[Turn, Sequence[Signal]], Sequence[Signal]]
QUARANTINED = f"rejected:{Reason.CONTRADICTED}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """The active skills of a scope, as they stood when the iteration began."""

    skills: dict[str, SkillFile]
    index: SkillIndex


def first_turn(log: LogReader, skill: SkillFile) -> Turn | None:
    """The first turn that a skill was written from; None for a skill from elsewhere."""
    return log.turn(skill.turn_ids[0]) if skill.turn_ids else None


class BankSource(Closing):
    """`agentrl.teacher.contexts.SkillSource`. `close` is idempotent.

    Args:
        run_dir: the run's folder.
        policy: the line of versions that is trained.
        settings: the section `skills`.
        min_sessions: `guards.min_sessions`: episodes that must have said what a skill says before it is shown.

    Raises:
        StoreError: the log or the bank cannot be opened.
        ConfigError: this Python's SQLite lacks FTS5, or the model of `skills.embeddings` cannot be loaded.
    """

    def __init__(self, run_dir: Path, *, policy: str, settings: SkillsConfig, min_sessions: int = 1) -> None:
        self._root = run_dir / SKILLS_FOLDER
        self._settings = settings
        self._min_sessions = min_sessions
        self._is_doubted: Callable[[str], bool] = lambda turn_id: False
        self._listened: Listened = lambda turn, signals: signals
        self._libraries: dict[str, SkillLibrary] = {}
        self._known: dict[str, _Known] = {}
        self._run_dir = run_dir
        self._log: LearningLog | None = None
        self._set_aside: dict[str, bool] = {}
        """By turn, as of this iteration."""
        self._settled: set[tuple[str, str]] = set()
        """The tasks whose rewards were looked at in this iteration."""
        with ExitStack() as stack:
            self._episodes = stack.enter_context(Episodes(run_dir, policy))
            self._bank = stack.enter_context(SkillBank(self._root, mean_of=settings.mean_of))
            # What cannot find skills is told of at the start, not at the first new task.
            SkillIndex((), {}).close()
            self._embedder = None if settings.embeddings is None else Embedder(settings.embeddings)
            self._stack = stack.pop_all()

    def heed(self, is_doubted: Callable[[str], bool], listened: Listened) -> None:
        """Asks from now on of each turn whether what was said of it is doubted, and which of it is listened to."""
        self._is_doubted, self._listened = is_doubted, listened

    def begin(self) -> None:
        """A new iteration: what was written since the last one may be used from now on."""
        self._forget()
        self._bank.begin_iteration()

    def skills(self, turn: Turn) -> Sequence[Skill]:
        """The skill of the turn's task in this iteration; none where nothing fits."""
        scope, task = turn.scope, turn.task_key
        known = self._of_scope(scope)
        if (scope, task) not in self._settled:
            self._settled.add((scope, task))
            self._bank.settle(scope, task, lambda session: self._reward(scope, session))
        selection = self._bank.selected(scope, task)
        if selection is None:
            selection = self._select(turn, known)
        elif selection.name not in known.skills or not self._is_usable(turn, known.skills[selection.name]):
            selection = None
        if selection is None:
            return ()
        self._bank.teach(selection, turn.id, turn.session, self._reward(scope, turn.session))
        skill = known.skills[selection.name]
        (arm,) = self._bank.arms(scope, task, [skill.name])
        return (
            Skill(
                name=skill.name,
                description=skill.description,
                body=self._text(scope, skill),
                turn_ids=skill.turn_ids,
                version=skill.version,
                num_selected=arm.num_selected,
                mean_reward=arm.mean_reward,
            ),
        )

    def lessons(self) -> list[Lesson]:
        """The active skills of the scopes that were taught, each with the first turn that it was written from."""
        return [
            of_skill(scope, skill.name, skill.body, first_turn(self._episodes, skill))
            for scope, library in self._libraries.items()
            for skill in library.all(SkillState.ACTIVE)
        ]

    def _reward(self, scope: str, session: str) -> float | None:
        """How an episode went: the environment's newest reward; without one the sign of what was said last of one of
        its turns and is believed, as the pass rates have it."""
        ended = self._episodes.reward(scope, session)
        if ended is not None:
            return ended
        for turn, signals in self._episodes.said(scope, session):
            sign = 0 if self._is_doubted(turn.id) else sign_of(self._listened(turn, signals))
            if sign:
                return float(sign)
        return None

    def _select(self, turn: Turn, known: _Known) -> Selection | None:
        own = [name for name in self._bank.names_of(turn.scope, turn.task_key) if name in known.skills]
        names = [name for name in own if self._is_usable(turn, known.skills[name])]
        if not names:
            found = known.index.find(Request.of(turn), self._settings, len(own) + MAX_FOUND)
            names = [name for name in found if self._is_usable(turn, known.skills[name])][:MAX_FOUND]
        arm = choose(self._bank.arms(turn.scope, turn.task_key, names), self._settings.exploration)
        if arm is None:
            return None
        body = self._text(turn.scope, known.skills[arm.name])
        return self._bank.select(turn.scope, turn.task_key, arm.name, digest=digest(body), body=body)

    def _is_usable(self, turn: Turn, skill: SkillFile) -> bool:
        group = group_key(turn.session)

        def counts(session: str, turn_ids: Sequence[str]) -> bool:
            is_own = session == turn.session or (group is not None and group_key(session) == group)
            return not is_own and self._is_believed(session, turn_ids)

        return self._bank.is_usable(turn.scope, skill.name, counts) and bool(self._text(turn.scope, skill))

    def _text(self, scope: str, skill: SkillFile) -> str:
        """What of a skill's text enough episodes said; what a hand wrote nobody else needs to say."""
        if self._min_sessions == 1 or skill.is_edited:
            return skill.body
        return vouched(
            skill.body, self._bank.drafts(scope, skill.name, self._is_believed), self._min_sessions
        )

    def _is_believed(self, session: str, turn_ids: Sequence[str]) -> bool:
        """Whether nothing speaks against what an episode teaches."""
        del session
        return not any(self._is_set_aside(turn_id) for turn_id in turn_ids)

    def _is_set_aside(self, turn_id: str) -> bool:
        """Whether a turn went with a version that was rolled back or stopped by the gate: what it taught the weights is
        undone, and a skill is not to teach it again. Or whether it is in quarantine, or would be if it were claimed."""
        if self._is_doubted(turn_id):
            return True
        if self._log is None:
            if not (self._run_dir / LEARNING_NAME).is_file():
                return False  # nothing was trained, so nothing was set aside
            self._log = self._stack.enter_context(LearningLog(self._run_dir, read_only=True))
        if turn_id not in self._set_aside:
            self._set_aside[turn_id] = self._log.fate(turn_id) in (*SET_ASIDE, QUARANTINED)
        return self._set_aside[turn_id]

    def _of_scope(self, scope: str) -> _Known:
        if scope not in self._known:
            library = self._libraries.setdefault(scope, SkillLibrary(self._root, scope))
            active = library.all(SkillState.ACTIVE)
            self._known[scope] = _Known(
                skills={skill.name: skill for skill in active},
                index=SkillIndex(active, self._bank.requests(scope), self._embedder),
            )
        return self._known[scope]

    def _forget(self) -> None:
        self._set_aside.clear()
        self._settled.clear()
        for known in self._known.values():
            known.index.close()
        self._known.clear()

    def close(self) -> None:
        self._forget()
        self._stack.close()
