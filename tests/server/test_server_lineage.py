"""Which turn a request answers, and how the others end."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from server_house import BASH, GatedLog, House, SteppedEngine, calls, eventually, ids, says, serving, soon

from agentrl.engine.base import Finished, Sampled
from agentrl.engine.scripted import ScriptedEngine
from agentrl.errors import EngineBusy, EngineError
from agentrl.types import End, MatchedBy, Turn, TurnKind

USER = {"role": "user", "content": "List the files."}


def message(reply: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The assistant message of a reply, as a client sends it back."""
    said = reply["choices"][0]["message"]
    return {key: value for key, value in said.items() if key in ("role", "content", "tool_calls")} | changes


def result(assistant: dict[str, Any], text: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": assistant["tool_calls"][0]["id"], "content": text}


async def turn_of(house: House, reply: dict[str, Any], choice: int = 0) -> Turn:
    return await house.turn(reply["choices"][choice]["agentrl"]["turn_id"])


async def end_of(house: House, reply: dict[str, Any], choice: int = 0) -> End | None:
    state = await house.runtime.log.next_state((await turn_of(house, reply, choice)).id)
    return state.end if state else None


async def test_a_conversation_without_any_mark_is_one_session(tmp_path: Path) -> None:
    async with serving(tmp_path, [says("One."), says("Two."), says("Three.")]) as house:
        history: list[dict[str, Any]] = [USER]
        replies = []
        for _ in range(3):
            replies.append((await house.ask(*history)).json())
            history += [message(replies[-1]), {"role": "user", "content": "Go on."}]
        turns = [await turn_of(house, reply) for reply in replies]

        assert len({turn.session for turn in turns}) == 1
        assert [turn.parent for turn in turns] == [None, turns[0].id, turns[1].id]
        assert [turn.matched_by for turn in turns] == [MatchedBy.NONE, MatchedBy.HISTORY, MatchedBy.HISTORY]
        assert [turn.prompt_built_by for turn in turns][1:] == ["extended", "extended"]
        # law 1: what was sampled stands verbatim in the next prompt
        known = turns[1].prompt_ids + turns[1].completion.token_ids
        assert turns[2].prompt_ids[: len(known)] == known


async def test_two_conversations_that_begin_alike_stay_apart(tmp_path: Path) -> None:
    async with serving(tmp_path, [says("One."), says("Other.")]) as house:
        first, second = (await house.ask(USER)).json(), (await house.ask(USER)).json()

        assert (await turn_of(house, first)).session != (await turn_of(house, second)).session
        assert await end_of(house, first) is None


async def test_a_call_id_without_its_underscores_is_recognised(tmp_path: Path) -> None:
    async with serving(tmp_path, [calls("ls"), says("Done.")]) as house:
        first = (await house.ask(USER, tools=[BASH])).json()
        assistant = message(first)

        call_id = assistant["tool_calls"][0]["id"]
        assert call_id.isalnum()
        # the client moved a message of the first request behind the result, so its history is another one
        second = await house.ask(assistant, result(assistant, "a.txt"), USER, tools=[BASH])
        turn = await house.turn(second.headers["X-Turn-Id"])
        state = await house.runtime.log.next_state((await turn_of(house, first)).id)
        assert (turn.parent, turn.matched_by) == ((await turn_of(house, first)).id, MatchedBy.TOOL_CALL_ID)
        assert state is not None
        assert [one["content"] for one in state.messages] == ["a.txt"]


async def test_parallel_results_are_one_next_state(tmp_path: Path) -> None:
    async with serving(tmp_path, [calls("ls", "pwd"), says("Done.")]) as house:
        first = (await house.ask(USER, tools=[BASH])).json()
        assistant = message(first)
        one, two = assistant["tool_calls"]
        results = [{"role": "tool", "tool_call_id": call["id"], "content": call["id"]} for call in (one, two)]
        await house.ask(USER, assistant, *results, tools=[BASH])

        state = await house.runtime.log.next_state((await turn_of(house, first)).id)
        assert state is not None
        assert [said["content"] for said in state.messages] == [one["id"], two["id"]]


async def test_the_choice_that_is_continued_gets_the_next_state_and_the_others_end(tmp_path: Path) -> None:
    async with serving(tmp_path, [says("Red."), says("Blue."), says("Ok.")]) as house:
        first = (await house.ask(USER, n=2)).json()
        blue = next(i for i in (0, 1) if first["choices"][i]["message"]["content"] == "Blue.")
        await house.ask(USER, {"role": "assistant", "content": "Blue."}, "Good.")

        state = await house.runtime.log.next_state((await turn_of(house, first, blue)).id)
        assert state is not None
        assert [said["content"] for said in state.messages] == ["Good."]
        assert await end_of(house, first, 1 - blue) is End.NOT_CHOSEN


class Dying(ScriptedEngine):
    """Its first request ends behind one id; `arrived` counts the requests."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.arrived = asyncio.Semaphore(0)

    async def generate(self, *args: Any, **options: Any) -> AsyncIterator[Sampled | Finished]:
        self.arrived.release()
        async for event in super().generate(*args, **options):
            yield event
            if len(self.requests) == 1:
                raise EngineError("The engine is gone.")


async def test_a_retry_that_comes_before_the_cut_turn_is_in_the_log_ends_it_all_the_same(
    tmp_path: Path,
) -> None:
    async with serving(
        tmp_path, lambda prompt, sampling: says("Ok."), engine_class=Dying, log_class=GatedLog
    ) as house:
        log, engine = house.runtime.log, house.engine
        assert isinstance(log, GatedLog)
        assert isinstance(engine, Dying)
        first = await house.ask(USER, path="/s/a")
        again = asyncio.create_task(house.ask(USER, path="/s/a"))
        for _ in range(2):
            await soon(engine.arrived.acquire())
        log.gate.set()

        assert (first.status_code, (await again).status_code) == (503, 200)
        [cut, whole] = await house.turns("a")
        state = await eventually(lambda: log.next_state(cut.id))
        assert (cut.error, state.end) == ("EngineError: The engine is gone.", End.RETRIED)
        assert state.answered_by == whole.request_id


async def test_the_same_body_behind_a_failed_reply_is_a_retry(tmp_path: Path) -> None:
    async with serving(tmp_path, lambda prompt, sampling: says("Ok."), engine_class=Dying) as house:
        first = await house.ask(USER, path="/s/a")
        again = await house.ask(USER, path="/s/a")

        assert (first.status_code, again.status_code) == (503, 200)
        [cut, whole] = await house.turns("a")
        # its end is written once the cut choice is over, which the second request does not wait for
        state = await eventually(lambda: house.runtime.log.next_state(cut.id))
        assert (cut.error, state.end, whole.reply.text) == (
            "EngineError: The engine is gone.",
            End.RETRIED,
            "Ok.",
        )


async def test_a_marked_retry_without_a_session_is_recognised(tmp_path: Path) -> None:
    async with serving(tmp_path, lambda prompt, sampling: says("Ok.")) as house:
        first = (await house.ask(USER)).json()
        again = await house.ask(USER, headers={"x-stainless-retry-count": "1"})

        assert again.headers["X-Session-Id"] == (await turn_of(house, first)).session
        assert await end_of(house, first) is End.RETRIED


async def test_a_retry_that_overtakes_its_original_ends_it(tmp_path: Path) -> None:
    async with serving(tmp_path, lambda prompt, sampling: says("Ok."), engine_class=SteppedEngine) as house:
        assert isinstance(house.engine, SteppedEngine)
        first = asyncio.create_task(house.ask(USER, path="/s/a"))
        await soon(house.engine.arrived.acquire())
        second = asyncio.create_task(house.ask(USER, path="/s/a"))
        await soon(house.engine.arrived.acquire())
        for _ in range(20):
            house.engine.permits.release()

        original = (await first).json()
        await second
        assert await eventually(lambda: end_of(house, original)) is End.RETRIED


async def test_the_same_question_with_other_settings_is_a_regeneration_too(tmp_path: Path) -> None:
    async with serving(tmp_path, [says("One."), says("Two."), says("Ok.")]) as house:
        first = (await house.ask(USER, path="/s/a", seed=1)).json()
        second = (await house.ask(USER, path="/s/a", seed=2)).json()
        await house.ask(USER, message(second), "Go on.", path="/s/a")

        assert await end_of(house, first) is End.REGENERATED


async def test_an_edited_message_ends_what_came_after_it(tmp_path: Path) -> None:
    async with serving(tmp_path, [says("A."), says("B."), says("C."), says("D.")]) as house:
        first = (await house.ask(USER)).json()
        second = (await house.ask(USER, message(first), "Sort them.")).json()
        third = (await house.ask(USER, message(first), "Sort them.", message(second), "By size.")).json()
        await house.ask(USER, message(first), "Count them.")

        assert await end_of(house, third) is End.EDITED
        state = await house.runtime.log.next_state((await turn_of(house, second)).id)
        assert state is not None
        assert (state.end, [said["content"] for said in state.messages]) == (None, ["By size."])


async def test_two_beginnings_in_one_session_are_two_conversations(tmp_path: Path) -> None:
    async with serving(tmp_path, lambda prompt, sampling: says("Ok.")) as house:
        first = (await house.ask(USER, path="/s/a")).json()
        await house.ask("Something else.", path="/s/a")

        assert await end_of(house, first) is None


async def test_a_reply_that_the_client_dropped_is_still_answered(tmp_path: Path) -> None:
    """mini-swe-agent leaves out a turn that it could not parse, and complains of it."""
    async with serving(tmp_path, lambda prompt, sampling: says("Not parsable.")) as house:
        first = (await house.ask(USER)).json()
        second = await house.ask(USER, "Format error: call a tool.")

        turn = await house.turn(second.headers["X-Turn-Id"])
        state = await house.runtime.log.next_state((await turn_of(house, first)).id)
        assert state is not None
        assert [said["content"] for said in state.messages] == ["Format error: call a tool."]
        assert (turn.parent, turn.matched_by) == ((await turn_of(house, first)).id, MatchedBy.HISTORY)
        assert turn.session == (await turn_of(house, first)).session
        assert turn.prompt_built_by == "rendered: the history leaves the answered reply out"


async def test_a_dropped_reply_in_mid_conversation_is_still_answered(tmp_path: Path) -> None:
    async with serving(tmp_path, [calls("ls"), says("Hm."), says("Ok.")]) as house:
        first = (await house.ask(USER, tools=[BASH])).json()
        history = [USER, message(first), result(message(first), "a.txt")]
        second = (await house.ask(*history, tools=[BASH])).json()
        third = await house.ask(*history, "Format error.", tools=[BASH])

        assert (await house.turn(third.headers["X-Turn-Id"])).parent == (await turn_of(house, second)).id
        state = await house.runtime.log.next_state((await turn_of(house, second)).id)
        assert state is not None
        assert [said["content"] for said in state.messages] == ["Format error."]


async def test_a_compacted_history_is_matched_by_its_last_reply(tmp_path: Path) -> None:
    async with serving(tmp_path, [says("One."), says("The answer is 4."), says("Ok.")]) as house:
        first = (await house.ask(USER, path="/s/a")).json()
        second = (await house.ask(USER, message(first), "Go on.", path="/s/a")).json()
        third = await house.ask("So far: much.", message(second), "And?", path="/s/a")

        turn = await house.turn(third.headers["X-Turn-Id"])
        assert (turn.parent, turn.matched_by) == ((await turn_of(house, second)).id, MatchedBy.LAST_REPLY)
        assert turn.prompt_built_by.startswith("rendered: ")


async def test_a_tie_is_ambiguous_and_answers_nobody(tmp_path: Path) -> None:
    async with serving(tmp_path, lambda prompt, sampling: says("Ok.")) as house:
        first, second = (await house.ask(USER)).json(), (await house.ask(USER)).json()
        third = await house.ask(USER, message(first), "Go on.")

        turn = await house.turn(third.headers["X-Turn-Id"])
        assert (turn.parent, turn.matched_by) == (None, MatchedBy.AMBIGUOUS)
        assert await house.runtime.log.next_state((await turn_of(house, first)).id) is None
        assert await house.runtime.log.next_state((await turn_of(house, second)).id) is None


async def test_scopes_never_share_a_conversation(tmp_path: Path) -> None:
    keys = [{"key": "key-of-anna", "scope": "anna"}, {"key": "key-of-bert", "scope": "bert"}]
    async with serving(tmp_path, [calls("ls"), says("Ok.")], server__api_keys=keys) as house:
        anna, bert = ({"Authorization": f"Bearer key-of-{name}"} for name in ("anna", "bert"))
        first = (await house.ask(USER, tools=[BASH], path="/s/a", headers=anna)).json()
        assistant = message(first)
        second = await house.ask(
            USER, assistant, result(assistant, "x"), tools=[BASH], path="/s/a", headers=bert
        )

        turn = await house.turn(second.headers["X-Turn-Id"])
        assert (turn.scope, turn.parent, turn.matched_by) == ("bert", None, MatchedBy.NONE)
        assert await house.runtime.log.next_state((await turn_of(house, first)).id) is None
        assert {request.cache_key.partition("\0")[0] for request in house.engine.requests} == {"anna", "bert"}


async def test_lineage_outlives_a_restart(tmp_path: Path) -> None:
    async with serving(tmp_path, [calls("ls"), says("Hm.")]) as house:
        first = (await house.ask(USER, tools=[BASH], path="/s/a")).json()
        history = [USER, message(first), result(message(first), "a.txt")]
        second = (await house.ask(*history, tools=[BASH], path="/s/a")).json()
    async with serving(tmp_path, lambda prompt, sampling: says("Ok.")) as house:
        third = await house.ask(*history, message(second), "Thanks.", tools=[BASH], path="/s/a")
        again = await house.ask(*history, message(second), "Thank you.", tools=[BASH], path="/s/a")
        side = await house.ask("What is this about?", path="/s/a")

        turn = await house.turn(third.headers["X-Turn-Id"])
        assert (turn.parent, turn.prompt_built_by) == ((await turn_of(house, second)).id, "extended")
        assert await end_of(house, third.json()) is End.EDITED
        assert (await house.turn(again.headers["X-Turn-Id"])).parent == turn.parent
        assert (await house.turn(side.headers["X-Turn-Id"])).kind is TurnKind.SIDE


async def test_what_was_answered_before_a_restart_is_not_open_to_another_user_after_it(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, [says("One."), says("Two.")]) as house:
        first = (await house.ask(USER)).json()
        second = (await house.ask(USER, message(first), "Go on.")).json()
    async with serving(tmp_path, lambda prompt, sampling: says("Ok.")) as house:
        third = await house.ask(USER, message(first), "Go on.", message(second), "And?")
        other = await house.ask(USER, "With sizes, please.")

        own, others = [await house.turn(one.headers["X-Turn-Id"]) for one in (third, other)]
        assert own.parent == (await turn_of(house, second)).id
        assert (others.parent, others.matched_by) == (None, MatchedBy.NONE)
        assert others.session != own.session


async def test_changed_tools_are_rendered_anew(tmp_path: Path) -> None:
    other = {
        "type": "function",
        "function": {"name": "other", "parameters": {"type": "object", "properties": {}}},
    }
    async with serving(tmp_path, [calls("ls"), says("Ok.")]) as house:
        first = (await house.ask(USER, tools=[BASH])).json()
        assistant = message(first)
        second = await house.ask(USER, assistant, result(assistant, "x"), tools=[BASH, other])

        turn = await house.turn(second.headers["X-Turn-Id"])
        assert turn.parent == (await turn_of(house, first)).id
        assert turn.prompt_built_by == "rendered: the system prompt or the tools changed"


async def test_a_reply_cut_at_a_stop_string_is_not_put_back_into_the_history(tmp_path: Path) -> None:
    async with serving(tmp_path, [ids("Thinking. Observation: x"), says("Ok.")]) as house:
        first = (await house.ask(USER, stop=["Observation:"])).json()
        second = await house.ask(USER, message(first), "Go on.", stop=["Observation:"])

        turn = await house.turn(second.headers["X-Turn-Id"])
        assert turn.parent == (await turn_of(house, first)).id
        assert turn.prompt_built_by.startswith("rendered: ")


@pytest.mark.parametrize(("path", "headers"), [("/s/a/eval", {}), ("/s/a", {"X-Purpose": "off"})])
async def test_what_is_said_off_the_record_teaches_no_turn_that_may_be_trained_on(
    tmp_path: Path, path: str, headers: dict[str, str]
) -> None:
    async with serving(tmp_path, lambda *_: says("Ok.")) as house:
        first = (await house.ask(USER, path="/s/a")).json()
        quiet = (await house.ask(USER, message(first), "Private.", path=path, headers=headers)).json()
        await house.ask(USER, path=path, headers=headers)

        assert (await turn_of(house, quiet)).parent == (await turn_of(house, first)).id
        assert await house.runtime.log.next_state((await turn_of(house, first)).id) is None
        # among themselves such turns are linked as ever
        history = [USER, message(first), {"role": "user", "content": "Private."}]
        await house.ask(*history, message(quiet), "More.", path=path, headers=headers)
        state = await house.runtime.log.next_state((await turn_of(house, quiet)).id)
        assert state is not None
        assert [said["content"] for said in state.messages] == ["More."]


async def test_a_request_that_failed_without_a_turn_hinders_nobody(tmp_path: Path) -> None:
    async with serving(tmp_path, [EngineBusy("Full."), says("Ok."), says("Ok.")]) as house:
        assert (await house.ask(USER, path="/s/a")).status_code == 429
        again = await house.ask(USER, path="/s/a")
        goes_on = await house.ask(USER, "Well?", path="/s/a")

        assert (again.status_code, goes_on.status_code) == (200, 200)
        assert (await house.turn(goes_on.headers["X-Turn-Id"])).parent == again.headers["X-Turn-Id"]
