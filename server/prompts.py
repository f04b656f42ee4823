"""From a request to the ids the engine is given: the ids of the turn it answers, verbatim where the renderer may.

Lessons that stand in the first prompt of a conversation (`server.shown`) stand in all of its prompts, so that keys and
values can be used again. The renderer never sees them: it continues the ids without them, and they are put back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from agentrl.store.records import TurnIds
from agentrl.store.signal_log import SignalLog
from agentrl.teacher.contexts import hint_block
from agentrl.text.renderer import Parent, Renderer
from agentrl.text.turns import without_spans
from agentrl.types import Arm, Lesson, Purpose
from server.conversations import Place
from server.recall import Recall
from server.request import ChatRequest
from server.shown import POSITION, ShownLessons

EXTENDED = "extended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """The ids of a request, and what of them nobody in the conversation said (law 5)."""

    ids: tuple[int, ...]
    built_by: str
    """'extended' (the parent's ids verbatim plus the tail) or 'rendered: REASON'."""
    block_spans: tuple[tuple[int, int], ...] = ()
    """Ids [start, end) that hold lessons; without them the prompt is what it would be had none been shown."""
    lessons: tuple[str, ...] = ()


class Prompts:
    """Builds what the engine reads.

    Args:
        max_len: most ids of prompt and reply together.
        shown: chooses lessons; None begins no conversation with any.
    """

    def __init__(
        self,
        renderer: Renderer,
        log: SignalLog,
        recall: Recall,
        *,
        max_len: int,
        shown: ShownLessons | None = None,
    ) -> None:
        self._renderer = renderer
        self._log = log
        self._recall = recall
        self._max_len = max_len
        self._shown = shown

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids that end a reply of this model's family."""
        return self._renderer.stop_ids

    @property
    def reasoning_end(self) -> int | None:
        """The id behind which an answer begins, where this model's prompts leave reasoning open."""
        return self._renderer.reasoning_end

    async def build(self, chat: ChatRequest, place: Place, arm: Arm) -> Served:
        """Raises RequestError for messages or tools that the model's format cannot hold."""
        before = await self._before(place)
        found = place.found
        parent = None
        if before is not None and found.turn_id == place.parent:
            parent = Parent(
                prompt_ids=without_spans(before.prompt_ids, before.block_spans),
                completion_ids=before.completion_ids,
                num_messages=found.num_messages,
            )
        prompt = self._renderer.prompt(chat.messages, chat.tools, parent)
        bare = Served(ids=prompt.ids, built_by=prompt.built_by)
        if parent is None and place.parent is not None:
            behind = chat.messages[before.num_messages :][:1] if before is not None else ()
            is_other = any(message["role"] == "assistant" for message in behind)
            what = "holds another reply" if is_other else "leaves the answered reply out"
            bare = replace(bare, built_by=f"rendered: the history {what}")
        if before is not None and before.block_spans:
            return await self._goes_on(chat, arm, bare, before)
        lessons = await self._shown.begin(chat, place, arm) if self._shown is not None else ()
        return self._with(bare, lessons)

    async def _goes_on(self, chat: ChatRequest, arm: Arm, bare: Served, before: TurnIds) -> Served:
        """The prompt of a conversation in which lessons stand."""
        # Who evaluates, or names a version, asks what the weights do. A side request reads on: what was sampled stays
        # behind what it was sampled from, and the turn is marked like every other in whose prompt a lesson stands.
        if chat.marks.purpose is not Purpose.TRAIN or arm is not Arm.LEARNING or chat.version is not None:
            return replace(bare, built_by="rendered: without the lessons of the answered prompt")
        if bare.built_by != EXTENDED:
            # Nothing of the parent's can be used again: what is written anew says what is believed today.
            lessons = await self._shown.again(before.shown_lessons) if self._shown is not None else ()
            return self._with(bare, lessons)
        num_hidden = sum(end - start for start, end in before.block_spans)
        if not self._has_room(num_hidden, bare):
            return replace(bare, built_by="rendered: no room for the lessons of the answered prompt")
        known = before.prompt_ids + before.completion_ids
        return replace(
            bare,
            ids=known + bare.ids[len(known) - num_hidden :],
            block_spans=before.block_spans,
            lessons=before.shown_lessons,
        )

    def _with(self, bare: Served, lessons: Sequence[Lesson]) -> Served:
        """The prompt with lessons in it, unless they would take more than half of the room that a reply has."""
        if not lessons:
            return bare
        blocks = [hint_block(lesson.text, POSITION) for lesson in lessons]
        view = self._renderer.insert(bare.ids, len(bare.ids), blocks)
        if not self._has_room(len(view.token_ids) - len(bare.ids), bare):
            return bare
        return replace(
            bare,
            ids=view.token_ids,
            block_spans=view.inserted_spans,
            lessons=tuple(lesson.id for lesson in lessons),
        )

    def _has_room(self, num_ids: int, bare: Served) -> bool:
        """Whether so many ids more leave a reply at least half of what it would have."""
        return 2 * num_ids <= self._max_len - len(bare.ids)

    async def _before(self, place: Place) -> TurnIds | None:
        """The ids of the turn that is answered. Secrets in them are remembered, never written.

        A turn with secrets that is no longer remembered comes back with placeholders; the renderer sees that the
        history says something else and renders it anew.
        """
        if place.parent is None:
            return None
        ids = await self._log.parent(place.parent)
        remembered = self._recall.get(place.parent)
        if ids is None or remembered is None:
            return ids
        prompt_ids, completion_ids = remembered
        return replace(ids, prompt_ids=prompt_ids, completion_ids=completion_ids)
