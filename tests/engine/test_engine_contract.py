"""What every engine promises, run over each kind that can run on this machine."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from engine_models import prompt

from agentrl.config import EngineConfig
from agentrl.engine.base import Engine, Finished, Sampled
from agentrl.engine.local import LocalEngine
from agentrl.engine.local_process import LocalProcessEngine
from agentrl.engine.scripted import ScriptedEngine
from agentrl.errors import EngineBusy, EngineError, EngineGone, RequestError, VersionGone
from agentrl.types import FinishReason, Sampling

pytestmark = pytest.mark.asyncio(loop_scope="module")

MAX_RUNNING, MAX_QUEUED = 3, 2
CONFIG = EngineConfig(
    precision="fp32",
    max_len=512,
    max_running=MAX_RUNNING,
    max_queued=MAX_QUEUED,
    stick_s=0.0,
    max_resident_versions=3,
)
KINDS = ["scripted", "local", "process"]
ASKED = prompt(1, 12)


async def start(kind: str, folder: Path) -> Engine:
    match kind:
        case "scripted":
            return ScriptedEngine(
                lambda ids, _: [(sum(ids) + i) % 256 for i in range(600)],
                max_len=512,
                vocab_size=256,
                max_running=MAX_RUNNING,
                max_queued=MAX_QUEUED,
            )
        case "local":
            return await LocalEngine.start(folder, CONFIG)
        case _:
            return await LocalProcessEngine.start(folder, CONFIG)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=KINDS)
async def engine(request: pytest.FixtureRequest, qwen: Path) -> AsyncIterator[Engine]:
    started = await start(request.param, qwen)
    yield started
    await started.aclose()


async def collect(stream: AsyncIterator[Sampled | Finished]) -> tuple[list[Sampled], Finished]:
    events = [event async for event in stream]
    *sampled, end = events
    assert isinstance(end, Finished)
    assert all(isinstance(event, Sampled) for event in sampled)
    return sampled, end  # type: ignore[return-value]


async def reply(engine: Engine, ids: Sequence[int] = ASKED, *, version: int | None = None, **sampling: Any):  # type: ignore[no-untyped-def]
    settings = Sampling(**{"max_tokens": 10, "seed": 1, **sampling})
    return await collect(engine.generate(ids, settings, version=version))


async def idle(engine: Engine) -> None:
    """Returns once no row is in use: a row is freed by the scheduler's next step."""
    async with asyncio.timeout(10):
        while (status := await engine.capacity()).running or status.queued:
            await asyncio.sleep(0.001)  # another process steps


async def test_a_stream_is_sampled_ids_and_then_one_finished(engine: Engine) -> None:
    sampled, end = await reply(engine)

    assert len(sampled) == 10
    assert end.finish_reason is FinishReason.LENGTH
    assert [(span.start, span.end) for span in end.version_spans] == [(0, 10)]
    assert {event.version for event in sampled} == {end.version_spans[0].version}
    assert all(0 <= event.token_id < engine.vocab_size and event.logprob <= 0 for event in sampled)


async def test_a_seeded_request_repeats(engine: Engine) -> None:
    once, twice = await reply(engine), await reply(engine)

    assert [event.token_id for event in once[0]] == [event.token_id for event in twice[0]]


async def test_a_stop_id_ends_the_stream_and_is_part_of_it(engine: Engine) -> None:
    free, _ = await reply(engine)
    ids = [event.token_id for event in free]
    sampled, end = await reply(engine, stop_token_ids=(ids[4],))

    assert [event.token_id for event in sampled] == ids[: ids.index(ids[4]) + 1]
    assert end.finish_reason is FinishReason.STOP


async def test_a_reply_never_outgrows_the_engine(engine: Engine) -> None:
    sampled, end = await reply(engine, prompt(2, engine.max_len - 5), max_tokens=100)

    assert len(sampled) == 5
    assert end.finish_reason is FinishReason.LENGTH


@pytest.mark.parametrize("length", [0, 512, 600])
async def test_a_prompt_that_does_not_fit_is_refused(engine: Engine, length: int) -> None:
    with pytest.raises(RequestError) as caught:
        await reply(engine, prompt(1, length))
    assert caught.value.param == "prompt"


async def test_a_version_that_is_not_live_is_refused(engine: Engine) -> None:
    with pytest.raises(VersionGone, match="77"):
        await reply(engine, version=77)


async def test_a_full_queue_refuses_and_says_when_to_come_back(engine: Engine) -> None:
    async with asyncio.TaskGroup() as group, Streams() as streams:
        for _ in range(MAX_RUNNING + MAX_QUEUED):
            streams.append(engine.generate(ASKED, Sampling(max_tokens=400)))
        waiting = [group.create_task(anext(stream)) for stream in streams]
        await asyncio.sleep(0)  # each of them has asked

        with pytest.raises(EngineBusy) as caught:
            await reply(engine)
        assert caught.value.retry_after_s > 0
        await waiting[0]
        # Two wait for a row; they get none while the others keep theirs.
        await streams[0].aclose()
        await waiting[3]
        for task in waiting[4:]:
            task.cancel()
        await asyncio.wait(waiting)
    await idle(engine)
    assert len((await reply(engine))[0]) == 10


class Streams:
    """Closes every stream of a list at the end."""

    async def __aenter__(self) -> list[Any]:
        self.streams: list[Any] = []
        return self.streams

    async def __aexit__(self, *_: object) -> None:
        for stream in self.streams:
            await stream.aclose()


async def test_closing_the_iterator_frees_the_row(engine: Engine) -> None:
    for _ in range(2 * (MAX_RUNNING + MAX_QUEUED)):
        async with aclosing(engine.generate(ASKED, Sampling(max_tokens=400))) as stream:  # type: ignore[type-var]
            await anext(stream)
    await idle(engine)

    assert (await engine.capacity()).running == 0


async def test_a_caller_with_a_deadline_gives_its_place_back(engine: Engine) -> None:
    async with Streams() as streams:
        for _ in range(MAX_RUNNING):
            streams.append(engine.generate(ASKED, Sampling(max_tokens=490)))
            await anext(streams[-1])
        for _ in range(3 * MAX_QUEUED):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await reply(engine)
    await idle(engine)


async def test_an_abort_ends_the_stream_with_what_was_sampled(engine: Engine) -> None:
    async with aclosing(engine.generate(ASKED, Sampling(max_tokens=490), request_id="r1")) as stream:  # type: ignore[type-var]
        sampled = [await anext(stream)]
        await engine.abort("another")
        await engine.abort("r1")
        rest, end = await collect(stream)
    count = len(sampled) + len(rest)

    assert end.finish_reason is FinishReason.ABORT
    assert count < 490
    assert [(span.start, span.end) for span in end.version_spans] == [(0, count)]


NUMBERS = itertools.count(1)


async def test_requests_without_a_version_begin_on_the_newest(engine: Engine, versions: list[Path]) -> None:
    number = next(NUMBERS)
    await engine.load_version(number, versions[1])
    assert number in (await engine.capacity()).resident_versions

    _, newest = await reply(engine)
    _, named = await reply(engine, version=number)
    assert newest.version_spans[0].version == named.version_spans[0].version == number


async def test_a_held_version_answers_by_number_until_it_is_dropped(
    engine: Engine, versions: list[Path]
) -> None:
    number = next(NUMBERS)
    _, before = await reply(engine)
    await engine.load_version(number, versions[2], serve=False)
    _, free = await reply(engine)
    _, named = await reply(engine, version=number)
    assert free.version_spans[0].version == before.version_spans[0].version
    assert named.version_spans[0].version == number

    await engine.drop_version(number)
    with pytest.raises(VersionGone):
        await reply(engine, version=number)


async def test_the_serving_version_cannot_be_dropped(engine: Engine) -> None:
    _, end = await reply(engine)

    with pytest.raises(EngineError, match="being served"):
        await engine.drop_version(end.version_spans[0].version)


async def test_scores_have_one_entry_for_each_scored_id(engine: Engine) -> None:
    ids = prompt(3, 20)
    scores = await engine.score(ids, 12, top_k=3, candidate_ids=[[1, 2]] * 8)

    assert [len(scores.logprobs), len(scores.top), len(scores.candidates)] == [8, 8, 8]
    assert {len(row) for row in scores.top} == {3}
    assert {len(row) for row in scores.candidates} == {2}
    assert all(value <= 0 for value in scores.logprobs)
    assert (await engine.score(ids, 20)).logprobs == ()


@pytest.mark.parametrize("start", [0, 21])
async def test_a_score_that_starts_outside_is_refused(engine: Engine, start: int) -> None:
    with pytest.raises(RequestError) as caught:
        await engine.score(prompt(3, 20), start)
    assert caught.value.param == "start"


async def test_capacity_counts_what_runs_and_what_waits(engine: Engine) -> None:
    await idle(engine)
    async with Streams() as streams:
        for _ in range(MAX_RUNNING):
            streams.append(engine.generate(ASKED, Sampling(max_tokens=490)))
            await anext(streams[-1])
        status = await engine.capacity()

        assert (status.running, status.queued) == (MAX_RUNNING, 0)
        assert (status.max_running, status.max_queued) == (MAX_RUNNING, MAX_QUEUED)
    await idle(engine)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_closed_engine_says_so(kind: str, qwen: Path) -> None:
    closed = await start(kind, qwen)
    running = closed.generate(ASKED, Sampling(max_tokens=490))
    await anext(running)
    await closed.aclose()
    await closed.aclose()

    with pytest.raises(EngineGone):
        async for _ in running:
            pass
    with pytest.raises(EngineGone):
        await reply(closed)
    with pytest.raises(EngineGone):
        await closed.score(ASKED, 1)
