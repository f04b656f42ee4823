"""The answer that a conversation got once a turn had been told what to do instead is learned on that turn's prompt."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from learner_run import NOW, Run, write_base

from agentrl.learner.held_out import is_held_out
from agentrl.learner.next_answers import next_answers
from agentrl.store.verify import verify
from agentrl.types import RedactedSpan, Reply, Signal, SignalSource, ToolCall, Turn
from server.inspect import explain_turn

TOLD = "Use vexol instead of cat."


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("next_answers") / "base")


def conversation(
    run: Run,
    *,
    hint: str | None = TOLD,
    said: str = TOLD,
    calls: tuple[ToolCall, ...] = (),
    **changes: object,
) -> tuple[Turn, Turn]:
    """A turn that was told what to do instead, and the one that its conversation went on with.

    Args:
        said: what the conversation itself heard of it.
    """
    told = run.turn("Show a.txt", "cat a.txt", turn_id="first", session="one")
    [first] = run.record(replace(told, reply=Reply(text="cat a.txt", tool_calls=calls)), hint=hint)
    later = run.turn(
        f"Show a.txt. No. {said}",
        "vexol a.txt",
        **({"turn_id": "later", "session": "one", "parent": "first"} | changes),
    )
    run.record(later)
    return first, later


def learned(run: Run) -> list[tuple[str, tuple[int, ...]]]:
    """Source and ids of each sample of the turn that was told."""
    with run.learner() as learner:
        claims = learner.log.records(["first"])
        built = learner.builder.build(claims, newest_version=0)
        assert not built.dropped
        assert all(sample.turn_ids == ("first",) for sample in built.samples)
        return [(sample.source, sample.token_ids) for sample in built.samples]


def test_the_answer_behind_a_hint_is_learned_on_the_prompt_of_the_turn_that_was_told(
    tmp_path: Path, base: Path
) -> None:
    run = Run(tmp_path / "run", base)
    first, later = conversation(run)

    assert learned(run) == [
        ("sampled", first.prompt_ids + first.completion.token_ids),
        ("next_answer", first.prompt_ids + later.completion.token_ids),
    ]


def test_the_teacher_reads_the_hint_before_it_and_no_log_prob_of_its_own_prompt_counts(
    tmp_path: Path, base: Path
) -> None:
    run = Run(tmp_path / "run", base)
    conversation(run)
    with run.learner() as learner:
        own, answer = learner.builder.build(learner.log.records(["first"]), newest_version=0).samples
    assert own.teacher is not None
    assert answer.teacher is not None
    assert [block.text for block in answer.teacher.blocks] == [f"Hint: {TOLD}"]
    assert answer.teacher.blocks == own.teacher.blocks
    assert answer.behavior_logprobs is None


def test_a_step_counts_the_turn_once_and_leaves_the_other_to_its_own_story(
    tmp_path: Path, base: Path
) -> None:
    run = Run(tmp_path / "run", base)
    conversation(run)
    with run.learner() as learner:
        learner.loop.start()
        learner.work()
        [step] = learner.journal.of("step")
    assert step["num_turns"] == 1
    metrics = step["metrics"]
    assert isinstance(metrics, dict)
    assert metrics["num_next_answer"] == 1.0
    assert run.account() == (2, 2, {}, {}), "its ids are in what serves, although nothing was said of it"


def test_an_answer_that_was_lent_is_explained_by_the_step_that_trained_it(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base)
    conversation(run)
    with run.learner() as learner:
        learner.loop.start()
        learner.work()
    story = asyncio.run(explain_turn(run.path, "later"))

    assert story["fate"] == "trained"
    assert [(step["version"], step["use"]) for step in story["steps"]] == [(1, 0)]
    [entry] = story["taught"]
    assert entry["note"] == (
        "its answer was learned on the prompt of turn first, whose conversation had told it what to do instead"
    )
    assert verify(run.path) == []


def test_with_its_version_rolled_back_a_lent_answer_is_set_aside_too(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base)
    conversation(run)
    with run.learner() as learner:
        learner.loop.start()
        learner.work()
        learner.log.rollback("default", 0, "bad")
    assert run.account() == (2, 0, {"rolled_back": 2}, {})


def test_an_answer_that_was_lent_is_still_taught_what_is_said_of_itself_later(
    tmp_path: Path, base: Path
) -> None:
    run = Run(tmp_path / "run", base)
    conversation(run)
    with run.learner() as learner:
        learner.loop.start()
        learner.work()
        word = Signal(turn_id="later", source=SignalSource.USER, hint="Use blip.", created_at=4e9)
        asyncio.run(run._log([], [word]))
        assert run.account() == (2, 1, {}, {"waiting": 1})
        learner.loop._refreshed = -float("inf")
        learner.work()
    assert run.account() == (2, 2, {}, {})
    assert [step["use"] for step in asyncio.run(explain_turn(run.path, "later"))["steps"]] == [0, 1]


@pytest.mark.parametrize(
    ("said", "used"),
    [
        ("The tool said:  use VEXOL instead\nof cat.", True),
        ("That was not it.", False),
        ("cat? Here it is vexol.", True),
        ("Use blip.", False),
    ],
    ids=["in other lines", "not told", "told its name in other words", "told another"],
)
def test_a_hint_that_the_conversation_never_saw_opens_no_next_answer(
    tmp_path: Path, base: Path, said: str, used: bool
) -> None:
    run = Run(tmp_path / "run", base)
    call = ToolCall(id="c1", name="bash", arguments='{"command": "cat a.txt"}')
    conversation(run, said=said, calls=(call,))

    assert [source for source, _ in learned(run)] == ["sampled"] + ["next_answer"] * used


@pytest.mark.parametrize(
    "changes",
    [
        {"parent": None},
        {"session": "two"},
        {"redacted_spans": (RedactedSpan(path="reply.text", start=0, end=2, rule="key"),)},
    ],
    ids=["of no conversation", "of another session", "with a secret"],
)
def test_other_answers_are_left_out(tmp_path: Path, base: Path, changes: dict[str, object]) -> None:
    run = Run(tmp_path / "run", base)
    conversation(run, **changes)

    assert [source for source, _ in learned(run)] == ["sampled"]


def test_what_was_set_aside_or_stands_in_the_gates_probe_is_left_out(tmp_path: Path, base: Path) -> None:
    aside = Run(tmp_path / "aside", base)
    conversation(aside)
    with aside.learner() as learner:
        learner.log.reject(["later"], "gate")
    assert [source for source, _ in learned(aside)] == ["sampled"]

    probe = Run(tmp_path / "probe", base)
    conversation(probe, turn_id=next(name for name in map(str, range(100)) if is_held_out(name)))
    assert [source for source, _ in learned(probe)] == ["sampled"]


@pytest.mark.parametrize(
    ("said", "used"),
    [
        ({"hint": "Use blip."}, False),
        ({"reward": -1.0}, False),
        ({"preferred": "blip a.txt"}, False),
        ({"reward": 1.0}, True),
    ],
    ids=["told what to do", "punished", "rewritten", "praised"],
)
def test_an_answer_that_was_itself_corrected_is_left_out(
    tmp_path: Path, base: Path, said: dict[str, Any], used: bool
) -> None:
    run = Run(tmp_path / "run", base)
    conversation(run)
    asyncio.run(run._log([], [Signal(turn_id="later", source=SignalSource.USER, created_at=NOW, **said)]))
    assert [source for source, _ in learned(run)] == ["sampled"] + ["next_answer"] * used


@pytest.mark.parametrize(
    ("reason", "used"),
    [
        ("no context", True),
        ("already right", True),
        ("expired", True),
        ("contradicted", False),
        ("rolled_back", False),
        ("untrusted", False),
        ("redacted sample", False),
        ("held_out", False),
    ],
)
def test_an_answer_that_taught_nothing_by_itself_is_used_and_one_that_was_refused_is_not(
    tmp_path: Path, base: Path, reason: str, used: bool
) -> None:
    run = Run(tmp_path / "run", base)
    conversation(run)
    with run.learner() as learner:
        learner.log.reject(["later"], reason)
    assert [source for source, _ in learned(run)] == ["sampled"] + ["next_answer"] * used


def test_a_turn_that_nobody_told_anything_has_none(tmp_path: Path, base: Path) -> None:
    for hint, known in ((TOLD, ["first"]), (None, [])):
        run = Run(tmp_path / str(hint), base)
        conversation(run, hint=hint)
        with run.learner() as learner:
            assert list(next_answers(learner.log, learner.log.records(["first"]))) == known


CAT, VEXOL, WHICH = (
    (ToolCall(id="c1", name="bash", arguments=json.dumps({"command": f"{name} a.txt"})),)
    for name in ("cat", "vexol", "which vexol")
)


def closed(
    run: Run,
    said: str = TOLD,
    calls: tuple[ToolCall, ...] = VEXOL,
    between: tuple[str, ...] = (),
    output: str = "milk",
    reminder: str | None = None,
    **changes: Any,
) -> tuple[Turn, Turn]:
    """A call, the reply that closed its request, what the user said to that, and what he was answered.

    Args:
        between: what he had said in the meantime, each answered with "Yes.".
        reminder: what the client put in behind each of his messages.
    """
    called = run.turn("Show a.txt", "cat a.txt", turn_id="first", session="one")
    called = replace(called, reply=Reply(text="cat a.txt", tool_calls=CAT))
    messages = (*called.messages, {"role": "assistant", "content": ""}, {"role": "tool", "content": output})
    turns = [
        run.turn("Show a.txt", "Done.", turn_id="closing", session="one", parent="first", messages=messages)
    ]
    for number, text in enumerate((*between, said)):
        messages = (*messages, {"role": "assistant", "content": "Yes."}, {"role": "user", "content": text})
        if reminder is not None:
            messages = (*messages, {"role": "user", "content": reminder})
        fields = {"turn_id": f"later{number}", "session": "one", "parent": turns[-1].id, "messages": messages}
        turns.append(run.turn("Show a.txt", "vexol a.txt", **(fields | changes)))
    turns[-1] = replace(turns[-1], reply=Reply(text="vexol a.txt", tool_calls=calls))
    [first] = run.record(called, hint=TOLD, evidence="behind turn closing: the user's words")
    run.record(*turns)
    return first, turns[-1]


def test_a_hint_with_white_space_around_it_was_said_in_its_own_conversation(
    tmp_path: Path, base: Path
) -> None:
    run = Run(tmp_path / "run", base)
    conversation(run, hint=f"{TOLD}\n")

    assert [source for source, _ in learned(run)] == ["sampled", "next_answer"]


def test_a_clients_reminders_are_no_words_of_the_user(tmp_path: Path, base: Path) -> None:
    run = Run(tmp_path / "run", base)
    first, later = closed(run, reminder="<system-reminder>Be brief.</system-reminder>")

    assert learned(run)[1:] == [("next_answer", first.prompt_ids + later.completion.token_ids)]


@pytest.mark.parametrize("output", ["milk", "milk (see also vexol)", TOLD])
def test_of_a_call_that_was_spoken_of_behind_the_closing_reply_the_call_that_came_then_is_learned(
    tmp_path: Path, base: Path, output: str
) -> None:
    run = Run(tmp_path / "run", base)
    first, later = closed(run, output=output)

    assert learned(run) == [
        ("sampled", first.prompt_ids + first.completion.token_ids),
        ("next_answer", first.prompt_ids + later.completion.token_ids),
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"calls": ()},
        {"calls": CAT},
        {"calls": WHICH},
        {"said": f"{TOLD} And now show b.txt."},
        {"said": "Use blip."},
        {"between": ("And b.txt?",)},
        {"said": "And now vexol b.txt, please."},
        {"said": "And b.txt?", "output": TOLD},
        {"parent": None},
        {"redacted_spans": (RedactedSpan(path="reply.text", start=0, end=2, rule="key"),)},
    ],
    ids=[
        "words",
        "the same again",
        "another call",
        "a request besides",
        "told another",
        "not the first words",
        "its name in another request",
        "told by the tool",
        "of no conversation",
        "with a secret",
    ],
)
def test_other_later_answers_are_left_out(tmp_path: Path, base: Path, changes: dict[str, Any]) -> None:
    run = Run(tmp_path / "run", base)
    closed(run, **changes)

    assert [source for source, _ in learned(run)] == ["sampled"]
