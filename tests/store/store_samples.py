"""Records for the tests of the store: small, literal, and equal to themselves after float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agentrl.store.database import connect
from agentrl.store.learning_log import LearningLog
from agentrl.store.signal_log import SignalLog
from agentrl.types import (
    Arm,
    Completion,
    End,
    FinishReason,
    Lesson,
    LessonState,
    MatchedBy,
    NextState,
    PolicyVersion,
    Purpose,
    Reply,
    Sampling,
    Signal,
    SignalSource,
    Turn,
    TurnKind,
    VersionSpan,
    VersionState,
)

NOW = 2000.0


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


async def attempt(
    log: SignalLog, session: str, *turns: str, reward: float | None = 1.0, at: float = 1000.0
) -> None:
    """A session of an environment: its turns, each followed by something, and a reward at the end."""
    for turn in turns:
        await record(log, make_turn(turn, session=session, received_at=at))
        await answer(log, turn, end=End.CLOSED if turn == turns[-1] else None)
        await log.mark_judged(turn, "abstained")
    if reward is not None:
        await log.record_signal(Signal(turn_id=turns[-1], source=SignalSource.ENVIRONMENT, reward=reward))


# what a learner does


class Clock:
    """Unix seconds that move only when told."""

    now = NOW

    def __call__(self) -> float:
        return self.now


def claim(learning: LearningLog, limit: int = 100, **changes) -> list[str]:
    options = {"needs": "hint", "max_age_s": 1e6} | changes
    return [claimed.turn.id for claimed in learning.claim(limit=limit, **options)]


def step(learning: LearningLog, turn_ids: list[str], parent: int = 0) -> int:
    return learning.record_step(
        turn_ids, recipe="hint_opsd", seed=1, metrics={"loss": 0.5}, version_parent=parent
    )


def publish(learning: LearningLog, number: int, *steps: int, parent: int | None = None) -> PolicyVersion:
    version = PolicyVersion(
        policy="default",
        number=number,
        parent=number - 1 if parent is None else parent,
        state=VersionState.CANDIDATE,
        path=f"versions/{number:06d}",
        step_ids=steps,
        metrics={"loss": 0.5},
        created_at=NOW,
    )
    learning.publish(version)
    return version


def accept(learning: LearningLog, number: int) -> None:
    learning.set_state("default", number, VersionState.SERVING, "passed")


def learn(learning: LearningLog, number: int, **changes) -> list[str]:
    """One whole round: claim all, step, publish, serve."""
    turns = claim(learning, **changes)
    publish(learning, number, step(learning, turns, parent=number - 1))
    accept(learning, number)
    return turns


def conversation(length: int, **changes) -> list:
    """Turns of one conversation; each resends all that came before and adds a reply and a tool result."""
    turns = []
    messages: tuple = ({"role": "user", "content": "task " * 500},)
    prompt: tuple[int, ...] = tuple(range(500))
    for index in range(length):
        completion = make_completion((1000 + index, 2000 + index))
        parent = turns[-1].id if turns else None
        turns.append(
            make_turn(
                f"c{index}",
                parent=parent,
                messages=messages,
                prompt_ids=prompt,
                completion=completion,
                received_at=1000.0 + index,
                **changes,
            )
        )
        messages = (
            *messages,
            {"role": "assistant", "content": f"reply {index}"},
            {"role": "tool", "content": f"result {index} " * 30},
        )
        prompt = (*prompt, *completion.token_ids, 3, index)
    return turns


def rows(path: Path, sql: str) -> list[tuple]:
    connection = connect(path / "log.db", read_only=True)
    try:
        return [tuple(row) for row in connection.execute(sql)]
    finally:
        connection.close()


def lesson(id_: str = "L1", state: LessonState = LessonState.PROPOSED, **changes: object) -> Lesson:
    values: dict[str, object] = {"id": id_, "text": f"text of {id_}", "state": state, "turn_ids": ()}
    return Lesson(**(values | changes))


async def hinted(log: SignalLog, turn_id: str, *hints: str, reward: float | None = None) -> None:
    """An answered and judged turn with hints of its own."""
    await record(log, make_turn(turn_id, session=f"session-{turn_id}"))
    await answer(log, turn_id)
    for hint in hints:
        await log.record_signal(
            Signal(turn_id=turn_id, source=SignalSource.RULE, hint=hint, reward=reward, created_at=1002.0)
        )
    await log.mark_judged(turn_id, "judged")


def gated(
    learning: LearningLog, number: int, *steps: int, state: VersionState = VersionState.SERVING
) -> None:
    """A version made of these steps that the gate took, or gave another state."""
    publish(learning, number, *steps, parent=learning.serving().number)
    learning.set_state("default", number, state, "because")
