"""What the watch is told of answered turns."""

from store_samples import make_turn, record

from agentrl.store.behaviour import BehaviourLog
from agentrl.store.signal_log import SignalLog
from agentrl.types import JSON, Arm, End, NextState, Reply, ToolCall


async def test_calls_stand_beside_what_their_tools_returned(log: SignalLog) -> None:
    call = ToolCall(id="c1", name="bash", arguments='{"command": "cat a.txt"}')
    await record(log, make_turn("called", reply=Reply(text="", tool_calls=(call,))))
    said: JSON = {"role": "tool", "tool_call_id": "c1", "content": "cat: not here; use zorvex"}
    await log.record_next_state(NextState(turn_id="called", end=None, messages=(said,)))
    with BehaviourLog(log.path, "default") as behaviour:
        [turn] = behaviour.newest(9, arm=Arm.LEARNING)

    assert (turn.calls, turn.outputs, turn.asks) == ((call,), ("cat: not here; use zorvex",), False)


async def test_an_edit_is_a_rewritten_or_a_replaced_answer_and_not_an_edited_question(log: SignalLog) -> None:
    written: JSON = {"role": "assistant", "content": "3 kg."}
    ends: dict[str, tuple[End | None, tuple[JSON, ...]]] = {
        "rewritten": (End.EDITED, (written,)),
        "question edited": (End.EDITED, ()),
        "replaced": (End.REGENERATED, ()),
        "retried": (End.RETRIED, ()),
        "answered": (None, ({"role": "user", "content": "Thanks."},)),
    }
    for name, (end, messages) in ends.items():
        await record(log, make_turn(name))
        await log.record_next_state(NextState(turn_id=name, end=end, messages=messages))
    with BehaviourLog(log.path, "default") as behaviour:
        found = behaviour.newest(9, arm=Arm.LEARNING)

    assert {turn.turn_id for turn in found if turn.edited} == {"rewritten", "replaced"}
    assert len(found) == 5
