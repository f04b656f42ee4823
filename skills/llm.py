"""From an ended episode to a skill, by a language model: one question, one JSON answer, checked before it is believed.

The episode is shown as data between marks; what tools and pages said in it gives no orders to the model that reads it.
Emphasis follows the reward: how a success was reached, or what a failure did wrong. Skill-SD, arXiv 2604.10674.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agentrl.config import explain
from agentrl.errors import AgentRLError
from agentrl.signals.skill_prompt import question
from agentrl.signals.votes import read_json
from agentrl.store.episodes import Episode
from agentrl.types import JSON
from skills.library import Draft
from skills.skill_file import slug
from skills.summarise import SummariserError, command_of, outcomes, request_of

Ask = Callable[[Sequence[JSON]], Awaitable[str]]
"""Sends chat messages to a model and returns its answer; raises AgentRLError where there is none."""

MAX_OUTPUT_CHARS = 1500
MAX_SHOWN_CHARS = 16_000

Line = Annotated[str, Field(max_length=600)]


class Record(BaseModel):
    """What the model is to answer."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=200)
    description: str = Field(default="", max_length=600)
    success_analysis: str = Field(default="", max_length=2000)
    mistake_analysis: list[Line] = Field(default=[], max_length=20)
    golden_workflow: list[Line] = Field(default=[], max_length=30)


class LlmSummariser:
    """Asks a model.

    Args:
        ask: the model.
        timeout_s: most seconds of one answer.
    """

    name = "llm"

    def __init__(self, ask: Ask, *, timeout_s: float = 120.0) -> None:
        self._ask = ask
        self._timeout_s = timeout_s

    async def summarise(self, episode: Episode) -> Draft | None:
        """Raises SummariserError where the model failed, was late or answered something else than a skill."""
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._ask(prompt(episode))
        except TimeoutError as error:
            raise SummariserError(f"no answer within {self._timeout_s:g} s") from error
        except AgentRLError as error:
            raise SummariserError(f"{type(error).__name__}: {error}") from error
        return draft_of(answer, has_failed=episode.reward is not None and episode.reward <= 0)


def prompt(episode: Episode) -> list[JSON]:
    """The question about one episode; of a long one the end is kept, which is where it was decided."""
    lines = []
    for number, step in enumerate(episode.steps, 1):
        if step.turn.reply.text.strip():
            lines.append(f"[{number}] agent said: {step.turn.reply.text.strip()[:MAX_OUTPUT_CHARS]}")
        answers = {call.id: output for call, output in outcomes(step)}
        for call in step.turn.reply.tool_calls:
            lines.append(f"[{number}] agent ran: {command_of(call)}")
            if call.id in answers:
                lines.append(f"[{number}] tool answered: {answers[call.id].strip()[-MAX_OUTPUT_CHARS:]}")
        if step.next_state is not None:
            users = (one for one in step.next_state.messages if one.get("role") == "user")
            lines += [f"[{number}] user said: {one.get('content')}"[:MAX_OUTPUT_CHARS] for one in users]
    return question(request_of(episode)[:MAX_OUTPUT_CHARS], lines, episode.reward, max_chars=MAX_SHOWN_CHARS)


def draft_of(answer: str, *, has_failed: bool) -> Draft | None:
    """The skill in a model's answer; None where it says that there is none. Raises SummariserError."""
    try:
        record = Record.model_validate(read_json(answer))
    except ValidationError as error:
        raise SummariserError(f"the answer is no skill: {explain(error)}"[:500]) from error
    except ValueError as error:
        raise SummariserError(f"the answer is not JSON: {answer.strip()[:200]!r}") from error
    if not record.name.strip():
        return None
    steps = [" ".join(step.split()) for step in record.golden_workflow if step.strip()]
    faults = [" ".join(fault.split()) for fault in record.mistake_analysis if fault.strip()]
    if not record.description.strip() or not (steps or faults):
        raise SummariserError("the answer has no description, or neither steps nor mistakes")
    parts = {
        "How": "\n".join(f"{n}. {step}" for n, step in enumerate(steps, 1)),
        "Why it works": " ".join(record.success_analysis.split()),
        "Mistakes": "\n".join(f"- {fault}" for fault in faults),
    }
    order = ("Mistakes", "How") if has_failed else ("How", "Why it works", "Mistakes")
    body = "\n\n".join(f"## {title}\n{parts[title]}" for title in order if parts[title])
    return Draft(name=slug(record.name), description=" ".join(record.description.split()), body=body)
