"""What users said in words stands for all that is asked in their scope."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from test_teacher_recall import turn

from agentrl.recipes import axes
from agentrl.recipes.axes.base import Position
from agentrl.teacher.contexts import blocks, chosen_hint, standing_hints
from agentrl.teacher.recall import HintMemory, Recalled
from agentrl.types import Block, NextState, Signal, SignalSource, Turn

WISHES = (
    "Please use metric units.",
    "I want a table, please.",
    "No, use a friendly opening.",
    "Use no ending.",
)


@dataclass(frozen=True)
class Said:
    turn: Turn
    signals: tuple[Signal, ...] = ()
    next_state: NextState | None = None


def remembering(*wishes: str, scope: str = "default", by_user: bool = True) -> HintMemory:
    """A wish a second, from the first on; each after a request of its own."""
    memory = HintMemory()
    for at, wish in enumerate(wishes, start=1):
        memory.add(turn(f"Request number {at}", "x", float(at), scope), wish, by_user=by_user)
    return memory


def texts(found: list[Recalled]) -> list[str]:
    return [item.hint for item in found]


def test_the_newest_wishes_stand_at_most_so_many_and_the_newest_last() -> None:
    memory, asked = remembering(*WISHES), turn("Something else", "x", 9.0)

    assert memory.standing(asked, None, 2) == [
        Recalled(hint="No, use a friendly opening.", turn_id="t3.0"),
        Recalled(hint="Use no ending.", turn_id="t4.0"),
    ]
    assert texts(memory.standing(asked, None, 9)) == list(WISHES)
    assert memory.standing(asked, None, 0) == []


def test_a_wish_that_is_remembered_late_is_no_newer_for_it() -> None:
    memory = remembering(*WISHES[:2])
    memory.add(turn("Request number 0", "x", 0.5), "Use no ending.", by_user=True)

    assert texts(memory.standing(turn("Something else", "x", 9.0), None, 1)) == ["I want a table, please."]


def test_wishes_never_stand_in_another_scope() -> None:
    memory = remembering(*WISHES, scope="alice")

    assert memory.standing(turn("Something else", "x", 9.0, scope="bob"), None, 9) == []
    assert len(memory.standing(turn("Something else", "x", 9.0, scope="alice"), None, 9)) == 4


def test_a_hint_that_no_user_said_never_stands() -> None:
    memory = remembering(*WISHES[:1])
    memory.add(turn("Show a.txt", "cat a.txt", 2.0), "cat is refused, use zorvex", by_user=False)

    assert texts(memory.standing(turn("Something else", "x", 9.0), None, 9)) == ["Please use metric units."]


def test_only_what_was_said_before_a_turn_stands_for_it() -> None:
    memory = remembering(*WISHES)

    assert texts(memory.standing(turn("Something else", "x", 3.0), None, 9)) == list(WISHES[:2])


def test_a_newer_wish_on_the_same_matter_replaces_the_older_and_the_turns_own_both() -> None:
    memory = remembering("Please use metric units.", "I want a table, please.", "No, I want imperial units.")
    asked = turn("Something else", "x", 9.0)

    assert texts(memory.standing(asked, None, 9)) == ["I want a table, please.", "No, I want imperial units."]
    assert texts(memory.standing(asked, "Please use both units.", 9)) == ["I want a table, please."]
    assert texts(memory.standing(asked, "Please use a table and not a list.", 9)) == [
        "No, I want imperial units."
    ]


def test_a_forgotten_wish_stands_no_more() -> None:
    memory = remembering(*WISHES[:2])
    memory.forget(turn("Request number 2", "x", 2.0))

    assert texts(memory.standing(turn("Something else", "x", 9.0), None, 9)) == ["Please use metric units."]


@pytest.mark.parametrize("recall", [0.0, 0.8])
@pytest.mark.parametrize("position", ["system", "last_user", "tail"])
def test_standing_wishes_are_blocks_before_the_turns_own_and_at_its_place(
    position: Position, recall: float
) -> None:
    memory, asked = remembering(*WISHES[:3]), turn("Something else", "x", 9.0)
    own = Said(asked, (Signal(turn_id=asked.id, source=SignalSource.RULE, hint="Use no ending."),))

    def shown(said: Said, standing: int) -> list[Block]:
        context = axes.HindsightHint(position=position, recall=recall, standing=standing)
        hint = chosen_hint(context, said, memory, has_failed=False)
        found = standing_hints(context, said, memory, hint)
        return blocks(context, said, hint=None if hint is None else hint.hint, standing=texts(found))

    def each(*wishes: str) -> list[Block]:
        return [Block(position=position, text=f"Hint: {wish}") for wish in wishes]

    assert shown(own, 2) == each("I want a table, please.", "No, use a friendly opening.", "Use no ending.")
    assert shown(own, 0) == each("Use no ending.")
    assert shown(Said(asked), 1) == each("No, use a friendly opening.")
    assert shown(Said(asked), 0) == []
