"""The turn that a request answers is found in what real clients send back."""

import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import DATA

from agentrl.text.lineage import Lineage, Match, call_ids, decide, next_messages
from agentrl.types import JSON, MatchedBy

LINEAGE = Lineage(b"a secret of this run")
MINTED = "callsess42turn00"
"""The gateway's ids are alphanumeric; the samples were recorded with underscores in them."""


@dataclass(frozen=True)
class Ref:
    id: str
    session: str = "s"


class Log:
    """The turns of one scope, looked up as the store does."""

    def __init__(self) -> None:
        self.turns: dict[str, tuple[str, list[JSON], JSON]] = {}

    def record(self, turn_id: str, messages: list[JSON], reply: JSON, session: str = "s") -> None:
        self.turns[turn_id] = (session, messages, reply)

    def match(self, messages: list[JSON], session: str | None = "s") -> Match:
        ids, keys = call_ids(messages), LINEAGE.prefix_keys(messages)
        last = LINEAGE.last_reply_key(messages)

        def found(test: Any) -> list[Ref]:
            return [Ref(id=i, session=turn[0]) for i, turn in self.turns.items() if test(*turn[1:])]

        return decide(
            messages,
            session=session,
            called=found(lambda asked, reply: set(ids) & set(call_ids([reply]))),
            same_history=found(
                lambda asked, reply: keys and keys[0][1] == LINEAGE.history_key([*asked, reply])
            ),
            same_reply=found(lambda asked, reply: last is not None and last[1] == LINEAGE.reply_key(reply)),
            same_question={
                number: found(lambda asked, reply, key=key: key == LINEAGE.history_key(asked))
                for number, key in LINEAGE.asked_keys(messages)
            },
        )


def chat(body: JSON) -> list[JSON]:
    """The messages of a recorded request, whichever protocol it spoke, as the wire layer hands them on."""
    if "input" in body:
        return [{"role": "system", "content": body.get("instructions", "")}, *responses(body["input"])]
    if "anthropic" in str(body.get("system", "")) or any("tool_use" in str(m) for m in body["messages"]):
        return [{"role": "system", "content": body["system"]}, *anthropic(body["messages"])]
    return list(body["messages"])


def responses(items: Any) -> list[JSON]:
    messages: list[JSON] = []
    for item in [{"role": "user", "content": items}] if isinstance(items, str) else items:
        kind = item.get("type", "message")
        if kind == "message":
            messages.append({"role": item["role"], "content": item["content"]})
        elif kind == "function_call":
            function = {"name": item["name"], "arguments": item["arguments"]}
            call = {"id": item["call_id"], "type": "function", "function": function}
            messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        elif kind == "function_call_output":
            messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": item["output"]})
    return messages


def anthropic(items: list[JSON]) -> list[JSON]:
    messages: list[JSON] = []
    for item in items:
        parts = (
            item["content"]
            if isinstance(item["content"], list)
            else [{"type": "text", "text": item["content"]}]
        )
        said = [part for part in parts if part["type"] not in ("tool_use", "tool_result")]
        calls = [
            {"id": p["id"], "type": "function", "function": {"name": p["name"], "arguments": p["input"]}}
            for p in parts
            if p["type"] == "tool_use"
        ]
        messages += [
            {"role": "tool", "tool_call_id": part["tool_use_id"], "content": part["content"]}
            for part in parts
            if part["type"] == "tool_result"
        ]
        if said or calls:
            messages.append(
                {"role": item["role"], "content": said} | ({"tool_calls": calls} if calls else {})
            )
    return messages


def bodies(name: str) -> list[JSON]:
    return [request["body"] for request in json.loads((DATA / f"{name}.json").read_text())["requests"]]


def first_reply(tool: str, arguments: str = '{"command" :  "echo hi"}', call_id: str = MINTED) -> JSON:
    """What every client of the samples was told first: odd white space on purpose."""
    call = {"id": call_id, "type": "function", "function": {"name": tool, "arguments": arguments}}
    return {
        "role": "assistant",
        "content": "  Let me check.\n\n ",
        "reasoning_content": "I should run it.",
        "tool_calls": [call],
    }


def without_ids(message: JSON) -> JSON:
    return message | {"tool_calls": [call | {"id": "x"} for call in message.get("tool_calls", [])]}


BASH_REPLY = first_reply("bash")
VERIFIERS = first_reply("bash", '{"command": "echo hi"}', "call_1") | {
    "content": "",
    "reasoning_content": None,
}
TOOL_CLIENTS = [
    ("langchain-openai", BASH_REPLY, 0, 1),
    ("litellm", BASH_REPLY, 0, 1),
    ("mini-swe-agent", BASH_REPLY, 0, 1),
    ("mini-swe-agent-responses", VERIFIERS, 0, 1),
    ("openai-agents-chat", BASH_REPLY, 0, 1),
    ("openai-agents-responses", BASH_REPLY, 0, 1),
    ("openclaw", first_reply("exec"), 0, 1),
    ("pydantic-ai", BASH_REPLY, 0, 1),
    ("pydantic-ai", BASH_REPLY, None, 2),
    ("verifiers-bash", VERIFIERS, 0, 1),
    ("claude-code", first_reply("Bash", call_id="toolu_sess42_turn0_0"), 0, 1),
    ("codex-cli", first_reply("exec_command", '{"cmd" :  "echo hi"}'), 0, 1),
]


def asked_first(name: str, first: int | None) -> list[JSON]:
    return [{"role": "user", "content": "Print hi"}] if first is None else chat(bodies(name)[first])


@pytest.mark.parametrize(("name", "reply", "first", "second"), TOOL_CLIENTS)
def test_the_second_request_of_a_tool_client_matches_the_first_reply_by_its_call_id(
    name: str, reply: JSON, first: int | None, second: int
) -> None:
    log = Log()
    log.record("t1", asked_first(name, first), reply)
    messages = chat(bodies(name)[second])
    match = log.match(messages, session=None)
    assert (match.turn_id, match.matched_by) == ("t1", MatchedBy.TOOL_CALL_ID)
    new = next_messages(messages, match.num_messages, asked_first(name, first))
    assert [message["role"] for message in new] == ["tool"], "a context message that moved is no news"


@pytest.mark.parametrize(
    ("name", "reply", "first", "second"), [case for case in TOOL_CLIENTS if case[0] != "openclaw"]
)
def test_it_matches_by_its_history_where_the_ids_say_nothing(
    name: str, reply: JSON, first: int | None, second: int
) -> None:
    log = Log()
    log.record("t1", asked_first(name, first), without_ids(reply))
    match = log.match(chat(bodies(name)[second]), session=None)
    assert (match.turn_id, match.matched_by) == ("t1", MatchedBy.HISTORY)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("mini-swe-agent-textbased", "THOUGHT: list files.\n\n```mswea_bash_command\necho hi\n```\n"),
        ("smolagents-code", "Task done. The answer is 4.</code>\n"),
    ],
)
def test_the_second_request_of_a_text_client_matches_by_its_history(name: str, content: str) -> None:
    asked, again = (chat(body) for body in bodies(name))
    log = Log()
    log.record("t1", asked, {"role": "assistant", "content": content})
    match = log.match(again, session=None)
    assert (match.turn_id, match.matched_by) == ("t1", MatchedBy.HISTORY)
    assert next_messages(again, match.num_messages, asked) == tuple(again[3:])


def test_a_call_id_in_the_text_of_a_reply_is_found_too() -> None:
    asked, again, _ = (chat(body) for body in bodies("smolagents-toolcalling"))
    # The sample holds a hash of this text; the client writes its calls like this.
    call = {
        "id": "call_sess42_turn0_0",
        "type": "function",
        "function": {"name": "bash", "arguments": {"command": "echo hi"}},
    }
    again[2] = {
        "role": "assistant",
        "content": [{"type": "text", "text": f"Let me check.\nCalling tools:\n[{call}]"}],
    }
    log = Log()
    log.record("t1", asked, BASH_REPLY)
    match = log.match(again, session=None)
    assert (match.turn_id, match.matched_by, match.num_messages) == ("t1", MatchedBy.TOOL_CALL_ID, 3)


def test_the_third_request_of_a_client_that_moves_messages_matches_by_its_last_reply_in_the_session() -> None:
    first, second, third = (chat(body) for body in bodies("openclaw"))
    log = Log()
    log.record("t1", first, first_reply("exec"))
    log.record("t2", second, {"role": "assistant", "content": "Task done. The answer is 4. "})
    match = log.match(third)
    assert (match.turn_id, match.matched_by) == ("t2", MatchedBy.LAST_REPLY)
    assert [m["content"] for m in next_messages(third, match.num_messages, second)] == [
        "[Fri 2026-11-20 08:47 UTC] And again"
    ]
    assert log.match(third, session="other").turn_id is None
    assert log.match(third, session=None).turn_id is None


def test_a_reply_that_the_client_dropped_is_still_answered() -> None:
    first, _, third = (chat(body) for body in bodies("mini-swe-agent"))
    log = Log()
    log.record("t1", first, {"role": "assistant", "content": "no command at all"})
    match = log.match(third, session=None)
    assert (match.turn_id, match.matched_by, match.num_messages) == ("t1", MatchedBy.HISTORY, 2)
    assert next_messages(third, match.num_messages, first) == (third[2],)


def test_a_first_request_answers_nothing() -> None:
    log = Log()
    log.record("t1", [{"role": "user", "content": "hi"}], {"role": "assistant", "content": "hello"})
    assert log.match([{"role": "user", "content": "hi"}]) == Match(
        turn_id=None, session=None, matched_by=MatchedBy.NONE, num_messages=0
    )
    assert log.match([{"role": "system", "content": "hi"}]).matched_by is MatchedBy.NONE


def test_a_compacted_history_matches_by_the_last_reply() -> None:
    log = Log()
    reply = {"role": "assistant", "content": "The test passes now."}
    log.record("t9", [{"role": "user", "content": "a long history"}], reply, session="s")
    compacted = [{"role": "user", "content": "(summary)"}, reply, {"role": "user", "content": "good, go on"}]
    assert log.match(compacted).matched_by is MatchedBy.LAST_REPLY
    assert log.match(compacted, session="other").matched_by is MatchedBy.NONE


def test_an_exact_session_wins_a_tie_and_a_tie_that_stays_is_ambiguous() -> None:
    asked, reply = [{"role": "user", "content": "roll"}], {"role": "assistant", "content": "6"}
    log = Log()
    for turn_id, session in (("a", "s1"), ("b", "s2"), ("c", "s3"), ("d", "s3")):
        log.record(turn_id, asked, reply, session)
    again = [*asked, reply, {"role": "user", "content": "and?"}]
    assert log.match(again, session="s2") == Match(
        turn_id="b", session="s2", matched_by=MatchedBy.HISTORY, num_messages=2
    )
    for session in ("s3", "s4", None):
        assert log.match(again, session=session) == Match(
            turn_id=None, session=None, matched_by=MatchedBy.AMBIGUOUS, num_messages=2
        )


def test_rules_are_asked_in_their_order() -> None:
    messages = [
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "v"},
    ]
    called, history, reply, question = (Ref(id=name) for name in ("called", "history", "reply", "question"))
    everything = {
        "called": [called],
        "same_history": [history],
        "same_reply": [reply],
        "same_question": {1: [question]},
    }
    for first, how in [
        ("called", MatchedBy.TOOL_CALL_ID),
        ("same_history", MatchedBy.HISTORY),
        ("same_reply", MatchedBy.LAST_REPLY),
        ("same_question", MatchedBy.HISTORY),
    ]:
        match = decide(messages, session="s", **everything)
        assert match.matched_by is how
        assert match.turn_id == first.removeprefix("same_")
        del everything[first]


def asks(*texts: str) -> list[JSON]:
    return [{"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(texts)]


def test_what_clients_do_to_messages_changes_no_key() -> None:
    history = [{"role": "system", "content": "a"}, {"role": "user", "content": "Print hi"}, BASH_REPLY]
    key = LINEAGE.history_key(history)
    call = BASH_REPLY["tool_calls"][0]
    compact = call | {"id": "other", "function": {"name": "bash", "arguments": {"command": "echo hi"}}}
    told = {"role": "assistant", "content": "Let me check.", "tool_calls": [compact], "x_extra": {"sid": 1}}
    for changed in (
        [history[1], told],
        [
            {"role": "developer", "content": "b"},
            {"role": "user", "content": [{"type": "text", "text": " Print hi\n"}]},
            told,
        ],
        [history[1] | {"cache_control": {}}, told | {"content": "<think>\nhm\n</think>\n\nLet me check."}],
        [history[1], {"role": "assistant", "content": "Let me check."}, told | {"content": None}],
        [
            history[1],
            told
            | {
                "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Let me check."}]
            },
        ],
    ):
        assert LINEAGE.history_key(changed) == key
    for other in (
        [history[1]],
        [history[1], told | {"content": "Let me see."}],
        [history[1], told | {"tool_calls": []}],
        [
            history[1],
            told
            | {"tool_calls": [compact | {"function": {"name": "sh", "arguments": {"command": "echo hi"}}}]},
        ],
        [history[1], told, {"role": "user", "content": ""}],
        [{"role": "tool", "content": "Print hi"}, told],
    ):
        assert LINEAGE.history_key(other) != key


def test_parts_that_are_no_text_count_and_their_cache_marks_do_not() -> None:
    image = {"type": "image_url", "image_url": {"url": "a.png"}}
    key = LINEAGE.history_key([{"role": "user", "content": [image]}])
    marked = image | {"cache_control": {"type": "ephemeral"}}
    assert LINEAGE.history_key([{"role": "user", "content": [marked]}]) == key
    other = image | {"image_url": {"url": "b.png"}}
    assert LINEAGE.history_key([{"role": "user", "content": [other]}]) != key


def test_numbers_that_javascript_writes_anew_are_the_same_arguments() -> None:
    one, two = (
        {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": text}}]}
        for text in ('{"x": 1.0, "y": [2.50, true]}', '{"y":[2.5,true],"x":1}')
    )
    assert LINEAGE.reply_key(one) == LINEAGE.reply_key(two)
    broken = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": '{"x": '}}]}
    assert LINEAGE.reply_key(broken) != LINEAGE.reply_key(one)


def test_keys_need_the_secret_and_task_keys_do_not() -> None:
    messages = [{"role": "system", "content": "x"}, {"role": "user", "content": " Print\n hi "}]
    other = Lineage(b"another secret of a run")
    assert LINEAGE.history_key(messages) != other.history_key(messages)
    assert LINEAGE.task_key(messages) == other.task_key(asks("Print hi", "a")) == "272671de03b42f2e"
    with pytest.raises(ValueError, match="token_bytes"):
        Lineage(b"short")


def test_prefixes_end_in_replies_longest_first_and_are_histories_themselves() -> None:
    messages = [{"role": "system", "content": "s"}, *asks("u", "a", "v", "b", "w")]
    keys = LINEAGE.prefix_keys(messages)
    assert [number for number, _ in keys] == [5, 3]
    assert keys == [(5, LINEAGE.history_key(messages[:5])), (3, LINEAGE.history_key(messages[:3]))]
    assert LINEAGE.asked_keys([*messages, {"role": "user", "content": "x"}]) == [
        (6, LINEAGE.history_key(messages))
    ]


contents = (
    st.text(max_size=5)
    | st.none()
    | st.lists(st.builds(dict, type=st.just("text"), text=st.text(max_size=3)))
)
any_messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": contents},
        optional={"tool_calls": st.just([{"function": {"name": "f", "arguments": "{}"}}])},
    ),
    max_size=6,
)


@given(messages=any_messages, tail=any_messages)
@settings(max_examples=200, deadline=None)
def test_a_turn_is_found_in_any_history_that_begins_with_it(messages: list[JSON], tail: list[JSON]) -> None:
    reply = {"role": "assistant", "content": "the very reply"}
    new = [{"role": "user", "content": "next"}, *(m | {"role": "user"} for m in tail)]
    log = Log()
    log.record("t", messages, reply)
    match = log.match([*messages, reply, *new], session=None)
    assert (match.turn_id, match.num_messages) == ("t", len(messages) + 1)
    assert next_messages([*messages, reply, *new], match.num_messages) == tuple(new)
