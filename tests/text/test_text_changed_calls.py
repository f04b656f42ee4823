"""A call that was run with other arguments was changed; one that came back in another form was not."""

import json
from typing import Any

import pytest

from agentrl.signals.labelled import unsampled
from agentrl.text.changed_calls import calls_in, changed_calls, offered, same_calls, text_of_calls, usable
from agentrl.types import JSON, Reply, ToolCall, Turn

EDIT: JSON = {
    "type": "function",
    "function": {
        "name": "edit_file",
        "parameters": {
            "type": "object",
            "properties": {
                "file_path": {"type": "string"},
                "text": {"type": "string"},
                "line": {"type": "integer", "default": 1},
                "force": {"type": "boolean"},
                "options": {"type": "object"},
            },
            "required": ["file_path"],
        },
    },
}
READ: JSON = {"type": "function", "function": {"name": "read_file", "parameters": {"type": "object"}}}
TOLD: JSON = {"file_path": "src/a.txt", "text": "one\ntwo", "line": 3, "force": True}


def turn(*arguments: JSON, name: str = "edit_file") -> Turn:
    calls = tuple(
        ToolCall(id=f"call{number}", name=name, arguments=json.dumps(one, indent=2))
        for number, one in enumerate(arguments)
    )
    made, _ = unsampled(
        "t", ({"role": "user", "content": "Go."},), (EDIT, READ), Reply(text="", tool_calls=calls), ()
    )
    return made


def ran(*arguments: Any, name: str = "edit_file", prefix: str = "call") -> JSON:
    listed = [
        {"id": f"{prefix}{number}", "type": "function", "function": {"name": name, "arguments": one}}
        for number, one in enumerate(arguments)
    ]
    return {"role": "assistant", "content": "", "tool_calls": listed}


def without(key: str) -> JSON:
    return {name: value for name, value in TOLD.items() if name != key}


@pytest.mark.parametrize(
    "arguments",
    [
        json.dumps(TOLD, separators=(",", ":"), sort_keys=True),
        TOLD,
        TOLD | {"line": 3.0},
        TOLD | {"line": "3", "force": "True"},
        TOLD | {"options": None},
        TOLD | {"options": {}, "cwd": "/home/x"},
        TOLD | {"text": " one  \r\ntwo\n"},
        TOLD | {"file_path": "/home/x/src/a.txt"},
        {"filePath": "src/a.txt", "text": "one\ntwo", "line": 3, "force": True},
        TOLD | {"text": "[4,000 characters omitted]"},
        TOLD | {"text": "***"},
        {},
        "no JSON",
    ],
)
def test_what_clients_do_to_arguments_is_no_change(arguments: Any) -> None:
    assert changed_calls(turn(TOLD), [ran(arguments)]) is None


@pytest.mark.parametrize(
    ("told", "now"),
    [
        (without("line"), without("line") | {"line": 1}),
        (without("force"), without("force") | {"force": False}),
        (TOLD | {"line": 1}, without("line")),
        (TOLD | {"extra": "x"}, TOLD),
        (TOLD | {"options": {"a": None, "b": [1, 2.0]}}, TOLD | {"options": {"b": [1.0, 2], "c": ""}}),
        (TOLD | {"text": "key " + "*" * 20}, TOLD | {"text": "key sk-proj-Ab3dEf6hIj9kLm2n"}),
        (TOLD | {"text": "a" * 250}, TOLD | {"text": "a" * 200}),
    ],
)
def test_what_a_client_fills_in_leaves_out_or_cuts_is_no_change(told: JSON, now: JSON) -> None:
    assert changed_calls(turn(told), [ran(now)]) is None


@pytest.mark.parametrize(
    ("now", "merged"),
    [
        (TOLD | {"text": "one\nthree"}, TOLD | {"text": "one\nthree"}),
        (TOLD | {"text": "one"}, TOLD | {"text": "one"}),
        (TOLD | {"line": 4, "options": None, "cwd": "/"}, TOLD | {"line": 4}),
        (TOLD | {"force": False}, TOLD | {"force": False}),
        (without("force"), without("force")),
        (TOLD | {"options": {"a": 1}}, TOLD | {"options": {"a": 1}}),
        (TOLD | {"file_path": "lib/a.txt", "line": "3"}, TOLD | {"file_path": "lib/a.txt"}),
    ],
)
def test_other_arguments_are_a_change_and_nothing_of_the_clients_form_comes_along(
    now: JSON, merged: JSON
) -> None:
    found = changed_calls(turn(TOLD), [ran(json.dumps(now, separators=(",", ":")))])
    assert found is not None
    assert [(call.id, call.name) for call in found] == [("call0", "edit_file")]
    assert found[0].arguments == json.dumps(merged)


def test_another_tool_is_a_change_only_where_it_was_offered() -> None:
    assert changed_calls(turn(TOLD), [ran({"path": "a"}, name="read_file")]) == (
        ToolCall(id="call0", name="read_file", arguments='{"path": "a"}'),
    )
    for name in ("invalid", "EditFile", "edit-file"):
        assert changed_calls(turn(TOLD), [ran(TOLD, name=name)]) is None


def test_of_several_calls_the_others_stay_as_they_were_and_a_missing_one_is_no_change() -> None:
    told = turn({"file_path": "a"}, {"file_path": "b"})
    first, second = told.reply.tool_calls
    assert changed_calls(told, [ran({"file_path": "a"})]) is None
    assert changed_calls(told, [ran({"file_path": "a"}, {"file_path": "c"})]) == (
        first,
        ToolCall(id=second.id, name=second.name, arguments='{"file_path": "c"}'),
    )


def test_calls_with_ids_of_the_clients_own_are_compared_in_their_order() -> None:
    assert changed_calls(turn(TOLD), [ran(TOLD, prefix="own")]) is None
    assert changed_calls(turn(TOLD), [ran(TOLD | {"line": 9}, prefix="own")]) is not None
    assert changed_calls(turn(TOLD), [ran(TOLD | {"line": 9}, TOLD, prefix="own")]) is None
    assert changed_calls(turn(TOLD), [{"role": "assistant", "content": "Calling tools: edit_file"}]) is None


def test_a_list_of_calls_is_read_back_and_anything_else_is_a_text() -> None:
    calls = turn(TOLD).reply.tool_calls
    assert same_calls(calls_in(text_of_calls(calls)), calls)
    for text in (
        "[]",
        "{}",
        "edit_file",
        "[1]",
        '[{"name": "edit_file"}]',
        '[{"name": "edit_file", "arguments": "x"}]',
    ):
        assert calls_in(text) == ()


def test_a_call_is_usable_where_its_tool_was_offered_and_has_what_it_demands() -> None:
    assert usable(turn(TOLD))
    assert not usable(turn(without("file_path")))
    assert not usable(turn(TOLD, name="other"))
    assert not usable(turn())


def test_a_call_may_be_of_a_tool_that_nobody_offered_only_where_the_turn_made_it_itself() -> None:
    strange = turn(TOLD, name="nope")
    [made] = strange.reply.tool_calls
    assert offered(strange, [made, ToolCall(id="", name="read_file", arguments="{}")])
    assert not offered(strange, [ToolCall(id="", name="nope", arguments="{}")])


@pytest.mark.parametrize(
    ("told", "now"),
    [
        (".", "/home/u/proj"),
        (".", "./"),
        ("", "/home/u"),
        ("src/", "/home/u/src"),
        ("src/", "src"),
        ("src//a", "src/a"),
        ("~/x", "/home/u/x"),
        ("../x", "/home/x"),
        ("my file.txt", "/home/u/my file.txt"),
        ("src/a", "C:\\work\\src\\a"),
        ("src/a", "file:///home/u/src/a"),
    ],
)
def test_another_form_of_a_path_is_no_change(told: str, now: str) -> None:
    assert changed_calls(turn({"file_path": told, "line": 2}), [ran({"file_path": now, "line": 2})]) is None


@pytest.mark.parametrize(
    ("told", "now"),
    [
        ("src/a", "/home/u/src/b"),
        ("../x", "/home/y"),
        ("sed s/a//g", "sed s/a/g"),
        ("http://a", "http:/a"),
        ("go test ./pkg", "go test ./..."),
        ("go test ./internal/server/handlers/deep", "go test ./..."),
        ("ls", "ls --show-hidden"),
        ("ls", "ls ***"),
        ("echo a", "echo masked and truncated"),
        ("if (shown) {", "if (hidden) {"),
        ("f(x)", "f(...x)"),
        ("*** a", "b"),
    ],
)
def test_an_edit_that_looks_like_a_form_or_a_mark_is_a_change(told: str, now: str) -> None:
    assert changed_calls(turn({"text": told}), [ran({"text": now})]) == (
        ToolCall(id="call0", name="edit_file", arguments=json.dumps({"text": now})),
    )


LONG = "one two three " * 5


@pytest.mark.parametrize(
    ("told", "now"),
    [
        (LONG, "one two three ..."),
        (LONG, "one two…three"),
        (LONG, "one two ...(truncated)"),
        (LONG, "one [40 characters omitted] three"),
        (LONG, "one <redacted> two *** three"),
        ("curl -H 'token: abc' x", "curl -H 'token: ********' x"),
        ("a " + "*" * 8 + " b " + LONG, "a " + "*" * 8 + " b one [truncated]"),
    ],
)
def test_a_mark_in_the_place_of_a_piece_is_no_change(told: str, now: str) -> None:
    assert changed_calls(turn({"text": told}), [ran({"text": now})]) is None


def test_a_change_that_nobody_can_read_is_a_change_without_calls() -> None:
    for told, now in (
        ("ls a", "curl -H '" + "*" * 12 + "' b"),
        ("key " + "*" * 12, "rm a"),
        ("ls a", "cat b ...(truncated)"),
    ):
        assert changed_calls(turn({"text": told}), [ran({"text": now})]) == ()


def test_of_nested_arguments_only_the_leaves_that_were_changed_are_taken() -> None:
    told = TOLD | {"options": {"path": "src/a.py", "line": 1, "edits": [{"new": LONG}, {"new": "a"}]}}
    now = {"path": "/home/u/src/a.py", "line": 2, "edits": [{"new": "one ...(truncated)"}, {"new": "b"}]}
    wanted = {"path": "src/a.py", "line": 2, "edits": [{"new": LONG}, {"new": "b"}]}
    found = changed_calls(turn(told), [ran(TOLD | {"options": now})])
    assert found is not None
    assert json.loads(found[0].arguments) == TOLD | {"options": wanted}


def test_of_a_list_that_lost_an_item_the_others_stay_as_they_were_sampled() -> None:
    told, now = {"text": ["src/a", "b", "src/c"]}, {"text": ["/home/u/src/a", "/home/u/src/c"]}
    found = changed_calls(turn(told), [ran(now)])
    assert found is not None
    assert json.loads(found[0].arguments) == {"text": ["src/a", "src/c"]}


@pytest.mark.parametrize("path", ["/home/u/src/a.txt", "src [truncated]", "*" * 8])
def test_another_tool_with_arguments_in_a_clients_form_is_a_change_without_calls(path: str) -> None:
    assert changed_calls(turn(TOLD), [ran({"path": path}, name="read_file")]) == ()


def test_calls_in_another_order_with_ids_of_the_clients_own_are_no_change() -> None:
    told = turn({"file_path": "a"}, {"file_path": "b"})
    assert changed_calls(told, [ran({"file_path": "b"}, {"file_path": "a"}, prefix="own")]) is None
    found = changed_calls(told, [ran({"file_path": "c"}, {"file_path": "/x/a"}, prefix="own")])
    assert found is not None
    assert [json.loads(call.arguments) for call in found] == [{"file_path": "a"}, {"file_path": "c"}]
