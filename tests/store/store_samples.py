"""Records for the tests of the store: small, literal, and equal to themselves after float32."""

from __future__ import annotations

from typing import Any

from agentrl.store.signal_log import SignalLog
from agentrl.types import (
    Arm,
    Completion,
    End,
    FinishReason,
    MatchedBy,
    NextState,
    Purpose,
    Reply,
    Sampling,
    Signal,
    SignalSource,
    Turn,
    TurnKind,
    VersionSpan,
)


def make_turn(id_: str = "t1", **changes: Any) -> Turn:
    """A turn of three prompt ids and two sampled ones; `changes` replace fields."""
    fields: dict[str, Any] = {
        "id": id_,
        "request_id": f"request-{id_}",
        "session": "s1",
        "scope": "default",
        "parent": None,
        "matched_by": MatchedBy.NONE,
        "kind": TurnKind.MAIN,
        "kind_reason": "",
        "purpose": Purpose.TRAIN,
        "arm": Arm.LEARNING,
        "task_key": "task",
        "messages": ({"role": "user", "content": f"do {id_}"},),
        "tools": (),
        "prompt_ids": (1, 2, 3),
        "prompt_built_by": "rendered: first turn",
        "completion": make_completion((7, 8)),
        "reply": Reply(text="done"),
        "sampling": Sampling(),
        "policy": "default",
        "received_at": 1000.0,
    }
    return Turn(**(fields | changes))


def make_completion(ids: tuple[int, ...], version: int = 0, **changes: Any) -> Completion:
    logprobs = tuple(-0.5 for _ in ids)
    spans = (VersionSpan(version=version, start=0, end=len(ids)),) if ids else ()
    fields: dict[str, Any] = {
        "token_ids": ids,
        "logprobs": logprobs,
        "raw_logprobs": logprobs,
        "num_allowed": tuple(64 for _ in ids),
        "finish_reason": FinishReason.STOP,
        "version_spans": spans,
    }
    return Completion(**(fields | changes))


async def record(log: SignalLog, *turns: Turn) -> None:
    for turn in turns:
        await log.record_turn(turn, history_key=f"history-{turn.id}", reply_key=f"reply-{turn.id}")


async def answer(log: SignalLog, turn_id: str, text: str = "and then?", end: End | None = None) -> bool:
    messages = () if end else ({"role": "user", "content": text},)
    return await log.record_next_state(
        NextState(
            turn_id=turn_id, messages=messages, matched_by=MatchedBy.HISTORY, end=end, received_at=1001.0
        )
    )


async def hint(log: SignalLog, turn_id: str, text: str = "use ls") -> None:
    await log.record_signal(Signal(turn_id=turn_id, source=SignalSource.JUDGE, hint=text, created_at=1002.0))


async def judged_with_hint(log: SignalLog, *turns: Turn) -> None:
    """Turns through to the point where a recipe that needs hints can have them."""
    for turn in turns:
        await record(log, turn)
        await answer(log, turn.id)
        await hint(log, turn.id)
        await log.mark_judged(turn.id, "judged")
