"""A reply that its user wrote anew is a preference: from the request to the signal and the pair."""

from pathlib import Path

import pytest
from rewrites_house import Told, ask, end_of, pairs_of, reply, signal_of, state_of, user
from server_house import BASH, says, serving

from agentrl.types import End, MatchedBy

PATHS = ("/s/a/v1", "/v1")
NAMED = "/s/a/v1"
FIRST = user("A note about the sofa: 3 kg or 7 lb.")
SECOND = user("Now the bed: 5 kg or 9 lb.")
THIRD = user("Now the cup: 1 kg or 2 lb.")


async def test_a_rewritten_first_reply_of_a_named_session_is_the_preferred_one(tmp_path: Path) -> None:
    async with serving(tmp_path, [says("The sofa weighs 7 lb."), says("The bed weighs 5 kg.")]) as house:
        client = house.client(NAMED)
        first = await ask(client, FIRST)
        second = await ask(client, FIRST, reply("The sofa weighs 3 kg."), SECOND)

        state, turn = await state_of(house, first), await house.turn(second.turn_id)
        assert state is not None
        assert (state.end, state.answered_by) == (End.EDITED, second.turn_id)
        assert [message["content"] for message in state.messages] == ["The sofa weighs 3 kg."]
        # the conversation is one, and the model reads what the user wrote
        assert (turn.parent, turn.matched_by) == (first.turn_id, MatchedBy.HISTORY)
        assert turn.session == (await house.turn(first.turn_id)).session
        assert turn.prompt_built_by == "rendered: the history holds another reply"
        assert turn.messages[1]["content"] == "The sofa weighs 3 kg."

        signal = await signal_of(house, first)
        assert (signal.source, signal.reward, signal.preferred) == ("rule", -1.0, "The sofa weighs 3 kg.")
        assert pairs_of(tmp_path) == [("The sofa weighs 7 lb.", False), ("The sofa weighs 3 kg.", True)]


@pytest.mark.parametrize("path", PATHS)
async def test_a_rewritten_second_reply_is_the_preferred_one(tmp_path: Path, path: str) -> None:
    async with serving(tmp_path, [says("3 kg."), says("9 lb."), says("1 kg."), says("Good.")]) as house:
        client = house.client(path)
        first = await ask(client, FIRST)
        second = await ask(client, FIRST, first.message, SECOND)
        third = await ask(client, FIRST, first.message, SECOND, reply("5 kg."), THIRD)

        assert [await end_of(house, told) for told in (first, second, third)] == ["answered", "edited", None]
        assert (await house.turn(third.turn_id)).parent == second.turn_id
        assert (await signal_of(house, second)).preferred == "5 kg."
        assert pairs_of(tmp_path) == [("9 lb.", False), ("5 kg.", True)]
        # what follows is answered as ever
        await ask(client, FIRST, first.message, SECOND, reply("5 kg."), THIRD, third.message, user("Ok."))
        assert await end_of(house, third) == "answered"


async def test_two_users_of_one_client_who_begin_alike_rewrite_nothing_of_each_other(tmp_path: Path) -> None:
    """A first message tells no session: the other user's answer came from another model."""
    async with serving(tmp_path, lambda *_: says("The sofa weighs 7 lb.")) as house:
        anna, bert = house.client(), house.client()
        first = await ask(anna, FIRST)
        second = await ask(bert, FIRST, reply("Another model: 3 kg."), SECOND)
        third = await ask(bert, FIRST, reply("Another model: 3 kg."), SECOND, second.message, THIRD)
        assert await end_of(house, first) is None
        turns = [await house.turn(told.turn_id) for told in (first, second, third)]
        assert [turn.parent for turn in turns] == [None, None, second.turn_id]
        assert turns[0].session != turns[1].session == turns[2].session
        assert pairs_of(tmp_path) == []
        # both were told the same reply: what Bert has from another model behind it says nothing of Anna's next one
        same = user("What does it weigh?")
        told, also = await ask(anna, same), await ask(bert, same)
        assert told.text == also.text
        await ask(anna, same, told.message, SECOND)
        await ask(bert, same, also.message, SECOND, reply("Another model: 5 kg."), THIRD)
        assert "edited" not in [
            await end_of(house, Told("", turn.id))
            for one in (told, also)
            for turn in await house.turns((await house.turn(one.turn_id)).session)
        ]


async def test_who_goes_on_and_then_goes_back_to_rewrite_prefers_it_too(tmp_path: Path) -> None:
    async with serving(tmp_path, [says("7 lb."), says("9 lb."), says("5 kg."), says("5 lb.")]) as house:
        client = house.client(NAMED)
        first = await ask(client, FIRST)
        second = await ask(client, FIRST, first.message, SECOND)
        third = await ask(client, FIRST, reply("3 kg."), SECOND)
        await ask(client, FIRST, reply("3 kg."), SECOND)

        # what followed first stays; what was said from there on says nothing more
        assert [await end_of(house, told) for told in (first, second)] == ["answered", "edited"]
        state = await state_of(house, second)
        assert state is not None
        assert state.messages == ()
        assert (await house.turn(third.turn_id)).parent == first.turn_id
        signals = await house.runtime.log.signals(first.turn_id)
        assert [(signal.reward, signal.preferred) for signal in signals] == [(-1.0, "3 kg.")]
        assert pairs_of(tmp_path) == [("7 lb.", False), ("3 kg.", True)]


@pytest.mark.parametrize(
    "text",
    [
        " the sofa weighs 7 lb,\nif I am right. ",
        "<think>Is it?</think>the sofa weighs 7 lb, if I am right.",
        "**the sofa** weighs _7 lb_, if I am right.",
        "the sofa weighs 7 lb",
        "the sofa wei...",
        "[taken out to save room]",
        "Assistant: the sofa weighs 7 lb, if I am right.\n\nSources: none",
    ],
)
async def test_a_reply_that_a_client_cut_or_wrote_in_another_form_is_only_answered(
    tmp_path: Path, text: str
) -> None:
    async with serving(tmp_path, [says("the sofa weighs 7 lb, if I am right."), says("Ok.")]) as house:
        client = house.client(NAMED)
        first = await ask(client, FIRST)
        second = await ask(client, FIRST, reply(text), SECOND)

        state = await state_of(house, first)
        assert state is not None
        assert (state.end, [message["content"] for message in state.messages]) == (None, [SECOND["content"]])
        assert (await house.turn(second.turn_id)).parent == first.turn_id
        assert pairs_of(tmp_path) == []


@pytest.mark.parametrize("path", PATHS)
async def test_a_history_that_was_cut_or_compacted_is_no_rewrite(tmp_path: Path, path: str) -> None:
    async with serving(tmp_path, lambda *_: says("The sofa weighs 7 lb.")) as house:
        client = house.client(path)
        first = await ask(client, FIRST)
        second = await ask(client, FIRST, first.message, SECOND)
        # the summary stands in the place of what was said; an old reply stands changed before one that does not
        await ask(client, user("So far: notes."), reply("I know the notes."), THIRD)
        await ask(client, FIRST, reply("(cut) A note."), SECOND, reply("Another note."), THIRD)

        assert [await end_of(house, told) for told in (first, second)] == ["answered", None]
        assert pairs_of(tmp_path) == []


async def test_a_call_put_in_the_place_of_a_text_says_nothing_until_a_user_speaks(tmp_path: Path) -> None:
    async with serving(tmp_path, [says("Two files."), says("Ok.")]) as house:
        client = house.client("/s/a/v1")
        first = await ask(client, FIRST, tools=[BASH])
        call = {
            "id": "c1",
            "type": "function",
            "function": {"name": "bash", "arguments": '{"command": "pwd"}'},
        }
        result = {"role": "tool", "tool_call_id": "c1", "content": "/"}
        await ask(client, FIRST, reply("") | {"tool_calls": [call]}, result, tools=[BASH])

        assert await end_of(house, first) is None


async def test_a_client_that_changes_what_it_sends_back_more_often_than_not_is_a_program(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, lambda *_: says("The sofa weighs 7 lb.")) as house:
        ends = []
        for number in range(6):
            client = house.client(f"/s/number{number}/v1")
            first = await ask(client, FIRST)
            await ask(client, FIRST, reply(f"The assistant spoke {number} times."), SECOND)
            ends.append(await end_of(house, first))

        assert ends == ["edited"] * 3 + ["answered"] * 3


async def test_a_client_that_changes_every_second_reply_is_soon_a_program_however_long_it_changed_nothing(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, lambda *_: says("The sofa weighs 7 lb.")) as house:
        client, said, ends = house.client(NAMED), [FIRST], []
        for number in range(24):
            told = await ask(client, *said)
            changes = number >= 10 and number % 2 == 0
            said = [*said, reply(f"It has {number} kg.") if changes else told.message, user(f"And {number}?")]
            await ask(client, *said)
            ends += [await end_of(house, told)] if changes else []

        assert ends == ["edited"] * 5 + ["answered"] * 2


async def test_nobodys_rewrite_crosses_scopes_purposes_or_two_conversations_that_begin_alike(
    tmp_path: Path,
) -> None:
    keys = [{"key": f"key-of-{name}", "scope": name} for name in ("anna", "bert")]
    async with serving(tmp_path, lambda *_: says("7 lb."), server__api_keys=keys) as house:
        anna, bert = (house.client(key=f"key-of-{name}") for name in ("anna", "bert"))
        named = {"X-Session-Id": "named"}
        first, other = await ask(anna, FIRST), await ask(anna, FIRST, extra_headers=named)
        await ask(bert, FIRST, reply("3 kg."), SECOND, extra_headers=named)
        await ask(anna, FIRST, reply("3 kg."), SECOND, extra_headers=named | {"X-Purpose": "eval"})
        await ask(anna, FIRST, reply("3 kg."), SECOND, extra_headers={"X-Session-Id": "another"})
        await ask(anna, FIRST, reply("3 kg."), SECOND)
        assert [await end_of(house, told) for told in (first, other)] == [None, None]
        await ask(anna, FIRST, reply("3 kg."), SECOND, extra_headers=named)
        assert [await end_of(house, told) for told in (first, other)] == [None, "edited"]


async def test_a_rewrite_is_told_after_a_restart(tmp_path: Path) -> None:
    async with serving(tmp_path, [says("3 kg."), says("9 lb.")]) as house:
        first = await ask(house.client(), FIRST)
        second = await ask(house.client(), FIRST, first.message, SECOND)
    async with serving(tmp_path, [says("1 kg.")]) as house:
        await ask(house.client(), FIRST, first.message, SECOND, reply("5 kg."), THIRD)

        assert await end_of(house, second) == "edited"


async def test_a_reply_with_a_secret_that_comes_back_as_it_was_is_no_rewrite(tmp_path: Path) -> None:
    secret = "sk-proj-Ab3dEf6hIj9kLm2nOp5qRs8tUv1wXy4z"
    async with serving(
        tmp_path, [says(f"The key is {secret}, said Bob."), says("Ok."), says("Ok.")]
    ) as house:
        client = house.client("/s/a/v1")
        first = await ask(client, FIRST)
        await ask(client, FIRST, reply(f"**The key is {secret}**, said Bob."), SECOND)

        assert await end_of(house, first) == "answered"
