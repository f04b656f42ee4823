"""A recipe that forbids hints with the answer, on a live run: the learner refuses them, and everybody can see it."""

from pathlib import Path
from typing import Any

import pytest
from server_house import House, eventually, serving
from tokenizers import Tokenizer

from agentrl.learner.guard_report import write_report
from agentrl.nano import weights_dir
from server.guard_pages import guards_of, numbers
from server.inspect import explain_turn
from server.metrics import Metrics

TOKENIZER = Tokenizer.from_file(str(weights_dir() / "tokenizer.json"))
OVERRIDES = {
    "context": {"name": "hindsight_hint", "position": "tail", "recall": 0.8, "may_hold_answer": False},
    "batch.turns_per_step": 1,
    "batch.max_wait_s": 0.0,
}


async def told(house: House, right: str, correction: str) -> str:
    """A reply that is corrected, and of which somebody knows the right one; returns its turn."""
    first = (await house.ask("Which town is it?")).json()
    turn_id = first["id"].removeprefix("chatcmpl-")
    await house.http.post("/v1/feedback", json={"response_id": first["id"], "preferred": right})
    await house.ask("Which town is it?", {"role": "assistant", "content": "It is Rome."}, correction)
    return turn_id


async def test_a_hint_that_holds_the_answer_is_refused_counted_and_explained(tmp_path: Path) -> None:
    replies = [
        list(TOKENIZER.encode(text, add_special_tokens=False).ids)
        for text in ("It is Rome.<|im_end|>", "Ok.<|im_end|>")
    ]
    learn: dict[str, Any] = {"learn__enabled": True, "learn__overrides": OVERRIDES, "learn__nice": 0}
    async with serving(tmp_path, replies, model="nano", **learn) as house:
        turn_id = await told(house, "Carthage", "No, please use the name Carthage.")

        async def status() -> dict[str, Any] | None:
            found = (await house.http.get("/v1/status")).json()
            return found if found["hints"].get("leak") else None

        found = await eventually(status, timeout_s=120)
        metrics = (await house.http.get("/metrics")).text

    assert found["hints"] == {"accepted": 1, "leak": 1}
    assert 'agentrl_hints_total{outcome="leak"} 1.0' in metrics
    explained = await explain_turn(tmp_path, turn_id)
    assert explained["fate"] == "rejected:hint holds the answer"
    assert [one["detail"] for one in explained["judgements"]] == ["hint passed length, injection"]


@pytest.mark.parametrize(("outcome", "name"), [("leak", "leaks"), ("useless", "useless")])
def test_only_refusals_since_the_start_are_counted_and_each_once(
    tmp_path: Path, outcome: str, name: str
) -> None:
    metrics = Metrics()
    metrics.read_guards = lambda: numbers(guards_of(tmp_path))
    write_report(tmp_path, {name: 3})
    metrics.num_refused = metrics.refused()

    assert metrics.hints_by_outcome() == {}
    write_report(tmp_path, {name: 5})
    assert metrics.hints_by_outcome() == {outcome: 2}
    assert metrics.hints_by_outcome() == {outcome: 2}
    assert f'agentrl_hints_total{{outcome="{outcome}"}} 2.0' in metrics.exposition().decode()
