import json
import random
import re

import pytest

from agentrl.nano import habits, judging, mixture, styled
from agentrl.nano import vocabulary as v
from agentrl.signals.candidates import from_judge
from agentrl.signals.gates import admit, case_of
from agentrl.signals.rules import RuleJudge
from agentrl.signals.votes import read_vote
from agentrl.text.content import message_text
from skills.llm import draft_of

TOPIC = habits.Topic(
    thing="lamp",
    measures=(
        habits.Measure(name="weight", metric="3 kg", imperial="7 lb"),
        habits.Measure(name="length", metric="40 cm", imperial="16 in"),
    ),
)


def test_a_note_shows_its_style() -> None:
    rng = random.Random(0)
    style = {"form": "list", "tone": "dry", "units": "both", "ending": "cheers"}
    assert habits.note(rng, TOPIC, style) == (
        "The lamp:\n- weight: 3 kg (7 lb)\n- length: 40 cm (16 in)\nCheers"
    )
    style = {"form": "sentence", "tone": "formal", "units": "imperial", "ending": "none"}
    assert habits.note(rng, TOPIC, style) in (
        "Certainly.\nThe lamp has weight 7 lb and length 16 in.",
        "With pleasure.\nThe lamp has weight 7 lb and length 16 in.",
    )
    style = {"form": "table", "tone": "dry", "units": "metric", "ending": "regards"}
    assert habits.note(rng, TOPIC, style) == "| weight | 3 kg |\n| length | 40 cm |\nKind regards"


def test_imperial_values_are_the_metric_ones_in_other_units() -> None:
    rng = random.Random(1)
    factors = {"weight": 2.2046, "length": 0.3937, "height": 3.2808, "width": 0.03937, "volume": 0.2642}
    for _ in range(200):
        for fact in habits.topic(rng).measures:
            metric, imperial = int(fact.metric.split()[0]), int(fact.imperial.split()[0])
            assert imperial == round(metric * factors[fact.name])


def test_some_wishes_are_withheld_from_training() -> None:
    assert len(habits.KNOWN_WISHES) == 10
    assert len(habits.WITHHELD_WISHES) == 8
    rng = random.Random(2)
    asked = {wish.split("{")[0] for wish in habits.WITHHELD_WISHES} - {
        wish.split("{")[0] for wish in habits.KNOWN_WISHES
    }
    assert {"That is wrong: use ", "I said "} <= asked
    for _ in range(300):
        drawn = json.dumps([block.text for block in styled.wished(rng).blocks])
        assert not any(f"Hint: {beginning}" in drawn for beginning in asked)


def test_what_a_user_wished_holds_to_the_end_of_a_conversation() -> None:
    rng, checked = random.Random(3), 0
    while checked < 16:
        example = styled.corrected(rng)
        said = [message["content"] for message in example.messages if message["role"] == "user"]
        notes = [message["content"] for message in example.messages if message["role"] == "assistant"]
        if example.blocks or said[1:2] != ["Please use metric units only."]:
            continue
        if any("units" in text for text in said[2:]):
            continue
        checked += 1
        for note in notes[1:]:
            assert not {"lb", "in", "ft", "gal"} & set(re.findall(r"\d (\w+)", note))


def test_every_verdict_is_one_that_the_judge_believes_and_its_hint_passes_the_gates() -> None:
    rng, hints = random.Random(4), 0
    for _ in range(400):
        case = judging.case(rng)
        turn, state = judging.records(case)
        vote = read_vote(json.dumps(case.answer), [message_text(message) for message in state.messages])
        assert not vote.contradicts
        assert (vote.kind, vote.reward, vote.hint) == tuple(
            case.answer[key] for key in ("kind", "reward", "hint")
        )
        if vote.hint is not None:
            hints += 1
            assert admit([from_judge(vote.hint, state)], case_of(turn, state, reward=-1.0)).accepted
    assert hints > 100


async def test_the_rules_and_the_corpus_agree_on_plain_errors() -> None:
    rng, judge = random.Random(5), RuleJudge()
    for draw in (judging.directed, judging.refused):
        for _ in range(100):
            case = draw(rng)
            assert case.answer["reward"] == -1
            assert (await judge.judge(*judging.records(case))).reward == -1


def test_a_refused_command_is_judged_with_the_name_that_the_error_gave() -> None:
    rng = random.Random(6)
    for _ in range(100):
        case = judging.directed(rng)
        new = case.answer["hint"].removeprefix("Use ").split(" instead of ")[0]
        assert new in case.answer["evidence"]
        assert new in case.following[0]["content"]


def test_every_skill_answer_is_a_skill_or_says_that_there_is_none() -> None:
    rng, none = random.Random(7), 0
    for _ in range(200):
        messages, answer = judging.skill_case(rng)
        draft = draft_of(json.dumps(answer), has_failed=False)
        if draft is None:
            none += 1
            continue
        command = answer["golden_workflow"][0].removeprefix("Run ").removesuffix(".")
        assert command in messages[1]["content"]
        assert f"1. Run {command}." in draft.body
    assert 10 < none < 60


@pytest.mark.parametrize(
    "kind", ["judged", "skill_written", "wished", "corrected", "hinted", "refused", "repeat"]
)
def test_the_mixture_holds_every_kind(kind: str) -> None:
    rng = random.Random(8)
    assert kind in {mixture.example(rng).kind for _ in range(1000)}


def test_invented_names_in_questions_are_of_the_corpus_half() -> None:
    rng = random.Random(9)
    for _ in range(100):
        hint = judging.directed(rng).answer["hint"]
        new = hint.removeprefix("Use ").split(" instead of ")[0].split()[0]
        known = {way.split()[0] for operation in v.OPERATIONS for way in operation.alternatives}
        assert new in known or v.half_of(new) == "corpus"
