"""Which privileged text the teacher sees, and where."""

from dataclasses import dataclass

import pytest

from agentrl.recipes import axes
from agentrl.teacher.contexts import CONTEXTS, blocks
from agentrl.types import (
    JSON,
    Arm,
    Block,
    Completion,
    FinishReason,
    MatchedBy,
    NextState,
    Purpose,
    Reply,
    Sampling,
    Signal,
    SignalSource,
    Skill,
    Turn,
    TurnKind,
    VersionSpan,
)

TURN = Turn(
    id="t1",
    request_id="r1",
    session="s1",
    scope="default",
    parent=None,
    matched_by=MatchedBy.NONE,
    kind=TurnKind.MAIN,
    kind_reason="tools",
    purpose=Purpose.TRAIN,
    arm=Arm.LEARNING,
    task_key="k1",
    messages=({"role": "user", "content": "Show notes.txt."},),
    tools=(),
    prompt_ids=(1, 2),
    prompt_built_by="rendered: first turn",
    completion=Completion(
        token_ids=(3,),
        logprobs=(-0.5,),
        raw_logprobs=(-0.5,),
        num_allowed=(9,),
        finish_reason=FinishReason.STOP,
        version_spans=(VersionSpan(version=0, start=0, end=1),),
    ),
    reply=Reply(text="x"),
    sampling=Sampling(),
    policy="default",
)


@dataclass(frozen=True)
class Claim:
    signals: tuple[Signal, ...] = ()
    next_state: NextState | None = None
    turn: Turn = TURN


def signal(source: SignalSource, hint: str | None = None, preferred: str | None = None) -> Signal:
    return Signal(turn_id="t1", source=source, hint=hint, preferred=preferred)


def answered(*messages: JSON) -> Claim:
    return Claim(next_state=NextState(turn_id="t1", messages=messages))


def test_a_hint_stands_in_a_block_of_its_own_before_the_answer() -> None:
    claim = Claim((signal(SignalSource.RULE, "use zap instead"),))
    assert blocks(axes.HindsightHint(), claim) == [Block(position="tail", text="Hint: use zap instead")]


def test_the_most_trusted_source_gives_the_hint_even_when_others_say_more() -> None:
    texts = {
        SignalSource.RULE: "a rule's rather long sentence",
        SignalSource.JUDGE: "a judge's sentence",
        SignalSource.ENVIRONMENT: "an env",
        SignalSource.USER: "me",
    }
    signals = [signal(source, text) for source, text in texts.items()]
    chosen = []
    while signals:
        (block,) = blocks(axes.HindsightHint(), Claim(tuple(signals)))
        chosen.append(block.text.removeprefix("Hint: "))
        signals = [item for item in signals if item.hint != chosen[-1]]

    assert chosen == ["me", "an env", "a judge's sentence", "a rule's rather long sentence"]


def test_within_a_source_the_longest_hint_is_taken_and_of_equals_the_first() -> None:
    hints = ("use zip", "use zip here", "use zap here")
    claim = Claim(tuple(signal(SignalSource.JUDGE, hint) for hint in hints))
    assert blocks(axes.HindsightHint(), claim)[0].text == "Hint: use zip here"


def test_signals_without_a_hint_are_passed_over() -> None:
    claim = Claim(
        (signal(SignalSource.USER), signal(SignalSource.USER, "  "), signal(SignalSource.RULE, " use zap\n"))
    )
    assert blocks(axes.HindsightHint(), claim)[0].text == "Hint: use zap"


@pytest.mark.parametrize(
    "context",
    [axes.NoContext(), axes.HindsightHint(), axes.Solution(), axes.SkillContext(), axes.EnvFeedback()],
)
def test_a_turn_without_the_context_has_no_block(context: axes.Context) -> None:
    assert blocks(context, Claim((signal(SignalSource.USER),))) == []


def test_no_context_shows_nothing_that_is_known() -> None:
    claim = Claim((signal(SignalSource.USER, "use zap", "zap notes.txt"),))
    assert blocks(axes.NoContext(), claim, [Skill(name="a", description="", body="b")]) == []


def test_a_reference_solution_is_what_would_have_been_preferred() -> None:
    claim = Claim(
        (signal(SignalSource.JUDGE, "no", "a long judged answer"), signal(SignalSource.USER, None, "42"))
    )
    assert blocks(axes.Solution(), claim) == [Block(position="last_user", text="Reference solution: 42")]


def test_each_skill_is_a_block_with_its_name_and_body() -> None:
    skills = [
        Skill(name="zap-files", description="d", body="Use zap.\n"),
        Skill(name="b", description="", body="c"),
    ]
    assert blocks(axes.SkillContext(), Claim(), skills) == [
        Block(position="system", text="Skill: zap-files\nUse zap."),
        Block(position="system", text="Skill: b\nc"),
    ]


def test_feedback_is_the_text_of_what_followed_and_keeps_its_end() -> None:
    claim = answered(
        {"role": "tool", "content": "cat: refused\n[exit code 1]"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "no!"}, {"type": "image_url", "image_url": {}}],
        },
        {"role": "tool", "content": None},
    )
    assert blocks(axes.EnvFeedback(), claim) == [
        Block(position="tail", text="Feedback: cat: refused\n[exit code 1]\nno!")
    ]
    assert blocks(axes.EnvFeedback(max_chars=3), claim)[0].text == "Feedback: no!"


@pytest.mark.parametrize("position", ["system", "last_user", "tail"])
def test_a_recipe_may_move_the_block(position: axes.Position) -> None:
    claim = Claim((signal(SignalSource.RULE, "use zap"),))
    assert blocks(axes.HindsightHint(position=position), claim)[0].position == position


def test_every_context_of_the_schema_has_a_function_of_that_name() -> None:
    options = (axes.NoContext, axes.HindsightHint, axes.Solution, axes.SkillContext, axes.EnvFeedback)
    assert {option().name for option in options} == set(CONTEXTS)
