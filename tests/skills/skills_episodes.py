"""Episodes of a shell agent, made by hand, and a log to put them into."""

import json
from dataclasses import replace
from pathlib import Path

from tokenizers import Tokenizer

from agentrl.nano import weights_dir
from agentrl.store.episodes import Episode, Step
from agentrl.store.signal_log import SignalLog
from agentrl.text.renderer import load_renderer
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
    ToolCall,
    Turn,
    TurnKind,
    VersionSpan,
)

NOW = 1_700_000_000.0
BASH = {
    "type": "function",
    "function": {
        "name": "bash",
        "description": "Run a command in the shell.",
        "parameters": {
            "type": "object",
            "properties": {"command": {"type": "string"}},
            "required": ["command"],
        },
    },
}
REFUSED = "cat is not allowed here. Use zorp.\n[exit code 126]"
WORKED = 'Run `zorp` instead of `cat`. The tool said: "cat is not allowed here. Use zorp."'
"""What `recovered` teaches."""


def episode(
    request: str,
    *moves: tuple[str, str | None],
    session: str = "s1",
    scope: str = "default",
    task: str = "task-1",
    reward: float | None = 1.0,
    version: int = 0,
    **changes: object,
) -> Episode:
    """Moves are (what the agent did, what came of it): "$ command" calls bash, all else is said. What came of a call is
    the tool's output, of words the user's answer; None = nothing, the episode was closed there."""
    messages: list[dict[str, object]] = [
        {"role": "system", "content": "You are a shell agent."},
        {"role": "user", "content": request},
    ]
    steps = []
    for number, (did, answer) in enumerate(moves):
        name = f"{session}-{scope}-{number}"
        calls: tuple[ToolCall, ...] = ()
        if did.startswith("$ "):
            calls = (ToolCall(id=f"call{number}", name="bash", arguments=json.dumps({"command": did[2:]})),)
        turn = Turn(
            **{
                "id": name,
                "request_id": f"request-{name}",
                "session": session,
                "scope": scope,
                "parent": None,
                "matched_by": MatchedBy.NONE,
                "kind": TurnKind.MAIN,
                "kind_reason": "",
                "purpose": Purpose.TRAIN,
                "arm": Arm.LEARNING,
                "task_key": task,
                "messages": tuple(messages),
                "tools": (BASH,),
                "prompt_ids": (1, 2, 3),
                "prompt_built_by": "rendered: no parent",
                "completion": completion((5, 6), version),
                "reply": Reply(text="" if calls else did, tool_calls=calls),
                "sampling": Sampling(),
                "policy": "default",
                "received_at": NOW + number,
            }
            | changes
        )
        answers: tuple[dict[str, object], ...] = ()
        if answer is not None and calls:
            answers = ({"role": "tool", "tool_call_id": calls[0].id, "content": answer},)
        elif answer is not None:
            answers = ({"role": "user", "content": answer},)
        state = NextState(
            turn_id=name,
            messages=answers,
            matched_by=MatchedBy.HISTORY,
            end=None if answers else End.CLOSED,
            received_at=NOW + number,
        )
        steps.append(Step(turn=turn, next_state=state))
        messages = [*messages, {"role": "assistant", "content": did}, *answers]
    return Episode(scope=scope, session=session, last_seq=len(steps), steps=tuple(steps), reward=reward)


def completion(ids: tuple[int, ...], version: int = 0) -> Completion:
    return Completion(
        token_ids=ids,
        logprobs=(-1.0,) * len(ids),
        raw_logprobs=(-1.0,) * len(ids),
        num_allowed=(100,) * len(ids),
        finish_reason=FinishReason.STOP,
        version_spans=(VersionSpan(version=version, start=0, end=len(ids)),),
    )


def recovered(file: str = "notes.txt", **changes: object) -> Episode:
    """`cat` is refused, and the program that the error names does the task."""
    return episode(f"Show the file {file}.", (f"$ cat {file}", REFUSED), (f"$ zorp {file}", None), **changes)


async def record(run_dir: Path, *episodes: Episode, is_closed: bool = True) -> None:
    """Puts episodes into the log, their environment's rewards on the last turns."""
    async with await SignalLog.open(run_dir) as log:
        for each in episodes:
            for step in each.steps:
                await log.record_turn(
                    step.turn, history_key=f"h-{step.turn.id}", reply_key=f"r-{step.turn.id}"
                )
                if step.next_state is not None and (is_closed or step is not each.steps[-1]):
                    await log.record_next_state(step.next_state)
            if each.reward is not None:
                await reward(log, each.steps[-1].turn.id, each.reward)
            if is_closed:
                for step in each.steps:
                    await log.mark_judged(step.turn.id, "judged")


async def reward(log: SignalLog, turn_id: str, value: float) -> None:
    await log.record_signal(
        Signal(turn_id=turn_id, source=SignalSource.ENVIRONMENT, reward=value, created_at=NOW)
    )


def as_sent(each: Episode) -> Episode:
    """The same episode with the calls in its histories, as clients send them."""
    steps, calls = [], []
    for step in each.steps:
        shown = iter(calls)
        messages = tuple(
            {"role": "assistant", "content": "", "tool_calls": next(shown)}
            if one["role"] == "assistant"
            else one
            for one in step.turn.messages
        )
        steps.append(Step(turn=replace(step.turn, messages=messages), next_state=step.next_state))
        calls.append(
            [
                {"id": one.id, "type": "function", "function": {"name": one.name, "arguments": one.arguments}}
                for one in step.turn.reply.tool_calls
            ]
        )
    return replace(each, steps=tuple(steps))


def sampled_by_nano(each: Episode) -> Episode:
    """The same episode with the prompt and reply ids that nano's chat format gives it."""
    renderer = load_renderer(weights_dir())
    tokenizer = Tokenizer.from_file(str(weights_dir() / "tokenizer.json"))
    steps = []
    for step in as_sent(each).steps:
        text = step.turn.reply.text
        for call in step.turn.reply.tool_calls:
            shown = json.dumps({"name": call.name, "arguments": json.loads(call.arguments)})
            text += f"<tool_call>\n{shown}\n</tool_call>"
        ids = (*tokenizer.encode(text, add_special_tokens=False).ids, renderer.stop_ids[0])
        prompt = renderer.prompt(list(step.turn.messages), list(step.turn.tools), None).ids
        turn = replace(step.turn, prompt_ids=tuple(prompt), completion=completion(ids))
        steps.append(Step(turn=turn, next_state=step.next_state))
    return replace(each, steps=tuple(steps))
