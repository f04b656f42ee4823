"""The independent grader of notes: literal examples, and agreement with the simulated user on many drawn notes."""

import ast
import random
from pathlib import Path

import pytest

from agentrl.nano import habits
from envs import personal_grader
from envs.personal import THINGS, style_of
from envs.personal_grader import Grade, grade

REQUEST = "Describe the lamp: weight 3 kg or 7 lb, width 103 mm or 4 in."


@pytest.mark.parametrize(
    ("note", "expected"),
    [
        (
            "The lamp has weight 3 kg and width 103 mm.",
            Grade(form="sentence", tone="dry", units="metric", ending="none", facts=True),
        ),
        (
            "Sure thing!\nThe lamp:\n- weight: 3 kg (7 lb)\n- width: 103 mm (4 in)\nCheers",
            Grade(form="list", tone="friendly", units="both", ending="cheers", facts=True),
        ),
        (
            "With pleasure.\n| width | 4 in |\n| weight | 7 lb |\nKind regards",
            Grade(form="table", tone="formal", units="imperial", ending="regards", facts=True),
        ),
        # a wrong number, a wrong thing, a missing fact, one twice, units of both kinds
        (
            "The lamp has weight 5 kg and width 103 mm.",
            Grade(form="sentence", tone="dry", units="metric", ending="none", facts=False),
        ),
        (
            "The door has weight 3 kg and width 103 mm.",
            Grade(form="sentence", tone="dry", units="metric", ending="none", facts=False),
        ),
        (
            "| weight | 3 kg |\nCheers",
            Grade(form="table", tone="dry", units="metric", ending="cheers", facts=False),
        ),
        (
            "| weight | 3 kg |\n| weight | 3 kg |\n| width | 103 mm |",
            Grade(form="table", tone="dry", units="metric", ending="none", facts=False),
        ),
        (
            "The lamp has weight 3 kg and width 4 in.",
            Grade(form="sentence", tone="dry", units=None, ending="none", facts=True),
        ),
        # no notes
        ("You are welcome.", Grade(form=None, tone=None, units=None, ending=None, facts=False)),
        (
            "Certainly.\nThe lamp has\nCheers",
            Grade(form=None, tone="formal", units=None, ending="cheers", facts=False),
        ),
        ("", Grade(form=None, tone=None, units=None, ending=None, facts=False)),
    ],
)
def test_a_note_is_graded_by_its_text(note: str, expected: Grade) -> None:
    assert grade(REQUEST, note) == expected


def test_met_says_of_each_preference_whether_the_note_has_it() -> None:
    found = grade(REQUEST, "Sure thing!\nThe lamp has weight 3 kg and width 103 mm.")
    assert found.met({"form": "list", "tone": "friendly", "units": "metric"}) == {
        "form": False,
        "tone": True,
        "units": True,
    }


def test_the_grader_and_the_user_agree_on_notes_of_every_style() -> None:
    rng = random.Random(3)
    seen = set()
    for _ in range(5000):
        topic = habits.topic(rng, THINGS[rng.choice(("train", "held_out"))])
        style = habits.any_style(rng)
        note = habits.note(rng, topic, style)
        found = grade(topic.request(rng), note)
        shown = {axis: getattr(found, axis) for axis in habits.AXES}
        assert shown == style_of(note, topic) == style
        assert found.facts
        seen.add(tuple(style.values()))
    assert len(seen) == 81


def test_a_fact_of_another_request_is_wrong_in_every_style() -> None:
    rng = random.Random(4)
    for _ in range(500):
        topic, other = habits.topic(rng), habits.topic(rng)
        if topic.measures == other.measures:
            continue
        assert not grade(topic.request(rng), habits.note(rng, other, habits.any_style(rng))).facts


def test_the_grader_shares_no_code_with_the_user_or_with_nanos_words() -> None:
    tree = ast.parse(Path(personal_grader.__file__).read_text(encoding="utf-8"))
    modules = {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module])
    }
    assert modules == {"__future__", "re", "collections.abc", "dataclasses"}
