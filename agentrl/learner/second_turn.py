"""A second turn: the policy answers once more after a critique of its first answer. RLTF, arXiv 2602.02482."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from agentrl.errors import UserError
from agentrl.learner.members import Ask, Edited, Group, Member, Steps, answered, ids_of
from agentrl.recipes.credit import first_turn
from agentrl.teacher.contexts import hint_of
from agentrl.text.content import message_text
from agentrl.text.extend import Parent
from agentrl.types import JSON, Completion, FinishReason, Turn, VersionSpan

if TYPE_CHECKING:
    from agentrl.learner.build import Claim


def second_turn(
    group: Group,
    *,
    critique: Literal["hint", "next_state"],
    learn: Literal["answer", "critique"],
    discount: float,
    temperature: float,
    max_tokens: int,
) -> Steps:
    """Both turns as rewarded samples, and what is learnt without the critique. RLTF, arXiv 2602.02482.

        y0 | x          R(y0) + discount·R(y1)
        y1 | x, y0, c   R(y1)
        y1 | x          advantage R(y1) − mean R(y0)        learn = "answer"
        c  | x, y0      advantage 1                         learn = "critique"

    Args:
        critique: where c comes from; a turn without one stays as it was sampled.
        learn: the distillation part.
        discount: of the second turn's reward.
        temperature: of the second turn.
        max_tokens: most ids of it.
    """
    found = {item.claim.turn.id: _after(group, item.claim, critique) for item in group.members}
    chosen = [item for item in group.members if found[item.claim.turn.id] is not None]
    prompts = {name: prompt for name, prompt in found.items() if prompt is not None}
    asks = [
        Ask(
            claim=item.claim,
            prompt_ids=prompts[item.claim.turn.id].ids,
            by="policy",
            temperature=temperature,
            max_tokens=max_tokens,
        )
        for item in chosen
    ]
    sent = yield asks
    answers = {
        item.claim.turn.id: answer for item, answer in zip(chosen, sent, strict=True) if answer is not None
    }
    first = list(group.rewards.values())
    members: list[Member] = []
    for item in group.members:
        name = item.claim.turn.id
        answer = answers.get(name)
        if answer is None:
            members.append(replace(item, only="rl"))
            continue
        later, reward = prompts[name], item.reward
        if reward is not None and answer.reward is not None:
            reward += discount * answer.reward
        own = replace(item, only="rl", attempt=f"turn {name}")
        members.append(replace(own, reward=reward))
        said = replace(own, turn=answered(item.turn, answer), source="second_turn", reward=answer.reward)
        members.append(replace(said, turn=replace(said.turn, prompt_ids=later.ids), step=1, only="rl"))
        if learn == "critique":
            members += _critique_of(item, later)
        else:
            gain = first_turn([*first, answer.reward], [*(0 for _ in first), 1])[-1]
            if gain is not None:
                members.append(replace(said, step=2, only="kd", advantage=gain))
    return Edited(members=tuple(members))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Later:
    """The prompt of a second turn."""

    ids: tuple[int, ...]
    critique: tuple[int, int] | None
    """Where the critique's own words stand in it; None where they cannot be found again."""


def _after(group: Group, claim: Claim, critique: Literal["hint", "next_state"]) -> _Later | None:
    """The first turn's ids, verbatim, and the critique behind them; None where there is none or it does not fit."""
    assert group.text is not None, "second_turn needs the second stage"
    turn = claim.turn
    said: list[JSON] = []
    if critique == "hint":
        hint = hint_of(claim.signals)
        said = [] if hint is None else [{"role": "user", "content": hint}]
    elif claim.next_state is not None:
        said = list(claim.next_state.messages)
    known = turn.prompt_ids + turn.completion.token_ids
    parent = Parent(
        prompt_ids=turn.prompt_ids,
        completion_ids=turn.completion.token_ids,
        num_messages=len(turn.messages) + 1,
    )
    try:
        prompt = group.text.prompt([*turn.messages, _reply_message(turn), *said], turn.tools, parent)
    except UserError:
        return None
    if not said or prompt.ids[: len(known)] != known:
        return None
    tail = prompt.ids[len(known) :]
    written, words = group.text.decode(tail), [message_text(message) for message in said]
    start, end = written.find(words[0]), written.rfind(words[-1]) + len(words[-1])
    span = ids_of(group.text, tail, start, end) if 0 <= start < end else None
    return _Later(
        ids=prompt.ids, critique=None if span is None else (len(known) + span[0], len(known) + span[1])
    )


def _reply_message(turn: Turn) -> JSON:
    """The turn's reply as a client would send it back."""
    message: JSON = {"role": "assistant", "content": turn.reply.text}
    if turn.reply.tool_calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in turn.reply.tool_calls
        ]
    return message


def _critique_of(item: Member, later: _Later) -> list[Member]:
    """The critique as a sample: nobody sampled it, so it has no log-probs."""
    turn = item.turn
    if later.critique is None:
        return []
    start, end = later.critique
    ids = later.ids[len(turn.prompt_ids) : end]
    completion = Completion(
        token_ids=ids,
        logprobs=(0.0,) * len(ids),
        raw_logprobs=None,
        num_allowed=None,
        finish_reason=FinishReason.STOP,
        version_spans=(VersionSpan(version=turn.completion.version, start=0, end=len(ids)),),
    )
    words = (start - len(turn.prompt_ids), end - len(turn.prompt_ids))
    changed = replace(turn, completion=completion)
    return [
        replace(item, turn=changed, source="second_turn", step=2, only="kd", advantage=1.0, trained=words)
    ]
