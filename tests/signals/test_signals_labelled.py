import asyncio
import json
import re
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import get_args

import pytest

from agentrl.signals import labelled
from agentrl.signals.labelled import LabelledTurn, as_turn, read_half, read_lines
from agentrl.signals.outputs import EXIT_LINE
from agentrl.signals.rules import RuleJudge
from agentrl.text.content import message_text
from agentrl.types import End, MatchedBy, Purpose
from bench.judge_set import kit

NAMES: tuple[labelled.Half, ...] = get_args(labelled.Half)
HALVES = {half: read_half(half) for half in NAMES}
ALL = [item for items in HALVES.values() for item in items]


def texts(item: LabelledTurn) -> list[str]:
    """Everything that somebody wrote for a turn."""
    said = [message_text(message) for message in (*item.messages, *item.next)]
    return [*said, item.reply.text, *(call.arguments for call in item.reply.tool_calls), item.reason]


def sentences(text: str) -> set[str]:
    """The sentences of a text without case, signs and numbers; shorter ones than three words are no wording."""
    lines = "\n".join(line for line in text.splitlines() if not EXIT_LINE.match(line))
    words = (re.findall(r"[^\W\d_]+|\d+", part.lower()) for part in re.split(r"[\n.!?;:|]+\s*|\\n", lines))
    return {
        " ".join("0" if word.isdigit() else word for word in part)
        for part in words
        if len(part) >= 3 and not all(word.isdigit() for word in part)
    }


def strings(value: object) -> list[str]:
    """All texts in a TOML table."""
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for each in inner for text in strings(each)]


@pytest.mark.parametrize("half", NAMES)
def test_a_half_has_enough_turns_in_every_domain(half: labelled.Half) -> None:
    items = HALVES[half]
    domains = Counter(item.domain for item in items)

    assert len(items) >= 250
    assert set(domains) == {"terminal", "tools", "chat", "code", "gui"}
    assert min(domains.values()) >= 40
    assert {item.half for item in items} == {half}


def test_the_set_has_500_turns_with_names_of_their_own_and_many_by_hand() -> None:
    by_hand = Counter(item.half for item in ALL if item.made_by == "hand")

    assert len(ALL) >= 500
    assert len({item.id for item in ALL}) == len(ALL)
    assert by_hand.total() >= 150
    assert by_hand["test"] >= by_hand["dev"]
    assert by_hand["sealed"] >= 2 / 3 * len(HALVES["sealed"])


def test_every_kind_of_signal_stands_in_every_half() -> None:
    kinds = {
        "correction", "new_task", "progress", "error", "praise", "regenerated", "edited", "none", "gamed"
    }  # fmt: skip

    for items in HALVES.values():
        assert {item.label.kind for item in items} == kinds
        assert {item.label.fault for item in items} == {"agent", "infrastructure", "none"}


def test_no_turn_is_there_twice() -> None:
    seen = Counter(json.dumps([item.messages, item.next, texts(item)]) for item in ALL)

    assert [text for text, number in seen.items() if number > 1] == []


def test_the_halves_share_no_sentence() -> None:
    found = {
        half: {each for item in items for text in texts(item) for each in sentences(text)}
        for half, items in HALVES.items()
    }

    assert min(map(len, found.values())) > 500
    assert {(a, b): found[a] & found[b] for a, b in combinations(NAMES, 2)} == {
        pair: set() for pair in combinations(NAMES, 2)
    }


def test_the_halves_share_no_template() -> None:
    found = {
        half: {
            each
            for part in ("hand", "templates")
            for text in strings(kit.read(half, part))
            for each in sentences(text)
        }
        for half in NAMES
    }

    assert min(map(len, found.values())) > 300
    assert {(a, b): found[a] & found[b] for a, b in combinations(NAMES, 2)} == {
        pair: set() for pair in combinations(NAMES, 2)
    }


@pytest.mark.parametrize("half", NAMES)
def test_the_files_are_what_their_sources_make(half: str) -> None:
    committed = Path(labelled.__file__).with_name("judge_set") / f"{half}.jsonl"

    assert committed.read_text(encoding="utf-8") == kit.lines(half)


def test_the_files_are_small() -> None:
    folder = Path(labelled.__file__).with_name("judge_set")

    assert sum(path.stat().st_size for path in folder.glob("*.jsonl")) < 1_000_000


def test_every_label_agrees_with_itself() -> None:
    """What a kind of signal and a fault imply for the reward."""
    rewards = {
        "praise": {1}, "progress": {1}, "new_task": {None}, "none": {None}, "gamed": {-1, 0}, "correction": {-1, 0},
        "regenerated": {-1}, "edited": {-1, None}, "error": {-1, None},
    }  # fmt: skip
    faults = {1: {"none"}, 0: {"none", "agent"}, -1: {"agent"}, None: {"none", "infrastructure"}}

    for item in ALL:
        label = item.label
        assert label.reward in rewards[label.kind], item.id
        assert label.fault in faults[label.reward], item.id
        assert label.should_hint == bool(label.hint_contains), item.id
        assert (label.fault == "infrastructure") == (label.kind == "error" and label.reward is None), item.id
        assert not label.should_hint or label.reward in (-1, 0), item.id
        assert (label.kind in ("regenerated", "edited")) <= (item.end is not None), item.id
        assert item.reason.endswith("."), item.id


def test_a_due_hint_can_be_read_in_the_next_state() -> None:
    due = [item for item in ALL if item.label.should_hint]

    assert len(due) >= 100
    for item in due:
        told = "\n".join(map(message_text, item.next)).casefold()
        assert [word for word in item.label.hint_contains if word.casefold() not in told] == [], item.id


@pytest.mark.parametrize("name", ["sum_wrong", "sum_right", "product_wrong", "product_right"])
def test_what_is_said_of_a_sum_is_true(name: str) -> None:
    items = [item for item in ALL if item.made_by == name]

    assert len(items) >= 3
    for item in items:
        x, y = map(int, re.findall(r"\d+", message_text(item.messages[-1])))
        right = x * y if name.startswith("product") else x + y
        [answer] = map(int, re.findall(r"\d+", item.reply.text))
        assert (answer == right) == (item.label.reward == 1)
        assert str(right) in message_text(item.next[0])


def test_a_call_and_its_result_become_a_turn_and_its_next_state() -> None:
    item = read_lines([json.dumps(RECORD)])[0]

    turn, state = as_turn(item)

    assert (turn.id, turn.messages[-1]["content"], turn.purpose) == ("x-1", "Copy a.", Purpose.EVAL)
    assert (turn.reply.tool_calls[0].name, turn.reply.tool_calls[0].arguments) == (
        "bash",
        '{"command": "cp a"}',
    )
    assert (state.turn_id, state.matched_by, state.end) == ("x-1", MatchedBy.TOOL_CALL_ID, None)
    assert state.messages == ({"role": "tool", "tool_call_id": "call1", "content": "no\n[exit code 1]"},)
    assert asyncio.run(RuleJudge().judge(turn, state)).reward == -1.0


def test_an_end_becomes_a_next_state_that_no_request_brought() -> None:
    item = read_lines([json.dumps(RECORD | {"next": [], "end": "regenerated"})])[0]

    _, state = as_turn(item)

    assert (state.end, state.messages, state.answered_by) == (End.REGENERATED, (), None)


def test_every_result_answers_a_call_of_its_turn() -> None:
    for item in ALL:
        made = {call.id for call in item.reply.tool_calls}
        answered = {message["tool_call_id"] for message in item.next if message["role"] == "tool"}
        assert answered <= made, item.id


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"label": {"reward": 2}}, "reward 2"),
        ({"domain": "phone"}, "phone"),
        ({"end": "bored"}, "bored"),
        ({"reply": {"text": "x"}}, "calls"),
    ],
)
def test_a_malformed_line_is_named_with_its_fault(change: dict[str, object], fault: str) -> None:
    with pytest.raises(ValueError, match=rf"line 2 is no labelled turn: .*{fault}"):
        read_lines([json.dumps(RECORD), json.dumps(RECORD | change)])


RECORD: dict[str, object] = {
    "id": "x-1",
    "domain": "terminal",
    "half": "dev",
    "made_by": "hand",
    "messages": [{"role": "user", "content": "Copy a."}],
    "tools": [],
    "reply": {"text": "", "calls": [{"id": "call1", "name": "bash", "arguments": '{"command": "cp a"}'}]},
    "next": [{"role": "tool", "tool_call_id": "call1", "content": "no\n[exit code 1]"}],
    "end": None,
    "label": {"reward": -1, "fault": "agent", "kind": "error", "should_hint": False, "hint_contains": []},
    "reason": "It failed.",
}
