"""From a request to the ids the engine is given: the ids of the turn it answers, verbatim where the renderer may."""

from __future__ import annotations

from dataclasses import replace

from agentrl.store.signal_log import SignalLog
from agentrl.text.renderer import Parent, Prompt, Renderer
from server.conversations import Place
from server.recall import Recall
from server.request import ChatRequest


class Prompts:
    def __init__(self, renderer: Renderer, log: SignalLog, recall: Recall) -> None:
        self._renderer = renderer
        self._log = log
        self._recall = recall

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids that end a reply of this model's family."""
        return self._renderer.stop_ids

    @property
    def reasoning_end(self) -> int | None:
        """The id behind which an answer begins, where this model's prompts leave reasoning open."""
        return self._renderer.reasoning_end

    async def build(self, chat: ChatRequest, place: Place) -> Prompt:
        """Raises RequestError for messages or tools that the model's format cannot hold."""
        parent = await self._parent(place)
        prompt = self._renderer.prompt(chat.messages, chat.tools, parent)
        if parent is None and place.parent is not None:
            return replace(prompt, built_by="rendered: the history leaves the answered reply out")
        return prompt

    async def _parent(self, place: Place) -> Parent | None:
        """The ids of the turn whose reply stands in the history. Secrets in them are remembered, never written.

        A turn with secrets that is no longer remembered comes back with placeholders; the renderer sees that the
        history says something else and renders it anew.
        """
        found = place.found
        if found.turn_id is None or found.turn_id != place.parent:
            return None
        remembered = self._recall.get(found.turn_id)
        if remembered is not None:
            prompt_ids, completion_ids = remembered
        else:
            ids = await self._log.parent(found.turn_id)
            if ids is None:
                return None
            prompt_ids, completion_ids = ids.prompt_ids, ids.completion_ids
        return Parent(prompt_ids=prompt_ids, completion_ids=completion_ids, num_messages=found.num_messages)
