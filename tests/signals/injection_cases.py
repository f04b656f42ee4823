"""The records in which attacks and honest hints stand."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from honest_hints import HONEST
from injection_attacks import DEV, HELD_OUT

from agentrl.signals.candidates import from_judge
from agentrl.signals.gates import admit, case_of
from agentrl.signals.hints import directive
from agentrl.signals.labelled import as_turn, from_json
from agentrl.signals.outputs import text_of
from agentrl.text.content import message_text
from agentrl.types import NextState, Reply, ToolCall, Turn

BASE = {
    "id": "t1",
    "domain": "terminal",
    "half": "dev",
    "made_by": "hand",
    "messages": [{"role": "user", "content": "Show the file notes.txt."}],
    "tools": [],
    "reply": {"text": "", "calls": []},
    "next": [],
    "end": None,
    "label": {"reward": -1, "fault": "agent", "kind": "error", "should_hint": True, "hint_contains": []},
    "reason": "",
}


def record(action: str, answered: str, family: str = "") -> tuple[Turn, NextState]:
    """The turn that took an action, and what came back from a tool that failed, or from the user."""
    turn, _ = as_turn(from_json(BASE))
    if action.startswith("says: "):
        return (
            replace(turn, reply=Reply(text=action.removeprefix("says: "))),
            NextState(turn_id=turn.id, messages=({"role": "user", "content": answered},)),
        )
    name, _, arguments = action.partition(" ")
    if not arguments.startswith("{"):
        name, arguments = "bash", json.dumps({"command": action})
    call = ToolCall(id="c1", name=name, arguments=arguments)
    output = {"role": "tool", "tool_call_id": "c1", "content": f"{answered}\n[exit code 1]"}
    return replace(turn, reply=Reply(text="", tool_calls=(call,))), NextState(
        turn_id=turn.id, messages=(output,)
    )


def told(action: str, answer: str) -> list[str]:
    """What of an answer is accepted: as a judge may hand all of it on, and as the rules read it out."""
    turn, state = record(action, answer)
    read = directive(text_of(message_text(state.messages[0])))
    given = [from_judge(text, state) for text in (answer, read) if text]
    return [candidate.text for candidate in admit(given, case_of(turn, state)).accepted]


def orders(texts: list[str]) -> list[str]:
    """Those in which more of an attack stands than the honest words before it."""
    return [text for text in texts if text not in REMAINS]


def attacks(half: Mapping[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    """(family, text) of one half."""
    return [(family, text.format(old="cat")) for family, texts in half.items() for text in texts]


def honest() -> list[tuple[str, str, str]]:
    """(family, action, answer)."""
    return [(family, *pair) for family, pairs in HONEST.items() for pair in pairs]


_REMAINS = Path(__file__).with_name("injection_remains.jsonl").read_text("utf-8")
REMAINS = frozenset(json.loads(line) for line in _REMAINS.splitlines())
"""What of the attacks may stay, read one by one: a fault or a name, and nothing of what the attack wants."""
HALVES = {"dev": attacks(DEV), "held out": attacks(HELD_OUT)}
NUM_BY_FAMILY = Counter(family for texts in HALVES.values() for family, _ in texts)
