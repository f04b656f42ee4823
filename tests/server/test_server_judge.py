"""The served model as its own judge: asked over the server's own door, recorded, and never learned from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from server_house import House, decode, eventually, says, serving

from agentrl.config import load_config
from agentrl.engine.base import Priority
from agentrl.errors import ConfigError
from agentrl.signals.judge_prompt import SCHEMA
from agentrl.store.learning_log import LearningLog
from agentrl.types import End, NextState, Purpose, Sampling, Signal, SignalSource, TurnKind
from server.auth import judge_key
from server.judge_score import run_score
from server.request import JUDGE_SCOPE
from server.run_folder import run_secret

SILENT = "Hm. My aunt would read a list in order of age."
"""Words of a user on which the rules are silent."""


def verdict(**changes: Any) -> str:
    said = {"evidence": "in order of age", "kind": "correction", "fault": "agent", "reward": -1, "hint": None}
    return json.dumps(said | changes)


def agent_and_judge(*verdicts: str) -> Any:
    """A model that answers agents with Ok., and a question of the judge's with each of the verdicts in turn."""
    asked = 0

    def reply(prompt: tuple[int, ...], sampling: Sampling) -> list[int]:
        nonlocal asked
        if sampling.grammar is None:
            return says("Ok.")
        asked += 1
        return says(verdicts[(asked - 1) % len(verdicts)])

    return reply


async def talk(house: House, session: str, *users: str) -> str:
    """A conversation in which the model says Ok. each time; returns the id of its first turn."""
    messages: list[dict[str, Any]] = []
    for text in users:
        messages.append({"role": "user", "content": text})
        reply = await house.ask(*messages, path=f"/s/{session}")
        assert reply.status_code == 200, reply.text
        messages.append({"role": "assistant", "content": "Ok."})
    return (await house.turns(session))[0].id


async def signal_of(house: House, turn_id: str) -> Signal:
    """The turn's own; the user's words are offered beside a judge's hint."""
    signals = await eventually(lambda: house.runtime.log.signals(turn_id))
    [signal] = [one for one in signals if one.offered is None]
    return signal


async def test_the_served_model_judges_and_its_own_turns_are_recorded_apart_and_never_claimed(
    tmp_path: Path,
) -> None:
    hint = "Sort the list by age."
    replies = agent_and_judge(verdict(hint=hint), verdict(hint=hint), verdict(reward=None, kind="none"))
    async with serving(tmp_path, replies, judge__backend="self") as house:
        turn_id = await talk(house, "a", "List my cousins.", SILENT)
        signal = await signal_of(house, turn_id)
        status = (await house.http.get("/v1/status")).json()
        metrics = (await house.http.get("/metrics")).text
        explained = await house.runtime.log.explain(turn_id)

        async def asked() -> list[Any]:
            sessions = await house.runtime.log.open_sessions()
            own = [one.session for one in sessions if one.scope == JUDGE_SCOPE]
            return [turn for session in own for turn in await house.turns(session, JUDGE_SCOPE)]

        own = await asked()
        requests = [one for one in house.engine.requests if one.sampling.grammar is not None]
        users = [one for one in house.engine.requests if one.sampling.grammar is None]

    assert (signal.source, signal.reward, signal.votes) == (SignalSource.JUDGE, -1.0, (-1.0, -1.0))
    assert signal.hint == hint
    assert signal.evidence == 'correction; fault: agent; 2 of 3 votes agree: "in order of age"'
    assert explained["signals"][0]["votes"] == [-1.0, -1.0]
    assert explained["signals"][0]["evidence"] == signal.evidence
    # One request, three votes of it, behind every request of a user.
    assert len(requests) == 3
    assert len({one.prompt_ids for one in requests}) == 1
    assert {one.priority for one in requests} == {Priority.JUDGE}
    assert {one.priority for one in users} == {Priority.USER}
    assert json.loads(requests[0].sampling.grammar or "") == SCHEMA
    prompt = decode(requests[0].prompt_ids)
    assert "List my cousins." in prompt
    assert SILENT in prompt
    assert status["judge"]["counts"]["requests"] == 1
    assert status["judge"]["counts"]["votes"] == 3
    assert status["judge"]["hour"]["calls"] == 1
    assert status["judge"]["hour"]["tokens"] == len(requests[0].prompt_ids) + sum(
        len(turn.completion.token_ids) for turn in own
    )
    assert 'agentrl_judge_total{what="judged"} 1.0' in metrics
    assert status["latency"]["num_turns"] == 2
    # What the judge was asked stands in the log, apart from everything that is learned from.
    assert len(own) == 3
    assert {turn.purpose for turn in own} == {Purpose.OFF}
    assert {turn.kind for turn in own} == {TurnKind.SIDE}
    # One session for what is asked within some minutes: they do not push users' out of memory.
    assert len({turn.session for turn in own}) == 1
    assert own[0].session.startswith("judge-")
    with LearningLog(tmp_path) as log:
        claimed = log.claim(limit=100, needs="any", max_age_s=3600.0)
        account = log.account("default")
    assert [one.turn.id for one in claimed] == [turn_id]
    assert account.apart == {"off": 3}
    assert account.accepted == 2
    assert account.balanced


async def test_what_the_judge_is_asked_never_waits_for_a_judge_itself(tmp_path: Path) -> None:
    async with serving(tmp_path, agent_and_judge(verdict()), judge__backend="self") as house:
        log = house.runtime.log
        await signal_of(house, await talk(house, "a", "List my cousins.", SILENT))
        own = [one for one in await log.open_sessions() if one.scope == JUDGE_SCOPE]
        turns = [turn for one in own for turn in await house.turns(one.session, JUDGE_SCOPE)]
        for turn in turns:
            assert await log.record_next_state(NextState(turn_id=turn.id, end=End.ABANDONED))

        assert len(turns) == 3
        assert await log.unjudged(10) == []
        # Two of the agent, three votes, and none about any of them.
        assert len(house.engine.requests) == 5


async def test_a_pinned_version_judges_whatever_is_served(tmp_path: Path) -> None:
    async with serving(
        tmp_path, agent_and_judge(verdict()), judge__backend="self", judge__model="nano@0", judge__votes=1
    ) as house:
        await signal_of(house, await talk(house, "a", "List my cousins.", SILENT))
        versions = {one.version for one in house.engine.requests if one.sampling.grammar is not None}

    assert versions == {0}


async def test_where_keys_are_needed_the_server_knows_its_own_judge_and_nobody_shares_its_scope(
    tmp_path: Path,
) -> None:
    keys = [{"key": "team-key-1", "scope": "team"}]
    async with serving(
        tmp_path, agent_and_judge(verdict()), judge__backend="self", judge__votes=1, server__api_keys=keys
    ) as house:
        client = house.client(key="team-key-1")
        messages: list[dict[str, Any]] = [{"role": "user", "content": "List my cousins."}]
        first = await client.chat.completions.create(model="nano", messages=messages)  # type: ignore[arg-type]
        messages += [{"role": "assistant", "content": "Ok."}, {"role": "user", "content": SILENT}]
        await client.chat.completions.create(model="nano", messages=messages)  # type: ignore[arg-type]
        signal = await signal_of(house, first.id.removeprefix("chatcmpl-"))
        sessions = await house.runtime.log.open_sessions()
        key = judge_key(run_secret(tmp_path))
        asked = await house.ask("Hi", headers={"Authorization": f"Bearer {key}"})
        turn = await house.turn(asked.headers["X-Turn-Id"])
        stranger = await house.ask("Hi", headers={"Authorization": "Bearer judge-" + "0" * 64})

    assert signal.reward == -1
    assert {one.scope for one in sessions} == {"team", JUDGE_SCOPE}
    # Whoever holds the key can ask for no turn that is learned from.
    assert (turn.scope, turn.purpose) == (JUDGE_SCOPE, Purpose.OFF)
    assert stranger.status_code == 401
    with pytest.raises(ConfigError, match="the server's own"):
        async with serving(tmp_path / "b", [], server__api_keys=[{"key": "other-key", "scope": JUDGE_SCOPE}]):
            pass


async def test_a_client_may_wait_behind_the_others_and_not_before_them(tmp_path: Path) -> None:
    async with serving(tmp_path, lambda *_: says("Ok.")) as house:
        await house.ask("Hi", headers={"X-Priority": "probe"})
        refused = await house.ask("Hi", headers={"X-Priority": "first"})

    assert house.engine.requests[0].priority is Priority.PROBE
    assert refused.status_code == 400
    assert "user, teacher, judge, summariser, probe" in refused.json()["error"]["message"]


async def test_a_judge_that_writes_no_verdict_fails_and_is_no_reward(tmp_path: Path) -> None:
    async with serving(
        tmp_path, agent_and_judge("I think so."), judge__backend="self", judge__max_retries=0
    ) as house:
        turn_id = await talk(house, "a", "List my cousins.", SILENT)

        async def failed() -> Any:
            return (await house.runtime.log.explain(turn_id))["judgements"]

        [judgement, *_] = await eventually(failed)
        signals = await house.runtime.log.signals(turn_id)
        status = (await house.http.get("/v1/status")).json()
        served = await house.ask("Hi")

    assert judgement["outcome"] == "failed"
    assert "0 of 3 votes can be read: the answer is not JSON" in judgement["detail"]
    assert signals == []
    assert status["judge"]["counts"]["failed"] >= 1
    assert served.status_code == 200


async def test_an_abstention_is_explained_by_its_votes(tmp_path: Path) -> None:
    said = [verdict(), verdict(reward=0), verdict(reward=None)]
    async with serving(tmp_path, agent_and_judge(*said), judge__backend="self") as house:
        turn_id = await talk(house, "a", "List my cousins.", SILENT)

        async def judged() -> Any:
            return (await house.runtime.log.explain(turn_id))["judgements"]

        [judgement] = await eventually(judged)

    assert judgement["outcome"] == "abstained"
    assert judgement["detail"].startswith("the votes disagree: ")


FUNCTIONS = """
import json
from agentrl.signals.judge import Judgement
from agentrl.types import SignalSource

def ask(messages, *, temperature):
    said = {"evidence": "", "kind": "correction", "fault": "agent", "reward": -1, "hint": None}
    return json.dumps(said) if temperature == 0.7 else "no"

def judge(turn, state):
    return Judgement(reward=0.5)

def three(a, b, c):
    return ""

class Mine:
    name = "mine"
    source = SignalSource.JUDGE
    async def judge(self, turn, state):
        return Judgement(reward=0.25)
"""


@pytest.mark.parametrize(
    ("name", "reward", "votes"),
    [("ask", -1.0, (-1.0, -1.0, -1.0)), ("judge", 0.5, ()), ("Mine", 0.25, ())],
)
async def test_code_of_the_users_judges(
    tmp_path: Path, name: str, reward: float, votes: tuple[float, ...]
) -> None:
    (tmp_path / "mine.py").write_text(FUNCTIONS)
    async with serving(
        tmp_path / "run",
        lambda *_: says("Ok."),
        judge__backend="callable",
        judge__callable=f"{tmp_path}/mine.py:{name}",
    ) as house:
        signal = await signal_of(house, await talk(house, "a", "List my cousins.", SILENT))

    assert (signal.reward, signal.votes, signal.source) == (reward, votes, SignalSource.JUDGE)


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"votes": 5}, r"judge\.votes has no effect with judge\.backend = 'rules'"),
        ({"when": "always"}, r"judge\.when has no effect"),
        ({"backend": "self", "base_url": "http://x/v1"}, "choose judge.backend = 'openai'"),
        ({"backend": "self", "callable": "a:b"}, "choose judge.backend = 'callable'"),
        ({"backend": "self", "model": "gpt"}, r"judge\.model cannot be asked: There is no model 'gpt'"),
        ({"backend": "self", "model": "nano@7"}, "There is no model 'nano@7'"),
        ({"backend": "self", "temperature": 0.0}, r"raise the temperature, or set judge\.votes = 1"),
        ({"backend": "self", "votes": 9}, r"lower one of them, or raise engine\.max_running"),
        ({"backend": "openai", "model": "m", "base_url": "http://me:pw@x/v1"}, "name or a password"),
        ({"backend": "openai", "model": "m"}, r"judge\.base_url is ''"),
        (
            {"backend": "openai", "model": "m", "base_url": "localhost:80"},
            r"judge\.base_url is 'localhost:80'",
        ),
        ({"backend": "openai", "base_url": "http://x/v1"}, r"judge\.model is empty"),
        (
            {"backend": "openai", "base_url": "http://x/v1", "model": "m", "api_key_env": "NO_SUCH_KEY"},
            "NO_SUCH_KEY, which the environment lacks",
        ),
        ({"backend": "callable"}, r"judge\.callable is empty"),
        ({"backend": "callable", "callable": "nowhere.py:x"}, "there is no file"),
        ({"backend": "callable", "callable": "mine"}, "path/file.py:Name"),
        ({"backend": "callable", "callable": "mine.py:three"}, "takes 3 values"),
        ({"backend": "callable", "callable": "mine.py:Mine", "votes": 5}, "judges by itself"),
        ({"backend": "callable", "callable": "mine.py:ask", "model": "m"}, r"judge\.model has no effect"),
    ],
)
async def test_settings_that_cannot_work_are_refused_at_the_start_with_the_remedy(
    tmp_path: Path, settings: dict[str, Any], remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(FUNCTIONS)
    monkeypatch.chdir(tmp_path)
    given = {f"judge__{name}": value for name, value in settings.items()}

    with pytest.raises(ConfigError, match=remedy):
        async with serving(tmp_path / "run", [], **given):
            pass


def test_a_setting_that_there_is_not_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"judge\.vote"):
        load_config(judge__vote=3)


async def test_the_served_model_is_scored_on_the_labelled_turns_over_the_servers_own_door(
    tmp_path: Path,
) -> None:
    said = verdict(evidence="", reward=-1)
    async with serving(tmp_path, agent_and_judge(said), judge__backend="self") as house:
        score = await run_score(
            "self", "dev", run_dir=tmp_path, overrides=["judge.votes=2"], alone=True, limit=10, target=0.5
        )
        asked = [one for one in house.engine.requests if one.sampling.grammar is not None]
        counts = await house.runtime.log.counts()

    # Turns whose end says nothing are not asked about, all others cost two votes in one request.
    assert score["num_turns"] == 10
    assert score["num_failed"] == 0
    assert len(asked) == 2 * score["num_judged"]
    assert score["cost"]["requests"] == score["num_judged"] / 10
    assert score["calibration"]["thresholds"][0]["num_judged"] == score["num_judged"]
    assert counts["turns"] == counts["turns.off"] == len(asked)


async def test_a_server_that_does_not_run_cannot_be_scored(tmp_path: Path) -> None:
    async with serving(tmp_path, [], judge__backend="self"):
        pass
    with pytest.raises(ConfigError, match=r"start `agentrl serve .* --run-dir .*` again"):
        await run_score("self", "dev", run_dir=tmp_path)
