"""Lessons in served prompts: what a conversation begins with until the weights hold it (law 5: `learn.show_lessons`).

    shelf ──approved, believed, not held──> of the scope, like the request ──newest, few──> a conversation's start

A share of the conversations is drawn, by a keyed hash, in which lessons may stand; never in the control arm, in an
evaluation or off the record, in groups of episodes that the recipe compares, or where a version is named: who names one
asks what its weights do. All others go without and teach the weights. A lesson leaves the conversations that begin once
its probe has passed, or found that it changes nothing, and comes back where a later version breaks it; one from
elsewhere that came with no request has no probe and stands until it is retired. What a conversation began with stays in
its prompts (`server.prompts`), and in those of side requests that go on from one, which begin with none of their own.

The files are read beside the requests, which are answered from the last look that ended.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from agentrl.config import Config
from agentrl.errors import ConfigError, StoreError
from agentrl.learner.hints import hint_option
from agentrl.learner.trust import Trust
from agentrl.recipes.recipe import Recipe, load_recipe
from agentrl.signals.lessons import LIKENESS
from agentrl.signals.standing import standing
from agentrl.store.learning_log import LearningLog
from agentrl.store.records import group_key
from agentrl.teacher.contexts import hint_block, num_standing
from agentrl.teacher.recall import alike_unanswered, asked_words, matter, same_matter
from agentrl.types import JSON, Arm, Lesson, MatchedBy, Purpose, TurnKind
from server.conversations import Place
from server.request import ChatRequest
from server.run_folder import drawn
from server.shelf import Shelf, look

logger = logging.getLogger(__name__)

POSITION: Final = "system"
"""The one place that every prompt of a conversation has, also where it is rendered anew."""
POLL_S: Final = 0.1
"""How often one looks whether the files have changed."""
REST: Final = 9.0
"""They are read again after at least this many times as long as reading took."""
MAX_ALIKE: Final = 256
"""Newest lessons for like requests that are weighed against each other: each with each, while the loop waits."""


class Writer(Protocol):
    """`agentrl.text.renderer.ChatRenderer` is one."""

    def encode_plain(self, text: str) -> list[int]: ...


def refuse_to_show(config: Config, recipe: Recipe) -> None:
    """Raises ConfigError where lessons that are shown would never be learned, and so never leave (law 9)."""
    if config.learn.show_lessons and hint_option(recipe) is None:
        raise ConfigError(
            f"learn.show_lessons shows lessons until they are learned, but recipe {recipe.name!r} teaches no hints: "
            "choose one whose context is hindsight_hint (hint_opsd), or leave learn.show_lessons out"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A lesson that conversations may begin with."""

    lesson: Lesson
    at: float
    """When it was last given, Unix seconds."""
    asked: tuple[tuple[frozenset[str], int], ...]
    """The requests that it was learned from: their words, and how many of these are arguments."""
    by_user: bool
    """Whether a user said it in words."""


class ShownLessons:
    """Chooses what conversations begin with. Reads the run's files, in a thread, and writes nothing.

    Args:
        log: gives learning.db, None while no learner has made it.
        writer: of the policy's model.
        secret: the run's.
    """

    def __init__(
        self,
        config: Config,
        *,
        log: Callable[[], LearningLog | None],
        writer: Writer,
        secret: bytes,
    ) -> None:
        self._learn = config.learn
        self._policy = config.policy
        self._trust = Trust(weights=config.guards.trust)
        self._min_sessions = config.guards.min_sessions
        recipe = load_recipe(config.learn.recipe, config.learn.overrides)
        self._compares_groups = recipe.group_size > 1
        self._wishes_stand = num_standing(recipe.context) > 0
        self._log = log
        self._writer = writer
        self._secret = secret
        self._shelf = Shelf()
        self._candidates: dict[str, tuple[Candidate, ...]] = {}
        """By scope."""
        self._looked = asyncio.Event()
        self._trouble = ""

    async def follow(self) -> None:
        """Until cancelled: looks at the files."""
        await self.look()  # reads all there is; those that follow read what is new
        while True:
            began = time.monotonic()
            await self.look()
            await asyncio.sleep(max(POLL_S, REST * (time.monotonic() - began)))

    async def look(self) -> None:
        """Looks once. Files that cannot be read cost what is new in them, never a request."""
        try:
            self._shelf, self._candidates = await asyncio.to_thread(self._read, self._shelf, self._candidates)
            self._trouble = ""
        except StoreError as error:
            if str(error) != self._trouble:
                logger.error("which lessons there are cannot be read: %s", error)
            self._trouble = str(error)
        finally:
            self._looked.set()

    async def begin(self, chat: ChatRequest, place: Place, arm: Arm) -> list[Lesson]:
        """The lessons that a conversation begins with, the oldest first; none where this request begins no
        conversation in which lessons may stand."""
        if not self._may_begin(chat, place, arm):
            return []
        # Before the first look, one would begin without what was learned before the server was started.
        await self._looked.wait()
        return self._chosen(chat.caller.scope, chat.messages)

    async def again(self, lesson_ids: Sequence[str]) -> list[Lesson]:
        """Those of a conversation's lessons that are still approved, whether or not they have been learned since."""
        await self._looked.wait()
        return [self._shelf.approved[name] for name in lesson_ids if name in self._shelf.approved]

    def report(self) -> JSON:
        """For `agentrl status`: how many lessons conversations may begin with now."""
        return {
            "share": self._learn.show_share,
            "num_lessons": sum(len(found) for found in self._candidates.values()),
        }

    def _may_begin(self, chat: ChatRequest, place: Place, arm: Arm) -> bool:
        return (
            chat.marks.purpose is Purpose.TRAIN
            and arm is Arm.LEARNING
            and place.kind is TurnKind.MAIN
            and place.parent is None
            and place.matched_by is MatchedBy.NONE
            and chat.version is None
            # Episodes that are compared have one prompt.
            and not (self._compares_groups and group_key(place.session) is not None)
            and may_show(
                self._secret, self._learn.show_share, chat.caller.scope, place.session, place.task_key
            )
        )

    # choosing

    def _chosen(self, scope: str, messages: Sequence[JSON]) -> list[Lesson]:
        asked = asked_words(messages)
        found = [
            (likeness, candidate.at, candidate.lesson)
            for candidate in self._candidates.get(scope, ())
            if (likeness := self._likeness(asked, candidate)) >= LIKENESS
        ]
        # Of what contradicts each other the newer word stands, however like the requests are.
        current: list[tuple[float, float, Lesson]] = []
        matters: list[frozenset[str]] = []
        for one in sorted(found, key=lambda item: item[1], reverse=True)[:MAX_ALIKE]:
            about = matter(one[2].text)
            if not any(same_matter(about, other) for other in matters):
                current.append(one)
                matters.append(about)
        chosen: list[tuple[float, Lesson]] = []
        left = self._learn.max_shown_tokens
        for _, at, lesson in sorted(current, key=lambda item: item[:2], reverse=True):
            if len(chosen) == self._learn.max_shown:
                break
            length = len(self._writer.encode_plain("\n\n" + hint_block(lesson.text, POSITION).text))
            if length <= left:
                chosen.append((at, lesson))
                left -= length
        return [lesson for _, lesson in sorted(chosen, key=lambda item: item[0])]

    def _likeness(self, asked: frozenset[str], candidate: Candidate) -> float:
        """To the likest of the requests that the lesson was learned from; 1 for a user's wish where these stand for
        all requests."""
        if self._wishes_stand and candidate.by_user:
            return 1.0
        return max(alike_unanswered(asked, words, number) for words, number in candidate.asked)

    # the files; in a thread

    def _read(
        self, before: Shelf, candidates: dict[str, tuple[Candidate, ...]]
    ) -> tuple[Shelf, dict[str, tuple[Candidate, ...]]]:
        log = self._log()
        if log is None:
            return before, candidates
        shelf = look(log, before, policy=self._policy, approve=self._learn.approve)
        if shelf.approved is before.approved:
            return shelf, candidates
        found: dict[str, list[Candidate]] = {}
        for lesson in shelf.approved.values():
            if (candidate := self._candidate(lesson, shelf)) is not None:
                found.setdefault(lesson.scope, []).append(candidate)
        return shelf, {scope: tuple(of_scope) for scope, of_scope in found.items()}

    def _candidate(self, lesson: Lesson, shelf: Shelf) -> Candidate | None:
        """None for a lesson that the weights hold or that has no effect, or that is not believed: what came from
        elsewhere was read and approved; of all else somebody who is listened to must vouch."""
        if standing(lesson)[0] in ("holds", "no effect"):
            return None
        heard = [
            said
            for said in shelf.given.get(lesson.id, ())
            if said.turn_id not in shelf.doubted and self._trust.of(said.source, lesson.scope) > 0
        ]
        if lesson.origin != "import" and len({said.session for said in heard}) < self._min_sessions:
            return None
        asked = {(said.words, said.num_arguments) for said in heard}
        return Candidate(
            lesson=lesson,
            at=max((said.at for said in heard), default=lesson.created_at),
            asked=tuple(asked) or ((frozenset(lesson.situation), 1),),
            by_user=any(said.by_user for said in heard),
        )


def may_show(secret: bytes, share: float, scope: str, session: str, task_key: str) -> bool:
    """Whether lessons may stand in a conversation: of one session those of one task all have them, or none."""
    return drawn(secret, "shown", scope, session, task_key) < share
