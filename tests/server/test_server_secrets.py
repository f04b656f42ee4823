"""Law 10: secrets are served and never written."""

from pathlib import Path

import pytest
from server_house import BASH, House, calls, decode, ids, says, serving

from agentrl.errors import ConfigError
from agentrl.types import Turn

KEY = "sk-abcdefghijklmnop1234"
STARS = "*" * len(KEY)


def written(run_dir: Path) -> bytes:
    return b"".join(path.read_bytes() for path in run_dir.iterdir() if path.is_file())


async def last_turn(house: House, session: str) -> Turn:
    return (await house.turns(session))[-1]


async def test_a_secret_reaches_the_model_and_the_client_but_no_disk(tmp_path: Path) -> None:
    async with serving(tmp_path, [calls(f"login {KEY}"), says("Done.")]) as house:
        first = (await house.ask(f"My key is {KEY}.", tools=[BASH], path="/s/a")).json()
        call = first["choices"][0]["message"]["tool_calls"][0]
        assert KEY in call["function"]["arguments"]
        history = [
            {"role": "user", "content": f"My key is {KEY}."},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call["id"], "content": f"used {KEY}"},
        ]
        await house.ask(*history, tools=[BASH], path="/s/a")
        turn, second = await house.turns("a")
        state = await house.runtime.log.next_state(turn.id)

        # the engine saw the true ids, and the second prompt extends them
        assert (
            house.engine.requests[1].prompt_ids[: len(turn.prompt_ids)] == house.engine.requests[0].prompt_ids
        )
        assert second.prompt_built_by == "extended"
        assert turn.messages[-1]["content"] == f"My key is {STARS}."
        assert turn.reply.tool_calls[0].arguments == f'{{"command": "login {STARS}"}}'
        assert state is not None
        assert state.messages[0]["content"] == f"used {STARS}"
    assert KEY.encode() not in written(tmp_path)


async def test_the_operators_own_patterns_keep_their_secrets_from_disk(tmp_path: Path) -> None:
    patterns = [r"EMP-(\d{6})"]
    async with serving(tmp_path, [says("Hello EMP-987654.")], server__redact_patterns=patterns) as house:
        await house.ask("I am EMP-123456.", path="/s/a")
        turn = await last_turn(house, "a")

        assert turn.messages[-1]["content"] == "I am EMP-******."
        assert turn.reply.text == "Hello EMP-******."
    found = written(tmp_path)
    assert b"123456" not in found
    assert b"987654" not in found


async def test_a_pattern_that_cannot_work_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"redact_patterns\[0\]"):
        async with serving(tmp_path, [], server__redact_patterns=["(a+)+$"]):
            pass


async def test_placeholder_ids_are_as_many_and_listed_where_they_stand(tmp_path: Path) -> None:
    reply = calls(f"login {KEY}")
    async with serving(tmp_path, [reply]) as house:
        await house.ask("Go.", tools=[BASH], path="/s/a")
        turn = await last_turn(house, "a")

        (span,) = [span for span in turn.redacted_spans if span.path == "completion.token_ids"]
        (star,) = ids("*")
        assert len(turn.completion.token_ids) == len(reply)
        assert set(turn.completion.token_ids[span.start : span.end]) == {star}
        assert turn.completion.token_ids[: span.start] == tuple(reply[: span.start])
        assert turn.completion.token_ids[span.end :] == tuple(reply[span.end :])
        assert turn.prompt_ids == house.engine.requests[0].prompt_ids


async def test_a_secret_is_known_for_the_rest_of_its_session(tmp_path: Path) -> None:
    async with serving(tmp_path, [says("Ok."), says("It is hunter2abc9."), says("Ok.")]) as house:
        first = (await house.ask("password=hunter2abc9", path="/s/a")).json()
        said = {"role": "assistant", "content": first["choices"][0]["message"]["content"]}
        await house.ask("password=hunter2abc9", said, "Say it.", path="/s/a")
        await house.ask("hunter2abc9 is a word elsewhere", path="/s/b")

        assert (await last_turn(house, "a")).reply.text == "It is ***********."
        assert (await last_turn(house, "b")).messages[0]["content"].startswith("hunter2abc9")


async def test_after_a_restart_a_prompt_with_secrets_is_rendered_anew(tmp_path: Path) -> None:
    asked = {"role": "user", "content": f"My key is {KEY}."}
    said = {"role": "assistant", "content": "Noted."}
    async with serving(tmp_path, [says("Noted.")]) as house:
        await house.ask(asked, path="/s/a")
    async with serving(tmp_path, [says("Ok.")]) as house:
        await house.ask(asked, said, "Thanks.", path="/s/a")
        first, second = await house.turns("a")

        assert second.parent == first.id
        assert second.prompt_built_by.startswith("rendered: ")
        (request,) = house.engine.requests
        assert KEY in decode(request.prompt_ids)


async def test_after_a_restart_what_a_history_gave_away_is_kept_from_disk_wherever_it_stands_bare(
    tmp_path: Path,
) -> None:
    asked = {"role": "user", "content": "password=hunter2abc9"}
    said = {"role": "assistant", "content": "It is hunter2abc9."}
    async with serving(tmp_path, [says("It is hunter2abc9.")]) as house:
        await house.ask(asked, path="/s/a")
    async with serving(tmp_path, [says("Ok.")]) as house:
        await house.ask(asked, said, "So hunter2abc9 it is.", path="/s/a")
        first, second = await house.turns("a")
        state = await house.runtime.log.next_state(first.id)

        assert state is not None
        assert state.messages[0]["content"] == "So *********** it is."
        assert [message["content"] for message in second.messages] == [
            "password=***********",
            "It is ***********.",
            "So *********** it is.",
        ]
    assert b"hunter2abc9" not in written(tmp_path)


async def test_a_secret_that_is_learned_after_a_restart_hides_none_that_the_history_gave_away(
    tmp_path: Path,
) -> None:
    asked = {"role": "user", "content": "password=hunter2abc9"}
    said = {"role": "assistant", "content": "Noted."}
    async with serving(tmp_path, [says("Noted.")]) as house:
        reply = (await house.ask(asked, path="/s/a")).json()
    async with serving(tmp_path, [says("Ok.")]) as house:
        await house.http.post(
            "/s/a/v1/feedback", json={"response_id": reply["id"], "text": "use api_key=zzz999qqq111"}
        )
        await house.ask(asked, said, "So hunter2abc9 it is, not zzz999qqq111.", path="/s/a")
        first, second = await house.turns("a")
        state = await house.runtime.log.next_state(first.id)

        assert second.parent == first.id
        assert state is not None
        assert state.messages[0]["content"] == "So *********** it is, not ************."
    found = written(tmp_path)
    assert b"hunter2abc9" not in found
    assert b"zzz999qqq111" not in found


async def test_what_a_later_system_message_gives_away_is_kept_from_disk_at_once(tmp_path: Path) -> None:
    asked = {"role": "user", "content": f"My key is {KEY}."}
    said = {"role": "assistant", "content": "Noted."}
    system = {"role": "system", "content": "password=hunter2abc9"}
    async with serving(tmp_path, [says("Noted."), says("Ok.")]) as house:
        await house.ask(asked, path="/s/a")
        await house.ask(system, asked, said, "So hunter2abc9 it is.", path="/s/a")
        first, second = await house.turns("a")
        state = await house.runtime.log.next_state(first.id)

        assert second.parent == first.id
        assert state is not None
        assert state.messages[0]["content"] == "So *********** it is."
    found = written(tmp_path)
    assert b"hunter2abc9" not in found
    assert KEY.encode() not in found


async def test_feedback_is_redacted_too(tmp_path: Path) -> None:
    async with serving(tmp_path, [says("Ok.")]) as house:
        reply = (await house.ask("Hi")).json()
        await house.http.post(
            "/v1/feedback", json={"response_id": reply["id"], "text": f"use {KEY}", "preferred": f"key {KEY}"}
        )
        (signal,) = await house.runtime.log.signals(reply["id"].removeprefix("chatcmpl-"))

        assert (signal.hint, signal.preferred) == (f"use {STARS}", f"key {STARS}")
        assert signal.evidence == f"use {STARS}"


async def test_a_turn_without_secrets_is_written_as_it_was(tmp_path: Path) -> None:
    async with serving(tmp_path, [says("Ok.")]) as house:
        await house.ask("Hi", path="/s/a")
        turn = await last_turn(house, "a")

        assert turn.redacted_spans == ()
        assert turn.prompt_ids == house.engine.requests[0].prompt_ids


async def test_the_secret_of_the_run_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    async with serving(tmp_path, []):
        assert (tmp_path / "secret.key").stat().st_mode & 0o777 == 0o600
        assert (tmp_path / "server.json").stat().st_mode & 0o777 == 0o600
