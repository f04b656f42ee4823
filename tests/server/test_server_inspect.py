import asyncio
from pathlib import Path
from typing import Any

import pytest
from server_house import BASH, calls, eventually, says, serving

from agentrl.errors import UserError
from agentrl.learner.control import is_paused
from agentrl.recipes.recipe import load_recipe
from agentrl.store.account import Account
from agentrl.store.learning_log import LearningLog
from agentrl.types import PolicyVersion, VersionState
from server.inspect import diagnose, explain_turn, first_unmet, roll_back, set_paused, status_of, versions_of
from server.run_files import ask_server, write_server_file

PENDING = {"open": 1, "unjudged": 0, "waiting": 5, "claimed": 0}
NONE_WAITS = {"open": 1, "unjudged": 0, "waiting": 0, "claimed": 0}


@pytest.mark.parametrize(
    ("counts", "state", "finding"),
    [
        ({}, {}, "nothing is wrong: 4 turns were trained"),
        ({}, {"is_running": False}, "start `agentrl serve`"),
        ({}, {"is_paused": True}, "agentrl resume"),
        ({}, {"learner": {"state": "refused its settings"}}, "learner.log"),
        ({"accepted": 0, "trained": 0, "apart": {"eval": 3}}, {}, "without /eval/"),
        ({"accepted": 0, "trained": 0}, {}, "point an agent at the server"),
        ({"accepted": 1, "trained": 0, "pending": NONE_WAITS}, {}, "send /v1/feedback"),
        (
            {"trained": 0, "rejected": {"no_reward": 9}, "pending": NONE_WAITS},
            {},
            "send rewards by /v1/feedback",
        ),
        ({"trained": 0, "rejected": {"no context": 9}, "pending": NONE_WAITS}, {}, "as text by /v1/feedback"),
        ({"trained": 0, "rejected": {"gate": 9}, "pending": NONE_WAITS}, {}, "lower optim.lr"),
        ({"trained": 0}, {}, "steps at 16 turns"),
    ],
)
def test_the_doctor_names_the_first_condition_that_is_not_met(
    counts: dict[str, Any], state: dict[str, Any], finding: str
) -> None:
    known = {"accepted": 10, "trained": 4, "rejected": {}, "pending": PENDING, "apart": {}} | counts
    running = {"is_running": True, "is_paused": False, "learner": {"state": "running"}} | state

    assert finding in first_unmet(Account(**known), load_recipe("hint_opsd"), **running)


def test_the_doctor_says_that_answers_without_a_partner_teach_no_preference() -> None:
    waiting = PENDING | {"waiting": 40}
    account = Account(accepted=50, trained=0, rejected={}, pending=waiting, apart={})

    found = first_unmet(
        account, load_recipe("dpo"), is_running=True, is_paused=False, learner={"state": "running"}
    )
    assert "have no partner" in found


def test_the_doctor_names_the_size_of_the_groups_that_are_missing() -> None:
    account = Account(accepted=10, trained=0, rejected={}, pending=PENDING, apart={})

    found = first_unmet(
        account, load_recipe("grpo"), is_running=True, is_paused=False, learner={"state": "running"}
    )
    assert "agentrl rollout --group-size 8" in found


async def one_conversation(run_dir: Path) -> str:
    """A failed command and what followed, in a run that does not learn; returns the first turn's id."""
    async with serving(run_dir, [calls("cat a.txt"), says("ok")]) as house:
        messages: list[Any] = [{"role": "user", "content": "Show the file a.txt."}]
        client = house.client()
        first = await client.chat.completions.create(model="nano", messages=messages, tools=[BASH])
        message = first.choices[0].message
        assert message.tool_calls
        messages += [
            message.model_dump(exclude_none=True),
            {
                "role": "tool",
                "tool_call_id": message.tool_calls[0].id,
                "content": "cat: use zorvex\n[exit code 1]",
            },
        ]
        await client.chat.completions.create(model="nano", messages=messages, tools=[BASH])
        turn_id = first.id.removeprefix("chatcmpl-")
        found = await house.runtime.log.find_turn(turn_id)
        assert found is not None
        await eventually(lambda: house.runtime.log.signals(found))
        live = await asyncio.to_thread(status_of, run_dir)
        assert live["counts"]["turns"] == 2
        return found


async def test_a_turn_is_explained_from_request_to_fate(tmp_path: Path) -> None:
    turn_id = await one_conversation(tmp_path)
    with LearningLog(tmp_path) as log:
        log.ensure_base("default", "base")

    story = await explain_turn(tmp_path, turn_id)

    assert story["turn"]["id"] == turn_id
    assert story["signals"][0]["hint"] == "cat: use zorvex"
    assert (await explain_turn(tmp_path, "last"))["turn"]["parent"] == turn_id
    with pytest.raises(UserError, match="agentrl explain last"):
        await explain_turn(tmp_path, "nothing")
    assert status_of(tmp_path)["server"] == "not running"
    assert "start `agentrl serve`" in diagnose(tmp_path)["finding"]


async def test_versions_are_listed_and_rolled_back(tmp_path: Path) -> None:
    await one_conversation(tmp_path)
    with LearningLog(tmp_path) as log:
        log.ensure_base("default", "base")
        log.publish(
            PolicyVersion(
                policy="default", number=1, parent=0, state=VersionState.CANDIDATE, path="versions/000001"
            )
        )
        log.set_state("default", 1, VersionState.SERVING, "held")
    assert [(row["number"], row["state"], row["reason"]) for row in versions_of(tmp_path)][1] == (
        1,
        "serving",
        "held",
    )

    assert roll_back(tmp_path, 0, "it forgot") == "version 0 serves again; set aside: 1"

    assert [row["state"] for row in versions_of(tmp_path)] == ["serving", "rejected"]
    with pytest.raises(UserError, match="cannot roll back to 7"):
        roll_back(tmp_path, 7, "x")


def test_learning_is_paused_and_resumed(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")

    assert set_paused(tmp_path, paused=True) == "learning is paused"
    assert is_paused(tmp_path)
    assert set_paused(tmp_path, paused=True) == "learning was paused already"
    assert set_paused(tmp_path, paused=False) == "learning is on"


async def test_a_run_that_never_learned_is_told_how_to(tmp_path: Path) -> None:
    await one_conversation(tmp_path)

    assert "without --no-learn" in diagnose(tmp_path)["finding"]
    assert versions_of(tmp_path) == []
    assert status_of(tmp_path)["learner"] == "has never worked in this run"


def test_a_file_of_a_server_that_is_gone_is_no_server(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    write_server_file(tmp_path, base_url="http://127.0.0.1:9", pid=1, key=None)

    assert ask_server(tmp_path, "/v1/status") is None


def test_a_folder_without_a_run_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="agentrl serve MODEL"):
        status_of(tmp_path)
