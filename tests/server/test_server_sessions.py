"""Sessions, purposes, arms and kinds of turns, from whatever a client happens to send."""

from pathlib import Path
from typing import Any

import pytest
from server_house import BASH, House, calls, eventually, says, serving
from starlette.datastructures import Headers

from agentrl.types import Arm, Purpose, Turn, TurnKind
from server.marks import marks_of
from server.request import Caller
from server.side import kind_of_turn

ANYBODY = Caller(scope="default")


async def turn_after(house: House, *messages: Any, **options: Any) -> Turn:
    reply = await house.ask(*messages, **options)
    assert reply.status_code == 200, reply.text
    return await house.turn(reply.headers["X-Turn-Id"])


async def test_a_session_is_named_by_the_url_a_header_the_body_or_the_key(tmp_path: Path) -> None:
    async with serving(tmp_path, lambda prompt, sampling: says("Ok.")) as house:
        by_url = await turn_after(house, "Hi", path="/s/url-1", headers={"X-Session-Id": "header-1"})
        by_header = await turn_after(house, "Hi", headers={"X-Session-Id": "header-1"}, session_id="body-1")
        by_body = await turn_after(house, "Hi", session_id="body-1")
        by_metadata = await turn_after(house, "Hi", metadata={"session_id": "meta-1"})
        by_key = await turn_after(house, "Hi", headers={"Authorization": "Bearer anything/s/key-1"})

        sessions = [turn.session for turn in (by_url, by_header, by_body, by_metadata, by_key)]
        assert sessions == ["url-1", "header-1", "body-1", "meta-1", "key-1"]


@pytest.mark.parametrize(
    "header",
    [
        "X-Session-ID",
        "x-session-affinity",
        "session-id",
        "thread-id",
        "X-Claude-Code-Session-Id",
        "X-SMG-Routing-Key",
    ],
)
def test_the_marks_that_clients_set_by_themselves_are_known(header: str) -> None:
    assert marks_of(Headers({header: "abc"}), ANYBODY).session == "abc"


def test_openclaw_names_its_session_in_its_first_message() -> None:
    headers = Headers({"traceparent": "00-1-2-01", "user-agent": "OpenAI/JS 7.15.0"})
    messages = [
        {"role": "system", "content": "x"},
        {"role": "user", "content": "ctx sessionId=agent:main:s1 end"},
    ]

    assert marks_of(headers, ANYBODY, messages=messages).session == "agent:main:s1"
    assert marks_of(Headers({}), ANYBODY, messages=messages).session is None


@pytest.mark.parametrize("name", ["with space", "x" * 201, "ü"])
async def test_a_session_that_cannot_be_used_is_refused(tmp_path: Path, name: str) -> None:
    async with serving(tmp_path, []) as house:
        refused = await house.ask("Hi", session_id=name)

        assert refused.status_code == 400
        assert refused.json()["error"]["code"] == "invalid_session"


@pytest.mark.parametrize(
    ("url_eval", "header", "key", "purpose"),
    [
        (False, None, Purpose.TRAIN, Purpose.TRAIN),
        (True, None, Purpose.TRAIN, Purpose.EVAL),
        (False, "eval", Purpose.TRAIN, Purpose.EVAL),
        (False, "off", Purpose.TRAIN, Purpose.OFF),
        (True, "train", Purpose.TRAIN, Purpose.EVAL),
        (False, "train", Purpose.OFF, Purpose.OFF),
        (True, None, Purpose.OFF, Purpose.OFF),
    ],
)
def test_of_several_purposes_the_one_furthest_from_training_stands(
    url_eval: bool, header: str | None, key: Purpose, purpose: Purpose
) -> None:
    headers = Headers({} if header is None else {"X-Purpose": header})

    assert marks_of(headers, Caller(scope="s", purpose=key), url_eval=url_eval).purpose is purpose


async def test_the_url_can_say_eval_with_and_without_a_session(tmp_path: Path) -> None:
    async with serving(tmp_path, lambda prompt, sampling: says("Ok.")) as house:
        alone = await turn_after(house, "Hi", path="/eval")
        inside = await turn_after(house, "Hi", path="/s/a/eval")
        named_eval = await turn_after(house, "Hi", path="/s/eval")

        assert (alone.purpose, inside.purpose, inside.session) == (Purpose.EVAL, Purpose.EVAL, "a")
        assert (named_eval.purpose, named_eval.session) == (Purpose.TRAIN, "eval")


async def test_an_unknown_purpose_is_refused_and_not_trained_on(tmp_path: Path) -> None:
    async with serving(tmp_path, []) as house:
        refused = await house.ask("Hi", headers={"X-Purpose": "evaluate"})

        assert refused.status_code == 400
        assert "train, eval or off" in refused.json()["error"]["message"]


async def test_the_environment_may_name_the_task(tmp_path: Path) -> None:
    async with serving(tmp_path, lambda prompt, sampling: says("Ok.")) as house:
        named = await turn_after(house, "Hi", headers={"X-Task-Key": "rule-7"})
        first, second = await turn_after(house, "Hi  you"), await turn_after(house, " Hi you ")

        assert named.task_key == "rule-7"
        assert first.task_key == second.task_key
        assert len(first.task_key) == 16


# kinds


async def test_a_request_without_tools_in_a_session_with_tools_is_a_side_request(tmp_path: Path) -> None:
    async with serving(tmp_path, [calls("ls"), says("Files"), calls("pwd")]) as house:
        main = await turn_after(house, "List.", tools=[BASH], path="/s/a")
        side = await turn_after(house, "What did they ask?", path="/s/a")
        chosen_off = await turn_after(house, "Go.", tools=[BASH], tool_choice="none", path="/s/a")

        assert (main.kind, side.kind, chosen_off.kind) == (TurnKind.MAIN, TurnKind.SIDE, TurnKind.MAIN)
        assert side.kind_reason == "no tools in a session that has them"


@pytest.mark.parametrize(
    ("messages", "kind"),
    [
        (["You are a title generator. You output ONLY a thread title.", "List files"], TurnKind.SIDE),
        (["Be brief.", "List files", "Ok.", "Summarize the conversation so far."], TurnKind.SIDE),
        (
            ["Be brief.", "List", "Ok.", "Please create a detailed summary of the conversation above"],
            TurnKind.SIDE,
        ),
        (["Be brief.", "Generate a title for my essay on whales."], TurnKind.MAIN),
        (["Be brief.", "Summarize this file."], TurnKind.MAIN),
    ],
)
def test_titles_and_summaries_are_told_by_what_they_ask_for(messages: list[str], kind: TurnKind) -> None:
    roles = ["system", "user", "assistant", "user"]
    said = [{"role": role, "content": text} for role, text in zip(roles, messages, strict=False)]

    assert kind_of_turn(None, said, has_tools=False, session_has_tools=False)[0] is kind


async def test_a_client_may_declare_the_kind(tmp_path: Path) -> None:
    async with serving(tmp_path, lambda prompt, sampling: says("Ok.")) as house:
        side = await turn_after(house, "Hi", tools=[BASH], headers={"X-Turn-Type": "side"})

        assert (side.kind, side.kind_reason) == (TurnKind.SIDE, "declared by the client")


async def test_a_side_request_leaves_the_turn_before_it_open_for_its_true_answer(tmp_path: Path) -> None:
    async with serving(tmp_path, [calls("ls"), says("A title"), says("Done.")]) as house:
        first = (await house.ask("List.", tools=[BASH], path="/s/a")).json()
        said = {key: first["choices"][0]["message"][key] for key in ("role", "tool_calls")}
        user = {"role": "user", "content": "List."}
        await house.ask(user, said, "Summarize the conversation.", path="/s/a")
        turn_id = first["id"].removeprefix("chatcmpl-")
        assert await house.runtime.log.next_state(turn_id) is None

        result = {"role": "tool", "tool_call_id": said["tool_calls"][0]["id"], "content": "a.txt"}
        await house.ask(user, said, result, tools=[BASH], path="/s/a")
        state = await house.runtime.log.next_state(turn_id)
        assert state is not None
        assert [one["content"] for one in state.messages] == ["a.txt"]


async def test_a_summary_in_mid_task_still_brings_the_results_of_the_calls(tmp_path: Path) -> None:
    async with serving(tmp_path, [calls("ls"), says("Summary.")]) as house:
        first = (await house.ask("List.", tools=[BASH])).json()
        said = {key: first["choices"][0]["message"][key] for key in ("role", "tool_calls")}
        result = {"role": "tool", "tool_call_id": said["tool_calls"][0]["id"], "content": "a.txt"}
        side = await turn_after(house, {"role": "user", "content": "List."}, said, result, "Compact it.")

        state = await house.runtime.log.next_state(first["id"].removeprefix("chatcmpl-"))
        assert side.kind is TurnKind.SIDE
        assert state is not None
        assert [one["content"] for one in state.messages] == ["a.txt"]


# arms


async def test_about_the_control_share_of_sessions_is_served_from_version_0(tmp_path: Path) -> None:
    async with serving(tmp_path, lambda prompt, sampling: says("Ok."), learn__control_share=0.5) as house:
        await house.engine.load_version(3, tmp_path, serve=True)
        turns = [await turn_after(house, "Hi", path=f"/s/{number}") for number in range(40)]
        again = [await turn_after(house, "Hello", path=f"/s/{number}") for number in range(40)]

        arms = [turn.arm for turn in turns]
        assert 8 <= arms.count(Arm.CONTROL) <= 32
        assert [turn.arm for turn in again] == arms
        assert {(turn.arm, turn.completion.version) for turn in turns} == {
            (Arm.CONTROL, 0),
            (Arm.LEARNING, 3),
        }


async def test_evaluations_are_never_control(tmp_path: Path) -> None:
    async with serving(tmp_path, lambda prompt, sampling: says("Ok."), learn__control_share=1.0) as house:
        evaluated = await turn_after(house, "Hi", path="/eval")
        trained = await turn_after(house, "Hi")

        assert (evaluated.arm, trained.arm) == (Arm.LEARNING, Arm.CONTROL)


async def test_idle_sessions_are_abandoned(tmp_path: Path) -> None:
    async with serving(tmp_path, lambda prompt, sampling: says("Ok."), server__idle_s=0.2) as house:
        turn = await turn_after(house, "Hi", path="/s/a")

        state = await eventually(lambda: house.runtime.log.next_state(turn.id))
        assert state.end == "abandoned"
        assert (await house.runtime.log.counts())["ends.abandoned"] == 1
