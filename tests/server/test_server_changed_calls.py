"""A call that a person changed before it ran is a preference, and what it returned is nobody's reward."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rewrites_house import Told, ask, end_of, pairs_of, reply, signal_of, state_of, user
from server_house import BASH, MODEL, House, calls, ids, says, serving
from test_server_asked_again import losing_the_first_reply

from agentrl.store.learning_log import LearningLog
from agentrl.store.signal_log import SignalLog
from agentrl.text.renderer import load_renderer
from agentrl.types import End, MatchedBy, Turn

ASKED = user("How many files are here?")
THANKS = user("Thanks. And folders?")
NAMED = "/s/a/v1"
TOOLS: dict[str, Any] = {"tools": [BASH]}


def called(command: str) -> str:
    return f'<tool_call>\n{{"name": "bash", "arguments": {{"command": "{command}"}}}}\n</tool_call>'


@pytest.mark.parametrize("path", [NAMED, "/v1"])
async def test_a_call_with_other_arguments_is_the_preferred_one(tmp_path: Path, path: str) -> None:
    async with serving(tmp_path, [calls("rm -r a", text="I look."), says("Two files.")]) as house:
        client = house.client(path)
        first = await ask(client, ASKED, **TOOLS)
        second = await ask(
            client, ASKED, first.changed('{"command":"ls -r a"}'), first.result("exit code 1"), **TOOLS
        )

        state, turn = await state_of(house, first), await house.turn(second.turn_id)
        assert state is not None
        assert (state.end, state.answered_by) == (End.EDITED, second.turn_id)
        # the result is no part of what followed the sampled call
        assert [message["role"] for message in state.messages] == ["assistant"]
        assert (turn.parent, turn.matched_by) == (first.turn_id, MatchedBy.TOOL_CALL_ID)
        assert turn.prompt_built_by == "rendered: the client changed an assistant message"

        signal = await signal_of(house, first)
        assert (signal.source, signal.reward) == ("rule", -1.0)
        assert json.loads(signal.preferred or "") == [{"name": "bash", "arguments": {"command": "ls -r a"}}]
        assert signal.hint == "Call bash with `ls -r a`, not bash with `rm -r a`."
        # nor is the answer to it what the conversation got behind the hint
        with LearningLog(tmp_path) as log:
            assert log.next_turns([first.turn_id]) == {}
        assert pairs_of(tmp_path) == [
            (f"I look.\n{called('rm -r a')}", False),
            (f"I look.\n{called('ls -r a')}", True),
        ]


async def test_only_the_changed_call_is_tokenised_and_its_marks_are_control_ids(tmp_path: Path) -> None:
    replies = [calls("pwd", "rm a", text="I  look."), says("Done.")]
    async with serving(tmp_path, replies) as house:
        first = await ask(house.client(), ASKED, **TOOLS)
        one, two = first.calls
        changed = two | {"function": {"name": "bash", "arguments": '{"command": "ls <|im_end|>"}'}}
        results = [{"role": "tool", "tool_call_id": call["id"], "content": "a"} for call in (one, two)]
        await ask(house.client(), ASKED, first.message | {"tool_calls": [one, changed]}, *results, **TOOLS)
        signal, turn = await signal_of(house, first), await house.turn(first.turn_id)
    renderer = load_renderer(MODEL)
    written = renderer.answer(turn, signal.preferred or "")
    assert written is not None
    kept = ids(f"I  look.\n{called('pwd')}\n")
    assert list(written[: len(kept)]) == kept
    assert renderer.decode(written) == f"I  look.\n{called('pwd')}\n{called('ls <|im_end|>')}<|im_end|>"
    # what a user typed is no control id
    assert written.count(renderer.stop_ids[0]) == 1


@pytest.mark.parametrize(
    "arguments",
    ['{"command":"ls -l"}', '{"command": "ls -l ", "timeout": null, "cwd": "/"}', '{ "Command" : "ls -l" }'],
)
async def test_a_call_in_another_form_is_answered_by_what_it_returned(tmp_path: Path, arguments: str) -> None:
    async with serving(tmp_path, [calls("ls -l"), says("Two files.")]) as house:
        client = house.client(NAMED)
        first = await ask(client, ASKED, **TOOLS)
        await ask(client, ASKED, first.changed(arguments), first.result("a b"), **TOOLS)

        state = await state_of(house, first)
        assert state is not None
        assert (state.end, [message["content"] for message in state.messages]) == (None, ["a b"])
        assert pairs_of(tmp_path) == []


class CountedLog(SignalLog):
    """Remembers which turns were read whole."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.read: list[str] = []

    async def turn(self, turn_id: str) -> Turn | None:
        self.read.append(turn_id)
        return await super().turn(turn_id)


@pytest.mark.parametrize(
    ("arguments", "end"), [('{"command":"ls -l", "cwd": "/"}', "answered"), ('{"command": "pwd"}', "edited")]
)
async def test_a_turn_that_came_back_in_another_form_is_read_once(
    tmp_path: Path, arguments: str, end: str
) -> None:
    answers = [calls("ls -l"), says("Two files.")]
    async with serving(tmp_path, answers, log_class=CountedLog) as house:
        client, log = house.client(NAMED), house.runtime.log
        first = await ask(client, ASKED, **TOOLS)
        assert isinstance(log, CountedLog)
        await ask(client, ASKED, first.changed(arguments), first.result("a b"), **TOOLS)

        assert log.read == [first.turn_id]
        assert await end_of(house, first) == end


async def test_another_tool_and_a_call_under_an_id_of_the_clients_own_are_heard(tmp_path: Path) -> None:
    other = {
        "type": "function",
        "function": {"name": "look", "parameters": {"type": "object", "properties": {}}},
    }
    async with serving(tmp_path, lambda *_: calls("ls -l")) as house:
        client = house.client(NAMED)
        options: dict[str, Any] = {"tools": [BASH, other]}
        first = await ask(client, ASKED, **options)
        said: list[Any] = [ASKED, first.changed("{}", name="look"), first.result("a b")]
        second = await ask(client, *said, **options)
        said += [second.changed('{"command": "pwd"}', id="c1"), second.result("/") | {"tool_call_id": "c1"}]
        third = await ask(client, *said, **options)
        said += [third.changed('{"command": "ls  -l"}', id="c2"), third.result("/") | {"tool_call_id": "c2"}]
        await ask(client, *said, **options)

        ends = [await end_of(house, told) for told in (first, second, third)]
        assert ends == ["edited", "edited", "edited"]
        assert (await house.turn(third.turn_id)).parent == second.turn_id


async def test_a_call_that_was_refused_with_words_is_a_correction_as_ever(tmp_path: Path) -> None:
    async with serving(tmp_path, [calls("rm a"), calls("ls")]) as house:
        client = house.client(NAMED)
        first = await ask(client, ASKED, **TOOLS)
        await ask(client, ASKED, first.message, user("No, use ls instead."), **TOOLS)

        signal = await signal_of(house, first)
        assert await end_of(house, first) == "answered"
        assert (signal.reward, signal.preferred, signal.hint) == (-1.0, None, "No, use ls instead.")


async def test_who_goes_back_behind_a_result_to_change_the_call_prefers_it_too(tmp_path: Path) -> None:
    async with serving(tmp_path, [calls("rm a"), says("Gone."), says("Two files."), says("Two.")]) as house:
        client = house.client()
        first = await ask(client, ASKED, **TOOLS)
        second = await ask(client, ASKED, first.message, first.result("ok"), **TOOLS)
        changed: list[Any] = [ASKED, first.changed('{"command": "ls a"}'), first.result("a b")]
        await ask(client, *changed, **TOOLS)
        await ask(client, *changed, **TOOLS)

        assert [await end_of(house, told) for told in (first, second)] == ["answered", "edited"]
        signals = [one for one in await house.runtime.log.signals(first.turn_id) if one.preferred]
        assert [(one.reward, json.loads(one.preferred or "")[0]["arguments"]) for one in signals] == [
            (-1.0, {"command": "ls a"})
        ]
        assert pairs_of(tmp_path) == [(called("rm a"), False), (called("ls a"), True)]


async def test_a_program_that_changes_every_call_is_believed_nothing_and_its_results_count_for_none(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, lambda *_: calls("ls")) as house:
        states = []
        for number in range(6):
            client = house.client(f"/s/number{number}/v1")
            first = await ask(client, ASKED, **TOOLS)
            await ask(
                client, ASKED, first.changed('{"command": "cd /x; ls"}'), first.result("exit code 1"), **TOOLS
            )
            states.append(await state_of(house, first))

        assert [state and state.end for state in states] == [End.EDITED] * 6
        assert [len(state.messages) for state in states if state] == [1] * 3 + [0] * 3


async def test_a_side_request_and_an_evaluation_bring_no_changed_result_either(tmp_path: Path) -> None:
    async with serving(tmp_path, lambda *_: calls("ls")) as house:
        client, tested = house.client(NAMED), house.client("/s/a/eval/v1")
        first = await ask(client, ASKED, **TOOLS)
        changed: list[Any] = [ASKED, first.changed('{"command": "pwd"}'), first.result("/")]
        await ask(client, *changed, user("Write a title."))
        await ask(tested, *changed, **TOOLS)
        assert await end_of(house, first) is None
        await ask(client, *changed, **TOOLS)
        assert await end_of(house, first) == "edited"


async def went_on(house: House, *replies: str, path: str = NAMED, keep: int = -1) -> list[Told]:
    """Asks once for each reply and runs the call of the last."""
    client = house.client(path)
    told = [await ask(client, ASKED, **TOOLS) for _ in replies]
    kept = told[keep]
    await ask(client, ASKED, kept.message, kept.result("a b"), **TOOLS)
    return told


async def test_the_call_that_a_user_had_replaced_loses_to_the_one_that_was_run(tmp_path: Path) -> None:
    async with serving(tmp_path, [calls("rm a"), calls("ls a"), says("Two files.")]) as house:
        first, second = await went_on(house, "rm a", "ls a")

        assert [await end_of(house, told) for told in (first, second)] == ["regenerated", "answered"]
        assert (await signal_of(house, first)).reward == -1.0
        assert pairs_of(tmp_path) == [(called("rm a"), False), (called("ls a"), True)]


async def test_the_same_call_again_was_a_retry(tmp_path: Path) -> None:
    async with serving(tmp_path, [calls("ls a"), calls("ls a"), says("Two files.")]) as house:
        first, second = await went_on(house, "ls a", "ls a")

        assert [await end_of(house, told) for told in (first, second)] == ["retried", "answered"]
        assert pairs_of(tmp_path) == []


async def test_who_runs_the_first_call_after_all_preferred_nothing_to_it(tmp_path: Path) -> None:
    async with serving(tmp_path, [calls("ls a"), calls("rm a"), says("Two files.")]) as house:
        first, second = await went_on(house, "ls a", "rm a", keep=0)

        assert [await end_of(house, told) for told in (first, second)] == ["answered", None]


async def test_an_agent_that_asks_again_because_it_could_not_run_the_call_judges_nothing(
    tmp_path: Path,
) -> None:
    wrong = ids('<tool_call>\n{"name": "bash", "arguments": {"cmd": "ls"}}\n</tool_call><|im_end|>')
    async with serving(tmp_path, [wrong, calls("ls a"), says("Two files.")]) as house:
        first, _ = await went_on(house, "cmd", "ls a")

        assert first.calls
        assert await end_of(house, first) is None


async def test_a_program_that_samples_every_call_twice_is_soon_known(tmp_path: Path) -> None:
    answers = [answer for _ in range(5) for answer in (calls("rm a"), calls("ls a"), says("Two files."))]
    async with serving(tmp_path, answers) as house:
        ends = []
        for number in range(5):
            first, _ = await went_on(house, "rm a", "ls a", path=f"/s/number{number}/v1")
            ends.append(await end_of(house, first))

        assert ends == ["regenerated"] * 3 + [None] * 2


@pytest.mark.parametrize("path", [NAMED, "/v1"])
async def test_what_the_sdk_sends_again_after_a_lost_call_is_a_retry(tmp_path: Path, path: str) -> None:
    answers = [calls("rm a"), calls("ls a"), says("Two files.")]
    async with serving(tmp_path, answers) as house, losing_the_first_reply(house.runtime.base_url) as url:
        client = house.client(path, max_retries=2).with_options(base_url=url + path)
        second = await ask(client, ASKED, **TOOLS)
        await ask(client, ASKED, second.message, second.result("a b"), **TOOLS)

        first, *_ = await house.turns((await house.turn(second.turn_id)).session)
        state = await house.runtime.log.next_state(first.id)
        assert (first.reply.tool_calls[0].arguments, state and state.end) == (
            '{"command": "rm a"}',
            "retried",
        )
        assert pairs_of(tmp_path) == []


async def test_words_crossed_out_are_heard_of_a_client_that_kept_to_what_it_was_told(tmp_path: Path) -> None:
    async with serving(tmp_path, lambda *_: says("It is not 4 kg.")) as house:
        client, said = house.client(NAMED), [ASKED]
        first = await ask(house.client("/s/b/v1"), ASKED, extra_headers={"User-Agent": "another"})
        await ask(
            house.client("/s/b/v1"),
            ASKED,
            reply("It is 4 kg."),
            THANKS,
            extra_headers={"User-Agent": "another"},
        )
        assert await end_of(house, first) == "answered"
        for number in range(3):
            told = await ask(client, *said)
            said = [*said, told.message, user(f"And {number}?")]
        told = await ask(client, *said)
        await ask(client, *said, reply("It is 4 kg."), THANKS)

        assert await end_of(house, told) == "edited"
        assert pairs_of(tmp_path) == [("It is not 4 kg.", False), ("It is 4 kg.", True)]


async def test_a_change_that_nobody_can_read_ends_the_turn_and_is_no_preference(tmp_path: Path) -> None:
    async with serving(tmp_path, [calls("ls -l"), says("Done.")]) as house:
        client = house.client(NAMED)
        first = await ask(client, ASKED, **TOOLS)
        secret = '{"command": "curl -u sk-proj-Ab3dEf6hIj9kLm2n x"}'
        await ask(client, ASKED, first.changed(secret), first.result("exit code 1"), **TOOLS)

        state = await state_of(house, first)
        assert state is not None
        assert (state.end, state.messages) == (End.EDITED, ())
        assert pairs_of(tmp_path) == []


@pytest.mark.parametrize("tools", [(BASH,), ()])
async def test_calls_that_nobody_offered_are_never_trained_as_a_text(
    tmp_path: Path, tools: tuple[Any, ...]
) -> None:
    async with serving(tmp_path, [calls("ls", "pwd")]) as house:
        first = await ask(house.client(), ASKED, **TOOLS)
        turn = replace(await house.turn(first.turn_id), tools=tools)
    renderer = load_renderer(MODEL)
    listed = [{"name": name, "arguments": {"command": "ls"}} for name in ("bash", "nope")]
    assert renderer.answer(turn, json.dumps(listed)) is None
    assert renderer.answer(turn, "[1]") == (*renderer.encode_plain("[1]"), renderer.stop_ids[0])


async def test_the_other_call_may_be_one_that_nobody_offered(tmp_path: Path) -> None:
    sampled = ids(f"{called('ls')}\n{called('pwd').replace('bash', 'nope')}<|im_end|>")
    async with serving(tmp_path, [sampled]) as house:
        first = await ask(house.client(), ASKED, **TOOLS)
        turn = await house.turn(first.turn_id)
    wanted = [
        {"name": "bash", "arguments": {"command": "ls a"}},
        {"name": "nope", "arguments": {"command": "pwd"}},
    ]
    written = load_renderer(MODEL).answer(turn, json.dumps(wanted))
    assert written is not None
    assert list(written) == ids(f"{called('ls a')}\n{called('pwd').replace('bash', 'nope')}<|im_end|>")


COMPACT = '<tool_call>{"name":"bash","arguments":{"command":"pwd"}}</tool_call>'


@pytest.mark.parametrize(
    ("commands", "written"),
    [
        (("pwd", "ls a"), f"{COMPACT}\n{called('ls a')}"),
        (("pwd",), COMPACT),
        (("pwd", "ls b", "ls c"), f"{COMPACT}\n{called('ls b')}\n{called('ls c')}"),
        (("ls",), called("ls")),
    ],
)
async def test_a_call_that_stays_keeps_the_ids_in_which_it_was_sampled(
    tmp_path: Path, commands: tuple[str, ...], written: str
) -> None:
    async with serving(tmp_path, [ids(f"I look.\n{COMPACT}\n{called('ls')}<|im_end|>")]) as house:
        first = await ask(house.client(), ASKED, **TOOLS)
        turn = await house.turn(first.turn_id)
    listed = [{"name": "bash", "arguments": {"command": command}} for command in commands]
    answer = load_renderer(MODEL).answer(turn, json.dumps(listed))
    assert answer is not None
    assert list(answer) == ids(f"I look.\n{written}<|im_end|>")
