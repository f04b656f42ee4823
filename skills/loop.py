"""The skills loop: episodes that have ended go to a summariser, what it writes goes into the library and the bank.

    Episodes.ended() -> Summariser.summarise() -> SkillLibrary.learn() -> SkillBank.close_episode()
          ^                    |
          |                    └ no skill, and counted: failed; trick, a call that got round a check; refused, a text
          |                      that hides something or of which no line keeps to the episode (`skills.line_gate`);
          |                      nothing, where there is nothing to learn
          └── until the bank knows the episode: kill the loop at any point and it is done again, once

A skill written while the learner is at iteration k is usable from k + 1. Files are read and written in a thread:
serving and learning wait for none of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from agentrl.config import SkillsConfig
from agentrl.store.episodes import Episode, Episodes
from agentrl.text.injection import hides
from agentrl.text.redaction import is_blanked
from skills.bank import SkillBank, Source
from skills.figures import LINES_LEFT_OUT
from skills.library import SKILLS_FOLDER, Draft, Origin, SkillLibrary
from skills.line_gate import Sifted, sift
from skills.request import Request
from skills.skill_file import MAX_BODY, MAX_DESCRIPTION, MAX_NAME, SkillError, SkillState
from skills.summarise import Summariser, SummariserError, trick_in

T = TypeVar("T")
logger = logging.getLogger(__name__)

POLL_S = 1.0
BATCH = 16
"""Episodes read at once."""
MAX_TRIES = 3
"""Of one summary: models have outages."""


@dataclass(slots=True)
class _Files:
    """What a loop has open."""

    episodes: Episodes
    bank: SkillBank
    root: Path
    libraries: dict[str, SkillLibrary] = field(default_factory=dict)

    def library(self, scope: str) -> SkillLibrary:
        return self.libraries.setdefault(scope, SkillLibrary(self.root, scope))


class SkillLoop:
    """Owns the task that writes skills. `run` ends only when cancelled or when a file cannot be read or written.

    Args:
        run_dir: the run's folder.
        policy: the line of versions whose episodes are summarised.
        settings: the section `skills`.
        summariser: writes the skills.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        policy: str,
        settings: SkillsConfig,
        summariser: Summariser,
        poll_s: float = POLL_S,
    ) -> None:
        self._run_dir = run_dir
        self._policy = policy
        self._settings = settings
        self._summariser = summariser
        self._poll_s = poll_s
        self._tries: dict[tuple[str, str], int] = {}
        """Failed summaries of episodes that are tried again; a new process begins anew."""

    async def run(self) -> None:
        async with self._opened() as (files, thread):
            while True:
                num_found, num_done = await self._step(files, thread)
                if num_found == 0 or num_done < num_found:
                    await asyncio.sleep(self._poll_s)

    async def once(self) -> int:
        """Deals with every episode that has ended; how many there were."""
        async with self._opened() as (files, thread):
            total = 0
            while True:
                num_found, num_done = await self._step(files, thread)
                total += num_done
                if num_found == 0:
                    return total

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[tuple[_Files, Executor]]:
        """The files, and the one thread that uses them. A cancelled call goes on in its thread: the files are closed
        when that has ended, because a connection that is closed while it is used takes the process with it."""
        with ExitStack() as stack, ThreadPoolExecutor(1, "agentrl-skills") as thread:
            yield await _in(thread, self._open, stack), thread

    def _open(self, stack: ExitStack) -> _Files:
        root = self._run_dir / SKILLS_FOLDER
        bank = stack.enter_context(SkillBank(root, mean_of=self._settings.mean_of))
        return _Files(
            episodes=stack.enter_context(Episodes(self._run_dir, self._policy)), bank=bank, root=root
        )

    async def _step(self, files: _Files, thread: Executor) -> tuple[int, int]:
        """How many episodes were found, and how many of them dealt with; the others come again."""
        found = await _in(thread, files.episodes.ended, files.bank.is_known, BATCH)
        num_done = 0
        for episode in found:
            key = (episode.scope, episode.session)
            draft, outcome, detail = await self._summarise(episode)
            if outcome == "failed":
                self._tries[key] = self._tries.get(key, 0) + 1
                if self._tries[key] < MAX_TRIES:
                    continue
            self._tries.pop(key, None)
            await _in(thread, self._keep, files, episode, draft, outcome, detail)
            num_done += 1
        return len(found), num_done

    async def _summarise(self, episode: Episode) -> tuple[Draft | None, str, str]:
        """The skill that an episode teaches; without one, what came of it and why."""
        try:
            trick = trick_in(episode)
            if trick is not None:
                return None, "trick", f"a call {trick}"
            draft = await self._summariser.summarise(episode)
            fault = None if draft is None else fault_of(draft)
            sifted = Sifted(draft=draft)
            if draft is not None and fault is None and not draft.is_quoted:
                sifted = sift(draft, episode)
        except Exception as error:  # noqa: BLE001 - a summariser is anybody's code, and one episode must not stop all
            why = str(error) if isinstance(error, SummariserError) else f"{type(error).__name__}: {error}"
            logger.warning(
                "summariser %s failed on session %s: %s", self._summariser.name, episode.session, why
            )
            return None, "failed", why
        if fault is not None:
            return None, "refused", f"the text holds {fault}"
        why = "; ".join(dict.fromkeys(sifted.faults))
        detail = f"{len(sifted.faults)} {LINES_LEFT_OUT}: {why}" if why else ""
        return sifted.draft, "refused" if why and sifted.draft is None else "nothing", detail

    def _keep(self, files: _Files, episode: Episode, draft: Draft | None, outcome: str, detail: str) -> None:
        """Writes the skill first and the record last: what happens in between is done again."""
        name = None
        if draft is not None:
            state = SkillState.PROPOSED if self._settings.review else SkillState.ACTIVE
            origin = Origin(turn_ids=episode.turn_ids, version=episode.version, score=episode.reward)
            try:
                skill, outcome = files.library(episode.scope).learn(draft, origin, state=state)
                name = None if outcome == "retired" else skill.name
            except SkillError as error:
                outcome, detail = "failed", str(error)
                logger.warning("the skill of session %s was not kept: %s", episode.session, error)
        files.bank.close_episode(
            episode.scope,
            Source(
                session=episode.session,
                task_key=episode.task_key,
                request=Request.of(episode.steps[0].turn),
                turn_ids=episode.turn_ids,
                reward=episode.reward,
                draft="" if draft is None else draft.body,
            ),
            last_seq=episode.last_seq,
            outcome=outcome,
            detail=detail,
            name=name,
            is_new=outcome in ("written", "revised"),
        )
        self._retire(files, episode.scope, episode.task_key)

    def _retire(self, files: _Files, scope: str, task_key: str) -> None:
        """Retires first and drops last, so that a skill dropped is never left active."""
        for name in files.bank.crowded(scope, task_key, self._settings.max_per_task):
            if not files.bank.is_elsewhere(scope, task_key, name):
                try:
                    files.library(scope).change(name, SkillState.RETIRED)
                except SkillError as error:  # a hand deleted or broke it: it teaches nothing as it is
                    logger.warning("the skill %s was not retired: %s", name, error)
            files.bank.drop(scope, task_key, name)


def fault_of(draft: Draft) -> str | None:
    """What a draft holds that no teacher is to be shown; None for nothing.

    Raises:
        SummariserError: it is too long to be a skill, or to be looked through while others wait.
    """
    if len(draft.name) > MAX_NAME or len(draft.description) > MAX_DESCRIPTION or len(draft.body) > MAX_BODY:
        raise SummariserError(
            f"the skill is too long: at most {MAX_NAME} characters of name, {MAX_DESCRIPTION} of description and "
            f"{MAX_BODY} of text"
        )
    if is_blanked(f"{draft.description}\n{draft.body}"):
        return "what redaction left of a secret"
    return hides(f"{draft.name}\n{draft.body}")


async def _in(thread: Executor, function: Callable[..., T], *arguments: object) -> T:
    return await asyncio.get_running_loop().run_in_executor(thread, function, *arguments)
