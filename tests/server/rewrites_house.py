"""A user of the openai SDK who edits replies and asks again, and what the server made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI
from server_house import MODEL, House, eventually

from agentrl.learner.build import Builder
from agentrl.recipes.recipe import load_recipe
from agentrl.store.learning_log import LearningLog
from agentrl.text.renderer import load_renderer
from agentrl.types import NextState, Signal

Message = dict[str, Any]


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def reply(text: str) -> Message:
    return {"role": "assistant", "content": text}


@dataclass
class Told:
    """One reply as the client has it."""

    text: str
    turn_id: str
    calls: list[Message] = field(default_factory=list)

    @property
    def message(self) -> Message:
        return reply(self.text) | ({"tool_calls": self.calls} if self.calls else {})

    def changed(self, arguments: str, *, name: str = "bash", **more: Any) -> Message:
        """The reply with another call in the place of its first."""
        first, *others = self.calls
        return self.message | {
            "tool_calls": [first | {"function": {"name": name, "arguments": arguments}} | more, *others]
        }

    def result(self, text: str) -> Message:
        return {"role": "tool", "tool_call_id": self.calls[0]["id"], "content": text}


async def ask(client: AsyncOpenAI, *messages: Any, **options: Any) -> Told:
    done = await client.chat.completions.create(model="nano", messages=list(messages), **options)
    said = done.choices[0].message
    calls = [call.model_dump(exclude_none=True) for call in said.tool_calls or ()]
    return Told(said.content or "", done.id.removeprefix("chatcmpl-"), calls)


async def state_of(house: House, told: Told) -> NextState | None:
    return await house.runtime.log.next_state(told.turn_id)


async def end_of(house: House, told: Told) -> str | None:
    state = await state_of(house, told)
    return None if state is None else str(state.end or "answered")


async def signal_of(house: House, told: Told) -> Signal:
    """What the judge made of it."""
    return (await eventually(lambda: house.runtime.log.signals(told.turn_id)))[-1]


def pairs_of(run_dir: Path, recipe: str = "dpo") -> list[tuple[str, bool]]:
    """(what it trains, whether it is preferred) of the samples that a learner makes of the run."""
    renderer = load_renderer(MODEL)
    with LearningLog(run_dir) as log:
        log.ensure_base("default", str(MODEL))
        claims = log.claim(limit=100, needs="pair", max_age_s=1e6)
        assert log.account().balanced
    built = Builder(recipe=load_recipe(recipe), renderer=renderer, max_len=4096).build(
        claims, newest_version=0
    )
    assert built.dropped == ()
    return [
        (_said(renderer, sample.token_ids, sample.loss_mask), sample.preferred) for sample in built.samples
    ]


def _said(renderer: Any, token_ids: Sequence[int], mask: Sequence[bool]) -> str:
    text = renderer.decode([i for i, trained in zip(token_ids, mask, strict=True) if trained])
    return str(text).removesuffix("<|im_end|>")
