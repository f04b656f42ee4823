"""`agentrl explain` on a turn of a whole run: the request, what followed, votes, hint and gates, skill, what the
teacher read, the loss of every id, and the version that learned it."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from server_house import BASH, House, eventually, serving
from tokenizers import Tokenizer
from typer.testing import CliRunner

from agentrl.config import Config, LearnConfig, write_config
from agentrl.learner.held_out import is_held_out
from agentrl.nano import weights_dir
from agentrl.store.learning_log import LearningLog
from agentrl.text.renderer import load_renderer
from agentrl.types import Sampling
from server import gateway
from server.cli import app
from server.inspect import explain_turn
from skills.library import SkillLibrary

TOKENIZER = Tokenizer.from_file(str(weights_dir() / "tokenizer.json"))
CALL = '<tool_call>\n{"name": "bash", "arguments": {"command": "cat a.txt"}}\n</tool_call><|im_end|>'
HINT = "Use zorvex where cat is refused."
SKILL = """---
name: show-file
description: Show the file that is asked for.
---
1. Say zorvex and the name of the file.
"""
REFUSED = "cat: refused here; use zorvex instead\n[exit code 1]"
VERDICT = {"evidence": "use zorvex instead", "kind": "error", "fault": "agent", "reward": -1, "hint": HINT}
UNSURE = {"evidence": "", "kind": "no_error", "fault": "none", "reward": None, "hint": None}
CONTEXT = {
    "name": "several",
    "contexts": [
        {"name": "hindsight_hint", "position": "tail", "recall": 0.0},
        {"name": "skill", "position": "last_user"},
    ],
}


def ids(text: str) -> list[int]:
    """Ids of text in which control tokens mean themselves."""
    return list(TOKENIZER.encode(text, add_special_tokens=False).ids)


def agent_and_judge() -> Any:
    """A model that calls `cat` and then says Ok.; of three votes as the judge two are that the call was wrong."""
    verdicts = [VERDICT, VERDICT, UNSURE]
    asked = 0

    def reply(prompt: tuple[int, ...], sampling: Sampling) -> list[int]:
        nonlocal asked
        if sampling.grammar is None:
            return ids("Ok.<|im_end|>" if "refused here" in TOKENIZER.decode(list(prompt)) else CALL)
        asked += 1
        return ids(json.dumps(verdicts[(asked - 1) % 3]) + "<|im_end|>")

    return reply


NEW_ID = gateway.new_id


def trainable_id() -> str:
    """A request's id behind which no turn is held out of training: by chance one in sixteen is."""
    while is_held_out(name := NEW_ID()):
        pass
    return name


async def conversation(house: House, session: str) -> str:
    """A call that is refused, and an answer; returns the id of the call's turn."""
    client = house.client(f"/s/{session}/v1")
    messages: list[Any] = [{"role": "user", "content": "Show the file a.txt."}]
    first = await client.chat.completions.create(model="nano", messages=messages, tools=[BASH])  # type: ignore[list-item]
    message = first.choices[0].message
    assert message.tool_calls
    messages += [
        message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": REFUSED},
    ]
    await client.chat.completions.create(model="nano", messages=messages, tools=[BASH])  # type: ignore[list-item]
    turn_id = first.id.removeprefix("chatcmpl-")
    await eventually(lambda: house.runtime.log.signals(turn_id))
    return turn_id


def learned(run_dir: Path) -> None:
    """Runs the learner as the server does until a version is made."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "server.learner_main", str(run_dir)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    try:
        assert process.stdout is not None
        seen = []
        for line in process.stdout:
            seen.append(json.loads(line))
            if seen[-1]["event"] in ("version", "failed"):
                break
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert seen[-1]["event"] == "version", seen


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, dict[str, Any]]:
    """A run of nano's in which one step was taken: its folder, a turn, and what is explained of it."""
    run_dir = tmp_path_factory.mktemp("explained") / "run"
    given = run_dir.parent / "given" / "show-file"
    given.mkdir(parents=True)
    (given / "SKILL.md").write_text(SKILL, encoding="utf-8")
    settings = {"judge__backend": "self", "judge__when": "always"}

    async def served() -> list[str]:
        async with serving(run_dir, agent_and_judge(), model="nano", **settings) as house:
            return [await conversation(house, session) for session in ("a", "b")]

    with mock.patch.object(gateway, "new_id", trainable_id):
        turns = asyncio.run(served())
    SkillLibrary(run_dir / "skills").take(given)
    overrides = {
        "context": CONTEXT,
        "batch.turns_per_step": 2,
        "batch.max_wait_s": 0.0,
        "limits.max_logprob_gap": 100.0,
        "route.rehearsed": 0,
    }
    config = Config(
        model="nano",
        run_dir=str(run_dir),
        learn=LearnConfig(recipe="hint_opsd", overrides=overrides, precision="fp32", nice=0, max_age_s=1e9),
    )
    write_config(config, run_dir / "config.json")
    learned(run_dir)
    return run_dir, turns[0], asyncio.run(explain_turn(run_dir, turns[0]))


def test_it_tells_the_request_and_what_followed(story: tuple[Path, str, dict[str, Any]]) -> None:
    _, turn_id, told = story
    assert told["turn"]["id"] == turn_id
    assert told["turn"]["messages"] == [{"role": "user", "content": "Show the file a.txt."}]
    assert json.loads(told["turn"]["reply"]["tool_calls"][0]["arguments"]) == {"command": "cat a.txt"}
    assert told["next_state"]["messages"][0]["content"] == REFUSED


def test_it_tells_the_votes_the_hint_and_what_each_gate_said(
    story: tuple[Path, str, dict[str, Any]],
) -> None:
    _, _, told = story
    [said] = [one for one in told["signals"] if one["source"] == "judge"]
    assert (said["reward"], said["votes"]) == (-1.0, [-1.0, -1.0])
    assert HINT in said["hint"]
    assert said["evidence"] == 'error; fault: agent; 2 of 3 votes agree: "use zorvex instead"'
    [judgement] = told["judgements"]
    assert judgement["outcome"] == "judged"
    assert "hint passed length, agreement, injection" in judgement["detail"]


def test_it_tells_the_skill_and_the_version(story: tuple[Path, str, dict[str, Any]]) -> None:
    _, _, told = story
    [skill] = told["skills"]["taught_with"]
    assert (skill["name"], skill["body"]) == ("show-file", "1. Say zorvex and the name of the file.")
    assert told["fate"] == "trained"
    [step] = told["steps"]
    taught, later = told["taught"]
    assert (taught["source"], later["source"]) == ("sampled", "next_answer")
    assert (step["version"], step["recipe"]) == (1, "hint_opsd")
    assert [event["state"] for event in step["version_history"]] == ["candidate", "serving"]
    assert (taught["step"], taught["version"], taught["version_is"]) == (step["id"], 1, "serving")


def test_it_tells_what_the_teacher_read_and_where_it_stood(
    story: tuple[Path, str, dict[str, Any]],
) -> None:
    """The ids of a block, cut out of what the teacher read, say the block."""
    _, _, told = story
    taught = told["taught"][0]
    skill, hint = taught["context"]
    assert taught["teacher"] == "read the served prompt and 2 blocks beyond it"
    assert (skill["position"], skill["origin"]) == ("last_user", "skill show-file")
    assert skill["text"] == "Skill: show-file\n1. Say zorvex and the name of the file."
    [said] = [one["hint"] for one in told["signals"] if one["source"] == "judge"]
    assert (hint["position"], hint["origin"], hint["text"]) == ("tail", "hint", f"Hint: {said}")
    renderer = load_renderer(weights_dir())
    assert len(renderer.encode_plain("\n\n" + skill["text"])) == skill["ids"][1] - skill["ids"][0]
    assert skill["ids"][1] < hint["ids"][0]


def test_it_tells_the_loss_of_every_id_and_they_are_the_steps(
    story: tuple[Path, str, dict[str, Any]],
) -> None:
    run_dir, _, told = story
    taught = told["taught"][0]
    tokens = taught["tokens"]
    assert [token["id"] for token in tokens] == ids(CALL)
    assert "".join(token["text"] for token in tokens) == CALL
    for token in tokens:
        assert token.keys() == {"at", "id", "text", "policy", "teacher", "loss", "is_largest"}
        assert token["policy"] <= 0
        assert token["teacher"] <= 0
        assert token["loss"] >= -1e-3
    largest = [token["loss"] for token in tokens if token["is_largest"]]
    assert len(largest) == 3
    assert min(largest) >= max(token["loss"] for token in tokens if not token["is_largest"])
    # The teacher has read to say zorvex: of all ids the command's is the least like it.
    assert any(token["text"].strip() == "cat" for token in tokens if token["is_largest"])

    with LearningLog(run_dir) as log:
        step = log.step(taught["step"])
    assert step is not None
    others = [one for name in step.turn_ids for one in asyncio.run(explain_turn(run_dir, name))["taught"]]
    total = sum(token["loss"] for one in others for token in one["tokens"])
    assert taught["num_tokens"] == sum(len(one["tokens"]) for one in others)
    assert total / taught["num_tokens"] == pytest.approx(step.metrics["loss"], rel=3e-3)


def test_the_command_prints_the_ids_as_a_table_and_the_same_as_json(
    story: tuple[Path, str, dict[str, Any]],
) -> None:
    run_dir, turn_id, told = story
    shown = CliRunner().invoke(app, ["explain", turn_id, "--run-dir", str(run_dir)])
    as_json = CliRunner().invoke(app, ["explain", turn_id, "--run-dir", str(run_dir), "--json"])

    assert json.loads(as_json.stdout) == json.loads(json.dumps(told))
    lines = shown.stdout.splitlines()
    first, second = (at for at, line in enumerate(lines) if "policy   teacher      loss" in line)
    header, lines = lines[first], lines[first:second]
    marked = [line for line in lines if line.endswith(" <")]
    [cat] = [line.split() for line in marked if "'cat'" in line or "' cat'" in line]
    assert len(marked) == 3
    assert header.split() == ["policy", "teacher", "loss"]
    assert (
        "each id of the reply by its place; policy: log-prob by the policy; teacher: log-prob by the teacher; "
        "loss: the id's term of the loss; < the largest losses"
    ) in shown.stdout
    # times as people read them
    received = re.findall(r"received_at: (.*)", shown.stdout)
    assert received
    assert all(datetime.fromisoformat(at).tzinfo for at in received)
    assert not re.findall(r"_at: 1\d{9}", shown.stdout)
    assert len(cat) >= 5
    assert "text: Hint: " in shown.stdout
    assert f"origin: hint\n{' ' * 8}ids:" in shown.stdout
    assert "detail: " in shown.stdout
    assert "hint passed length, agreement, injection" in shown.stdout


def test_it_says_where_nothing_was_recorded(story: tuple[Path, str, dict[str, Any]]) -> None:
    """Of the two turns of the step the newer record stays."""
    run_dir, turn_id, _ = story
    last = asyncio.run(explain_turn(run_dir, "last"))
    assert last["taught"][0]["step"] == 1
    assert last["taught"][0]["note"].startswith("its answer was learned on the prompt of turn ")

    with LearningLog(run_dir) as log:
        log.record_step([], recipe="r", seed=0, metrics={}, version_parent=1, keep_taught=1)
    notes = [
        entry["note"]
        for name in asyncio.run(two_turns(run_dir, turn_id))
        for entry in asyncio.run(explain_turn(run_dir, name))["taught"]
        if "note" in entry
    ]
    assert len(notes) == 1
    assert "it stays for the newest 1000 trained turns (learn.explained_turns)" in notes[0]


async def two_turns(run_dir: Path, turn_id: str) -> list[str]:
    with LearningLog(run_dir) as log:
        [step] = [step for step in (log.step(1),) if step is not None]
    assert turn_id in step.turn_ids
    return list(step.turn_ids)
