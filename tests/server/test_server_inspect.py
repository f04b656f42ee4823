import asyncio
import re
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from server_house import BASH, MODEL, calls, eventually, says, serving
from shown_house import ERROR, FAR, begin, corrected, session, showing, shown, stand, wished

from agentrl.config import Config, write_config
from agentrl.errors import UserError
from agentrl.learner.control import is_paused
from agentrl.recipes.recipe import load_recipe
from agentrl.store.account import Account
from agentrl.store.backlog import Waiting
from agentrl.store.learning_log import LearningLog
from agentrl.store.signal_log import SignalLog
from agentrl.store.version_log import Refused
from agentrl.types import PolicyVersion, VersionState
from server.doctor import diagnose, first_unmet, left_out, refused_finding
from server.inspect import explain_turn, roll_back, set_paused, status_of, versions_of
from server.run_files import ask_server, write_server_file

PENDING = {"open": 1, "unjudged": 0, "waiting": 5, "claimed": 0}
NONE_WAITS = {"open": 1, "unjudged": 0, "waiting": 0, "claimed": 0}
OPEN = {"next_state": 1}


def found(recipe: str, waiting: dict[str, int], counts: dict[str, Any] | None = None, **state: Any) -> str:
    """The finding of a run that has recorded ten turns and trained four of them."""
    known = {"accepted": 10, "trained": 4, "rejected": {}, "pending": PENDING, "apart": {}} | (counts or {})
    running = {
        "model": "nano",
        "is_running": True,
        "is_paused": False,
        "learner": {"state": "running"},
    } | state
    backlog = {reason: Waiting(num_turns=number, oldest_s=1.0) for reason, number in waiting.items()}
    return first_unmet(Account(**known), backlog, load_recipe(recipe), **running)


@pytest.mark.parametrize(
    ("counts", "waiting", "state", "finding"),
    [
        ({}, {}, {}, "nothing is wrong: 4 turns were trained"),
        ({}, {"step": 5}, {}, "nothing is wrong: 4 turns were trained; 5 turns wait for the learner"),
        ({}, {"step": 5}, {"is_running": False}, "start `agentrl serve nano` again"),
        ({}, {"step": 5}, {"is_paused": True}, "agentrl resume"),
        ({}, {"step": 5}, {"learner": {"state": "refused its settings"}}, "learner.log"),
        ({"accepted": 0, "trained": 0, "apart": {"eval": 3}}, {}, {}, "without /eval/"),
        ({"accepted": 0, "trained": 0}, {}, {}, "point an agent at the server"),
        ({"accepted": 1, "trained": 0, "pending": NONE_WAITS}, OPEN, {}, "send /v1/feedback"),
        (
            {"trained": 0, "rejected": {"no_reward": 9}, "pending": NONE_WAITS},
            OPEN,
            {},
            "send rewards by /v1/feedback",
        ),
        (
            {"trained": 0, "rejected": {"no context": 9}, "pending": NONE_WAITS},
            OPEN,
            {},
            "as text by /v1/feedback",
        ),
        (
            {"trained": 0, "rejected": {"already right": 9}, "pending": NONE_WAITS},
            OPEN,
            {},
            "they were right, which is held only beside turns that teach something; bare rewards teach under recipes "
            "such as openclaw_rl",
        ),
        (
            {"trained": 0, "rejected": {"no context": 9}, "pending": {**NONE_WAITS, "waiting": 1}},
            {"approval": 1},
            {},
            "1 turns wait for the approval of hints",
        ),
        ({"trained": 0, "rejected": {"gate": 9}, "pending": NONE_WAITS}, OPEN, {}, "lower optim.lr"),
        (
            {"trained": 0, "rejected": {"greedy sample": 9}, "pending": NONE_WAITS},
            OPEN,
            {},
            "sample at a temperature above 0",
        ),
        ({"trained": 0}, OPEN | {"step": 5}, {}, "steps at 8 turns"),
        ({"trained": 0}, OPEN | {"judge": 5, "step": 1}, {}, "5 turns wait for the judge"),
        ({"trained": 0}, OPEN | {"version": 5}, {}, "in a step whose version does not serve yet"),
        (
            {"trained": 0},
            OPEN | {"hand": 3},
            {},
            "3 turns wait for 5 more or for 59 s: batch.turns_per_step = 8, batch.max_wait_s = 60",
        ),
        ({"trained": 0}, OPEN | {"hand": 8}, {}, "8 turns are in a step that is being made"),
        (
            {},
            {"approval": 2, "step": 9},
            {},
            "4 turns were trained; 2 turns wait for the approval of hints",
        ),
    ],
)
def test_the_doctor_names_the_first_condition_that_is_not_met(
    counts: dict[str, Any], waiting: dict[str, int], state: dict[str, Any], finding: str
) -> None:
    assert finding in found("hint_opsd", waiting, counts, **state)


@pytest.mark.parametrize("trained", [0, 1])
def test_the_doctor_says_that_answers_without_a_partner_teach_no_preference(trained: int) -> None:
    """One trained turn hides no backlog."""
    said = found("dpo", {"judge": 50, "partner": 40, "version": 60}, {"trained": trained})
    assert "40 turns have no partner" in said
    assert "nothing is wrong" not in said


@pytest.mark.parametrize("trained", [0, 1])
def test_the_doctor_names_the_size_of_the_groups_that_are_missing(trained: int) -> None:
    said = found("grpo", {"group": 7, "step": 9}, {"trained": trained})
    assert "7 turns wait for their group" in said
    assert "agentrl rollout --group-size 8" in said
    assert "nothing is wrong" not in said


def test_the_doctor_says_which_turns_the_law_leaves_out_of_pairs() -> None:
    """Law 7: agents at temperature 0 yield no pairs, and that is said whatever else was trained."""
    rejected = {"greedy sample": 12, "greedy partner": 3, "no context": 1}
    account = Account(accepted=30, trained=4, rejected=rejected, pending=PENDING, apart={})

    (said,) = left_out(account, load_recipe("dpo"))
    assert said.startswith(
        "12 turns of pairs left out: sampled with one allowed id, e.g. temperature 0; law 7"
    )
    assert said.endswith(", and 3 compared with such a one")
    assert left_out(account, load_recipe("grpo"))[0].startswith("12 turns left out: sampled with one")
    few = Account(accepted=30, trained=4, rejected={"no context": 1}, pending=PENDING, apart={})
    assert left_out(few, load_recipe("dpo")) == []


async def test_the_doctor_reads_the_backlog_of_a_run(tmp_path: Path) -> None:
    await one_conversation(tmp_path)
    with LearningLog(tmp_path) as log:
        log.ensure_base("default", "base")

    diagnosis = diagnose(tmp_path)

    assert sum(turns["num_turns"] for turns in diagnosis["backlog"].values()) == 2
    assert diagnosis["backlog"]["step"]["num_turns"] == diagnosis["backlog"]["next_state"]["num_turns"] == 1
    assert diagnosis["left_out"] == []


async def test_the_doctor_says_what_turns_in_hand_wait_for_whatever_most_turns_wait_for(
    tmp_path: Path,
) -> None:
    await one_conversation(tmp_path)
    with LearningLog(tmp_path, clock=lambda: time.time() - 19.0) as log:
        log.ensure_base("default", "base")
        log.configure(needs="hint")
        assert len(log.claim(limit=8, needs="hint", max_age_s=1e9)) == 1

    diagnosis = diagnose(tmp_path)

    assert diagnosis["finding"].startswith("no server is running for this folder: start `agentrl serve /")
    assert re.match(r"1 turns wait for 7 more or for (41|40|39) s: batch\.turns", diagnosis["in_hand"])


def test_the_doctor_says_what_refused_the_newest_version_and_whether_learning_stands_still() -> None:
    reason = "KL to version 0 is 0.612 nats an id on 9 held-out turns, guards.max_kl_base allows 0.5"
    refused = Refused(num_versions=7, newest=12, reason=reason)

    stands = refused_finding(refused, serving=5)
    assert stands.startswith(
        f"7 versions were made and never served; the newest, 12: {reason}; a bound of guards"
    )
    assert refused_finding(refused, serving=13).endswith("guards.max_kl_base allows 0.5")


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


async def test_a_log_without_a_turn_asks_for_an_agent(tmp_path: Path) -> None:
    write_config(Config(model="nano", run_dir=str(tmp_path)), tmp_path / "config.json")
    async with await SignalLog.open(tmp_path):
        pass

    with pytest.raises(UserError, match="has no turn; point an agent at the server"):
        await explain_turn(tmp_path, "last")


async def test_a_turn_is_explained_from_request_to_fate(tmp_path: Path) -> None:
    turn_id = await one_conversation(tmp_path)
    with LearningLog(tmp_path) as log:
        log.ensure_base("default", "base")

    story = await explain_turn(tmp_path, turn_id)

    assert story["turn"]["id"] == turn_id
    assert story["signals"][0]["hint"] == 'The tool said: "cat: use zorvex"'
    assert (await explain_turn(tmp_path, "last"))["turn"]["parent"] == turn_id
    with pytest.raises(UserError, match="agentrl explain last"):
        await explain_turn(tmp_path, "nothing")
    assert status_of(tmp_path)["server"] == "not running"
    assert re.search("start `agentrl serve /.*` again, with the --recipe and", diagnose(tmp_path)["finding"])


async def test_the_last_turn_is_the_newest_that_may_be_learned_from(tmp_path: Path) -> None:
    async with serving(tmp_path, lambda prompt, sampling: says("Ok.")) as house:
        apart = [{"path": "/eval"}, {"headers": {"X-Turn-Type": "side"}}]
        await house.ask("Hi", **apart[0])
        with pytest.raises(UserError, match=r"no turn that may be learned from.*explain last --any"):
            await explain_turn(tmp_path, "last")

        learnable = (await house.ask("Hi")).headers["X-Turn-Id"]
        for options in apart:
            newest = (await house.ask("Hello", **options)).headers["X-Turn-Id"]
            assert (await explain_turn(tmp_path, "last"))["turn"]["id"] == learnable
            assert (await explain_turn(tmp_path, "last", of_any_kind=True))["turn"]["id"] == newest


async def test_where_nothing_was_taught_on_the_last_turn_the_newest_that_was_trained_is_named(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, lambda prompt, sampling: says("Ok.")) as house:
        reply = {"role": "assistant", "content": "Ok."}
        first = (await house.ask("Hi", path="/s/a")).headers["X-Turn-Id"]
        last = (await house.ask("Hi", reply, "Now in French.", path="/s/a")).headers["X-Turn-Id"]
        assert (await explain_turn(tmp_path, "last"))["newest_trained_turn"] is None, (
            "no learner has worked here"
        )
        with LearningLog(tmp_path) as log:
            log.ensure_base("default", str(MODEL))
            assert (await explain_turn(tmp_path, "last"))["newest_trained_turn"] is None

            def claimed() -> list[str]:
                return [one.turn.id for one in log.claim(limit=9, needs="any", max_age_s=1e6)]

            assert await eventually(lambda: asyncio.to_thread(claimed)) == [first]
            log.record_step([first], recipe="hint_opsd", seed=0, metrics={}, version_parent=0)
        told = await explain_turn(tmp_path, "last")
        assert (told["turn"]["id"], told["newest_trained_turn"]) == (last, first)
        assert "newest_trained_turn" not in await explain_turn(tmp_path, first)


async def test_the_last_turn_is_none_of_the_control_arm(tmp_path: Path) -> None:
    async with serving(tmp_path, lambda prompt, sampling: says("Ok."), learn__control_share=0.5) as house:
        ids = {"learning": "", "control": ""}
        for number in range(20):
            turn = await house.turn((await house.ask("Hi", path=f"/s/{number}")).headers["X-Turn-Id"])
            ids[str(turn.arm)] = turn.id
            if all(ids.values()) and turn.arm == "control":
                break

        assert (await explain_turn(tmp_path, "last"))["turn"]["id"] == ids["learning"]
        assert (await explain_turn(tmp_path, "last", of_any_kind=True))["turn"]["id"] == ids["control"]


async def test_a_turn_is_explained_with_the_text_of_the_lessons_in_its_prompt(tmp_path: Path) -> None:
    async with showing(tmp_path) as house:
        lesson = await corrected(house, tmp_path, session(tmp_path, "first"))
        await stand(house, 1)
        await begin(house, session(tmp_path, "next"), "b.txt")

        turn = (await explain_turn(tmp_path, "last"))["turn"]
        assert turn["shown_lessons"] == [{"id": lesson, "text": f'The tool said: "{ERROR}"'}]


async def test_a_wish_that_no_learner_has_gathered_is_explained_with_its_text(tmp_path: Path) -> None:
    async with showing(tmp_path) as house:
        await wished(house, session(tmp_path, "first"))
        await stand(house, 1)
        options = {"path": f"/s/{session(tmp_path, 'next')}", "headers": {"X-Task-Key": "t"}}
        assert shown(await house.ask(FAR, **options))

        [lesson] = (await explain_turn(tmp_path, "last"))["turn"]["shown_lessons"]
        assert "Cheers" in lesson["text"]


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

    began, served = (row["served_at"] for row in versions_of(tmp_path))
    assert all(datetime.fromisoformat(at).tzinfo for at in (began, served)), "as every time that people read"

    assert roll_back(tmp_path, 0, "it forgot") == (
        "version 0 serves again; set aside: 1, whose files go when the learner next tidies up"
    )

    assert [row["state"] for row in versions_of(tmp_path)] == ["serving", "rejected"]
    listed = re.escape(f"`agentrl versions --run-dir {tmp_path}`")
    with pytest.raises(UserError, match=rf"cannot roll back to 7: version 7 does not exist.*{listed}"):
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
    for number, why in ((0, "it serves already"), (999, "there is no version 999")):
        with pytest.raises(UserError, match=f"cannot roll back to {number}: {why}; no learner has worked in"):
            roll_back(tmp_path, number, "x")
    assert not (tmp_path / "learning.db").exists()


def test_a_file_of_a_server_that_is_gone_is_no_server(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    write_server_file(tmp_path, base_url="http://127.0.0.1:9", pid=1, key=None)

    assert ask_server(tmp_path, "/v1/status") is None


def test_a_folder_without_a_run_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="agentrl serve MODEL"):
        status_of(tmp_path)
