"""A live stream yields pairs by itself: what clients do over HTTP, through the gateway and both logs, to samples."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from server_house import MODEL, House, says, serving

from agentrl.learner.build import Builder
from agentrl.recipes.recipe import load_recipe
from agentrl.store.learning_log import LearningLog
from agentrl.text.renderer import ChatRenderer, load_renderer
from agentrl.types import TrainingSample

USER = {"role": "user", "content": "Name a colour."}


def reply(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


def said(renderer: ChatRenderer, sample: TrainingSample) -> str:
    """What a sample trains."""
    return renderer.decode(
        [i for i, trained in zip(sample.token_ids, sample.loss_mask, strict=True) if trained]
    )


def samples_of(run_dir: Path, renderer: ChatRenderer) -> Sequence[TrainingSample]:
    """What a learner with the recipe dpo makes of the run; the account balances meanwhile."""
    with LearningLog(run_dir) as log:
        log.ensure_base("default", str(MODEL))
        claims = log.claim(limit=100, needs="pair", max_age_s=1e6)
        account = log.account()
        assert account.balanced
        assert account.pending["claimed"] == len(claims)
    builder = Builder(recipe=load_recipe("dpo"), renderer=renderer, max_len=4096)
    built = builder.build(claims, newest_version=0)
    assert built.dropped == ()
    return built.samples


@pytest.fixture(scope="module")
def renderer() -> ChatRenderer:
    return load_renderer(MODEL)


async def ask_twice(house: House, headers: dict[str, str] | None = None) -> None:
    """Red, then Blue in its place, with which the conversation goes on."""
    await house.ask(USER, path="/s/a")
    await house.ask(USER, path="/s/a", headers=headers)
    await house.ask(USER, reply("Blue."), "Thanks.", path="/s/a")


async def test_of_a_regenerated_answer_the_later_one_is_preferred(
    tmp_path: Path, renderer: ChatRenderer
) -> None:
    async with serving(tmp_path, [says("Red."), says("Blue."), says("Ok.")]) as house:
        await ask_twice(house)

        samples = samples_of(tmp_path, renderer)

    assert [(said(renderer, sample), sample.preferred) for sample in samples] == [
        ("Red.<|im_end|>", False),
        ("Blue.<|im_end|>", True),
    ]
    assert len({sample.pair for sample in samples}) == 1
    red, blue = (sample.token_ids[: sample.loss_mask.index(True)] for sample in samples)
    assert red == blue


async def test_a_retry_compares_nothing(tmp_path: Path, renderer: ChatRenderer) -> None:
    """Clients ask again by themselves where an answer came too late: it may have been good."""
    async with serving(tmp_path, [says("Red."), says("Blue."), says("Ok.")]) as house:
        await ask_twice(house, {"x-stainless-retry-count": "1"})

        assert samples_of(tmp_path, renderer) == ()


async def test_an_edited_question_compares_nothing(tmp_path: Path, renderer: ChatRenderer) -> None:
    """Its answer is to another prompt: the first one may have been good."""
    async with serving(tmp_path, [says("Hi."), says("Red."), says("Blue."), says("Ok.")]) as house:
        await house.ask("Hello", path="/s/a")
        start = ({"role": "user", "content": "Hello"}, reply("Hi."))
        await house.ask(*start, "A colour?", path="/s/a")
        await house.ask(*start, "A cold colour?", path="/s/a")
        await house.ask(*start, "A cold colour?", reply("Blue."), "Thanks.", path="/s/a")

        assert samples_of(tmp_path, renderer) == ()


async def test_the_answer_that_feedback_prefers_is_the_preferred_side(
    tmp_path: Path, renderer: ChatRenderer
) -> None:
    async with serving(tmp_path, [says("Red.")]) as house:
        turn_id = (await house.ask(USER)).headers["X-Turn-Id"]
        await house.http.post("/v1/feedback", json={"turn_id": turn_id, "preferred": "Deep blue."})

        samples = samples_of(tmp_path, renderer)

    assert [(said(renderer, sample), sample.preferred, sample.turn_ids) for sample in samples] == [
        ("Red.<|im_end|>", False, (turn_id,)),
        ("Deep blue.<|im_end|>", True, ()),
    ]
    assert samples[1].behavior_logprobs is None
