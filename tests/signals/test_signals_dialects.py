"""Transcripts in the forms in which agents write them; the same story in each of the files."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from agentrl.errors import UserError
from agentrl.signals.evidence import read_evidence
from agentrl.signals.transcripts import Taken, lessons_from
from agentrl.text.content import message_text
from agentrl.types import JSON, LessonState

FILES = Path(__file__).parent / "transcripts"
NAMES = (
    "chat.jsonl",
    "messages.json",
    "responses.json",
    "claude_code.jsonl",
    "codex.jsonl",
    "codex_2025.jsonl",
)


def told(messages: Sequence[JSON]) -> list[tuple[str, str, list[str]]]:
    """Role, text and the arguments of the calls of each message."""
    return [
        (
            message["role"],
            message_text(message),
            [call["function"]["arguments"] for call in message.get("tool_calls") or ()],
        )
        for message in messages
    ]


def taken(path: Path) -> Taken:
    return asyncio.run(lessons_from(read_evidence(path), scope="default", state=LessonState.APPROVED))


def written(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("name", NAMES)
def test_each_form_teaches_what_its_tool_said_after_which_request(name: str) -> None:
    found = taken(FILES / name)

    lesson = found.lessons[0]
    assert lesson.text in (
        'The tool said: "cat: not found; use zorvex instead"',
        'The tool said: "bash: cat: not found; use zorvex instead"',
    )
    assert (lesson.situation, lesson.turn_ids) == (("_", "file", "show", "the"), ()), "it is no turn"
    assert found.num_without_calls == 0


@pytest.mark.parametrize("name", NAMES)
def test_each_form_becomes_the_same_chat(name: str) -> None:
    [transcript, *_] = read_evidence(FILES / name).transcripts

    said = [one for one in told(transcript.messages) if one[0] not in ("system", "developer")]
    assert said[0] == ("user", "Show the file notes.txt.", [])
    assert [one for one in said if one[2]] == [
        ("assistant", "" if name == "codex_2025.jsonl" else "I will look.", ['{"command": "cat notes.txt"}']),
        ("assistant", "", ['{"command": "zorvex notes.txt"}']),
    ]
    outputs = [text for role, text, _ in said if role == "tool"]
    assert outputs[0].removeprefix("bash: ").startswith("cat: not found; use zorvex instead\n")
    assert outputs[1].startswith("buy milk")
    calls = [call["id"] for one in transcript.messages for call in one.get("tool_calls") or ()]
    assert calls == [one["tool_call_id"] for one in transcript.messages if one["role"] == "tool"]


def test_an_outputs_exit_code_is_kept_whatever_stands_round_it() -> None:
    ends = {
        name: told(read_evidence(FILES / name).transcripts[0].messages)
        for name in ("codex.jsonl", "codex_2025.jsonl", "claude_code.jsonl", "messages.json")
    }
    failed = {name: next(text for role, text, _ in said if role == "tool") for name, said in ends.items()}

    shell = "bash: cat: not found; use zorvex instead\n\n[exit code 127]"
    assert failed == {
        "codex.jsonl": shell,
        "codex_2025.jsonl": shell,
        "claude_code.jsonl": "bash: cat: not found; use zorvex instead\n[exit code 1]",
        "messages.json": "cat: not found; use zorvex instead\n[exit code 1]",
    }


@pytest.mark.parametrize("name", ["messages.json", "responses.json"])
def test_a_requests_tools_and_instructions_come_along(name: str) -> None:
    [transcript] = read_evidence(FILES / name).transcripts

    assert told(transcript.messages)[0] == ("system", "You work in a shell.", [])
    parameters = {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}
    function = {"name": "bash", "description": "Run a command.", "parameters": parameters}
    assert transcript.tools == ({"type": "function", "function": function},)


def test_what_a_user_adds_to_a_result_is_the_users() -> None:
    [transcript] = read_evidence(FILES / "messages.json").transcripts

    assert told(transcript.messages)[3:5] == [
        ("tool", "cat: not found; use zorvex instead\n[exit code 1]", []),
        ("user", "Be quick, please.", []),
    ]


def test_agents_within_a_session_have_transcripts_of_their_own_and_the_clients_words_are_nobodys() -> None:
    first, second = read_evidence(FILES / "claude_code.jsonl").transcripts

    assert told(second.messages)[0] == ("user", "Delete the file old.log.", [])
    assert len(first.messages) == 6
    assert "todo" not in str(first.messages)
    assert "Caveat" not in str(first.messages)
    assert [lesson.text for lesson in taken(FILES / "claude_code.jsonl").lessons] == [
        'The tool said: "bash: cat: not found; use zorvex instead"',
        'The tool said: "bash: rm: not found; use trashit instead"',
    ]


def test_a_folder_of_all_forms_is_one_lesson_a_rule() -> None:
    found = taken(FILES)

    assert len(found.lessons) == 2
    assert found.num_known == 5


def test_a_transcript_without_a_call_is_counted(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hi."}]
    used = {"type": "computer_use", "input": {"command": "cat a.txt"}}
    path = written(
        tmp_path / "a.jsonl",
        {"messages": chat},
        {"messages": [chat[0], {"role": "assistant", "content": [used]}, chat[0]]},
    )

    found = taken(path)

    assert (found.num_without_calls, found.lessons) == (2, [])


def test_a_lesson_of_a_transcript_that_names_no_request_waits_to_be_read(tmp_path: Path) -> None:
    greeting = {"role": "assistant", "content": "Here is your report: 12 miles."}
    path = written(
        tmp_path / "a.jsonl",
        {"messages": [greeting, {"role": "user", "content": "No, please use metric units."}]},
    )

    [lesson] = taken(path).lessons

    assert (lesson.situation, lesson.state) == ((), LessonState.PROPOSED)


@pytest.mark.parametrize(
    "row",
    [
        {"type": ["x"], "role": ["user"]},
        {"type": "assistant", "message": "cat"},
        {"type": "response_item", "payload": None},
        {"input": [{"type": "unheard_of", "call": "cat"}]},
        {"messages": [{"role": "assistant", "tool_calls": "cat"}]},
    ],
)
def test_what_is_in_none_of_the_forms_is_refused_with_those_that_can_be_read(
    tmp_path: Path, row: JSON
) -> None:
    with pytest.raises(UserError, match=r"line 1 of .* is neither .* Anthropic's .* Claude Code and Codex"):
        read_evidence(written(tmp_path / "a.jsonl", row))


@pytest.mark.parametrize(
    "row",
    [
        {"type": "assistant", "message": {"content": None}},
        {"type": "assistant", "message": {"content": [1, None, {"type": "tool_use"}]}},
        {"type": "user", "message": {"content": [{"type": "tool_result", "content": {"rows": 3}}]}},
        {"type": "user", "message": {"content": [{"type": "text", "text": 5}]}},
        {"type": "assistant", "message": {"content": "", "tool_calls": "cat"}},
        {"type": "response_item", "payload": {"type": "function_call", "arguments": "[1"}},
        {"type": "response_item", "payload": {"type": "function_call_output", "output": "{}"}},
        {"type": "response_item", "payload": {"type": "custom_tool_call", "input": "*** Begin Patch"}},
        {"type": "response_item", "payload": {"type": "local_shell_call", "action": {"command": [1]}}},
    ],
)
def test_a_broken_message_of_a_session_breaks_nothing(tmp_path: Path, row: JSON) -> None:
    lines = [json.loads(line) for line in (FILES / "claude_code.jsonl").read_text().splitlines()]

    found = taken(written(tmp_path / "a.jsonl", *lines, row))

    assert len(found.lessons) == 2
