"""Lessons in served prompts: what a conversation begins with until the weights hold it (law 5: `learn.show_lessons`).

    shelf ──approved, believed, not held──> of the scope, like the request ──newest, few──> a conversation's start

A share of the conversations is drawn, by a keyed hash, in which lessons may stand; never in the control arm, in an
evaluation or off the record, in groups of episodes that the recipe compares, in side requests or where a version was
named. All others go without and teach the weights. A lesson leaves the conversations that begin once its probe has
passed, and comes back where a later version breaks it; one that names nothing to be searched for has no probe and
stands until it is retired. What a conversation began with stays in its prompts (`server.prompts`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from agentrl.config import Config
from agentrl.errors import ConfigError, StoreError
from agentrl.learner.hints import hint_option
from agentrl.learner.trust import Trust
from agentrl.recipes.recipe import Recipe, load_recipe
from agentrl.signals.lessons import LIKENESS
from agentrl.store.learning_log import LearningLog
from agentrl.store.records import group_key
from agentrl.teacher.contexts import hint_block, num_standing
from agentrl.teacher.recall import alike_unanswered, asked_words, same_matter
from agentrl.types import JSON, Arm, Lesson, MatchedBy, Purpose, TurnKind
from server.conversations import Place
from server.lessons_pages import standing
from server.request import ChatRequest
from server.run_folder import drawn
from server.shelf import Said, Shelf, look

logger = logging.getLogger(__name__)

POSITION: Final = "system"
"""The one place that every prompt of a conversation has, also where it is rendered anew."""
REST: Final = 9.0
"""The files are read again after at least this many times as long as reading it took."""


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


class ShownLessons:
    """Chooses what conversations begin with. Reads the run's files, in a thread, and writes nothing.

    Args:
        log: gives learning.db, None while no learner has made it.
        writer: of the policy's model.
        secret: the run's.
        clock: seconds of a monotonic clock.
    """

    def __init__(
        self,
        config: Config,
        *,
        log: Callable[[], LearningLog | None],
        writer: Writer,
        secret: bytes,
        clock: Callable[[], float] = time.monotonic,
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
        self._clock = clock
        self._shelf = Shelf()
        self._reading = asyncio.Lock()
        self._rests_until = -float("inf")

    async def begin(self, chat: ChatRequest, place: Place, arm: Arm) -> list[Lesson]:
        """The lessons that a conversation begins with, the oldest first; none where this request begins no
        conversation in which lessons may stand."""
        if not self._may_begin(chat, place, arm):
            return []
        await self._refresh()
        return self._chosen(chat.caller.scope, chat.messages)

    async def again(self, lesson_ids: Sequence[str]) -> list[Lesson]:
        """Those of a conversation's lessons that are still approved, whether or not they have been learned since."""
        await self._refresh()
        return [self._shelf.approved[name] for name in lesson_ids if name in self._shelf.approved]

    async def report(self) -> JSON:
        """For `agentrl status`: how many lessons conversations may begin with now."""
        await self._refresh()
        return {"share": self._learn.show_share, "num_lessons": len(self._candidates())}

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

    def _candidates(self) -> list[Lesson]:
        """Approved lessons that are believed and that the weights do not hold."""
        return [
            lesson
            for lesson in self._shelf.approved.values()
            if standing(lesson)[0] != "holds" and self._is_believed(lesson)
        ]

    def _is_believed(self, lesson: Lesson) -> bool:
        """What came from elsewhere was read and approved; of all else somebody who is listened to must vouch."""
        sessions = {said.session for said in self._heard(lesson)}
        return lesson.origin == "import" or len(sessions) >= self._min_sessions

    def _heard(self, lesson: Lesson) -> list[Said]:
        return [
            said
            for said in self._shelf.given.get(lesson.id, ())
            if said.turn_id not in self._shelf.doubted and self._trust.of(said.source, lesson.scope) > 0
        ]

    def _chosen(self, scope: str, messages: Sequence[JSON]) -> list[Lesson]:
        asked = asked_words(messages)
        found = [
            (likeness, self._newest(lesson), lesson)
            for lesson in self._candidates()
            if lesson.scope == scope and (likeness := self._likeness(asked, lesson)) >= LIKENESS
        ]
        # Of what contradicts each other the newer word stands, however like the requests are.
        current: list[tuple[float, float, Lesson]] = []
        for one in sorted(found, key=lambda item: item[1], reverse=True):
            if not any(same_matter(one[2].text, other[2].text) for other in current):
                current.append(one)
        chosen: list[tuple[float, Lesson]] = []
        left = self._learn.max_shown_tokens
        for _, at, lesson in sorted(current, key=lambda item: item[:2], reverse=True):
            length = len(self._writer.encode_plain("\n\n" + hint_block(lesson.text, POSITION).text))
            if length <= left and len(chosen) < self._learn.max_shown:
                chosen.append((at, lesson))
                left -= length
        return [lesson for _, lesson in sorted(chosen, key=lambda item: item[0])]

    def _likeness(self, asked: frozenset[str], lesson: Lesson) -> float:
        """To the likest of the requests that the lesson was learned from; 1 for a user's wish where these stand for
        all requests."""
        heard = self._heard(lesson)
        if self._wishes_stand and any(said.by_user for said in heard):
            return 1.0
        known = [(said.words, said.num_arguments) for said in heard] or [(frozenset(lesson.situation), 1)]
        return max(alike_unanswered(asked, words, number) for words, number in known)

    def _newest(self, lesson: Lesson) -> float:
        return max((said.at for said in self._heard(lesson)), default=lesson.created_at)

    # the files

    async def _refresh(self) -> None:
        """A log that cannot be read costs what is new in it, never the request."""
        async with self._reading:
            began = self._clock()
            if began < self._rests_until:
                return
            try:
                self._shelf = await asyncio.to_thread(self._read, self._shelf)
            except StoreError as error:
                logger.error("which lessons there are cannot be read: %s", error)
            ended = self._clock()
            self._rests_until = ended + REST * (ended - began)

    def _read(self, before: Shelf) -> Shelf:
        log = self._log()
        return before if log is None else look(log, before, policy=self._policy, approve=self._learn.approve)


def may_show(secret: bytes, share: float, scope: str, session: str, task_key: str) -> bool:
    """Whether lessons may stand in a conversation: of one session those of one task all have them, or none."""
    return drawn(secret, "shown", scope, session, task_key) < share
