from pathlib import Path
from typing import Any

import httpx
import pytest
from server_house import House, says, serving

from agentrl.types import End, SignalSource


async def give(house: House, body: dict[str, Any], **options: Any) -> httpx.Response:
    return await house.http.post(options.pop("path", "") + "/v1/feedback", json=body, **options)


async def test_feedback_on_a_turn_becomes_a_signal_of_the_user(tmp_path: Path) -> None:
    async with serving(tmp_path, [says("Ok.")]) as house:
        turn_id = (await house.ask("Hi")).headers["X-Turn-Id"]
        given = await give(
            house, {"turn_id": turn_id, "reward": -1, "text": "Use zip.", "preferred": "zip a"}
        )

        assert given.json()["num_signals"] == 1
        (signal,) = await house.runtime.log.signals(turn_id)
        assert (signal.source, signal.reward, signal.hint, signal.preferred) == (
            SignalSource.USER,
            -1.0,
            "Use zip.",
            "zip a",
        )


async def test_an_id_in_the_place_of_the_better_answers_text_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path, [says("Ok.")]) as house:
        turn_id = (await house.ask("Hi")).headers["X-Turn-Id"]
        refused = await give(house, {"turn_id": turn_id, "preferred": f"chatcmpl-{turn_id}"})

        assert refused.status_code == 400
        assert "preferred is the text of the better answer" in refused.json()["error"]["message"]
        assert await house.runtime.log.signals(turn_id) == []


async def test_words_alone_are_no_reward(tmp_path: Path) -> None:
    """Law 6: None is not zero."""
    async with serving(tmp_path, [says("Ok.")]) as house:
        turn_id = (await house.ask("Hi")).headers["X-Turn-Id"]
        await give(house, {"turn_id": turn_id, "text": "Use zip."})

        (signal,) = await house.runtime.log.signals(turn_id)
        assert signal.reward is None


async def test_an_environment_rewards_a_session_at_its_newest_turn(tmp_path: Path) -> None:
    async with serving(tmp_path, [says("One."), says("Two.")]) as house:
        await house.ask("Hi", path="/s/a")
        last = (await house.ask("And?", path="/s/a")).headers["X-Turn-Id"]
        given = await give(house, {"reward": 1.0, "source": "environment", "end_session": True}, path="/s/a")

        assert given.json() == {"turn_id": last, "session": "a", "num_signals": 1, "num_closed": 2}
        (signal,) = await house.runtime.log.signals(last)
        assert (signal.source, signal.reward) == (SignalSource.ENVIRONMENT, 1.0)
        for turn in await house.turns("a"):
            state = await house.runtime.log.next_state(turn.id)
            assert state is not None
            assert state.end is End.CLOSED


async def test_a_response_is_named_by_its_id(tmp_path: Path) -> None:
    async with serving(tmp_path, [says("Ok."), says("A."), says("B.")]) as house:
        one, two = (await house.ask("Hi")).json(), (await house.ask("Hi", n=2)).json()
        given = await give(house, {"response_id": one["id"], "reward": 0})
        several = await give(house, {"response_id": two["id"], "reward": 0})

        assert given.status_code == 200
        assert (await house.runtime.log.signals(given.json()["turn_id"]))[0].reward == 0.0
        assert several.status_code == 400
        assert several.json()["error"]["code"] == "ambiguous_target"
        chosen = two["choices"][1]["agentrl"]["turn_id"]
        assert (await give(house, {"turn_id": chosen, "reward": 1})).json()["turn_id"] == chosen


async def test_another_scope_s_turn_is_as_unknown_as_none(tmp_path: Path) -> None:
    keys = [{"key": "key-of-anna", "scope": "anna"}, {"key": "key-of-bert", "scope": "bert"}]
    async with serving(tmp_path, [says("Ok.")], server__api_keys=keys) as house:
        anna, bert = ({"Authorization": f"Bearer key-of-{name}"} for name in ("anna", "bert"))
        turn_id = (await house.ask("Hi", path="/s/a", headers=anna)).headers["X-Turn-Id"]
        stolen = await give(house, {"turn_id": turn_id, "reward": 1}, headers=bert)
        missing = await give(house, {"turn_id": "0" * 23, "reward": 1}, headers=bert)
        session = await give(house, {"session": "a", "reward": 1}, headers=bert)

        assert (stolen.status_code, missing.status_code, session.status_code) == (404, 404, 404)
        assert stolen.json()["error"]["message"].replace(turn_id, "X") == missing.json()["error"][
            "message"
        ].replace("0" * 23, "X")
        assert await house.runtime.log.signals(turn_id) == []
        assert (await give(house, {"turn_id": turn_id, "reward": 1}, headers=anna)).status_code == 200


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"reward": 1}, "invalid_target"),
        ({"turn_id": "a", "session": "b", "reward": 1}, "invalid_target"),
        ({"turn_id": "a"}, "empty_feedback"),
        ({"turn_id": "a", "reward": 2}, "invalid_value"),
        ({"turn_id": "a", "rewrad": 1}, "invalid_value"),
        ({"turn_id": "a", "reward": 1, "source": "judge"}, "invalid_value"),
    ],
)
async def test_feedback_that_says_nothing_or_too_much_is_refused(
    tmp_path: Path, body: dict[str, Any], code: str
) -> None:
    async with serving(tmp_path, []) as house:
        refused = await give(house, body)

        assert refused.status_code == 400
        assert refused.json()["error"]["code"] == code
