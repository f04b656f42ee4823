from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path

import psutil
import pytest
from engine_models import prompt, rescored

from agentrl.config import EngineConfig
from agentrl.engine import frames
from agentrl.engine.base import Finished, Sampled
from agentrl.engine.local import LocalEngine
from agentrl.engine.local_process import LocalProcessEngine
from agentrl.engine.messages import Report
from agentrl.errors import EngineGone, ModelError, RequestError
from agentrl.types import FinishReason, Sampling

CONFIG = EngineConfig(precision="fp32", max_len=512, max_running=2, max_queued=8)


async def reply(
    engine: LocalProcessEngine | LocalEngine, ids: list[int], **sampling: object
) -> list[Sampled]:
    events = [event async for event in engine.generate(ids, Sampling(**{"max_tokens": 20, **sampling}))]  # type: ignore[arg-type]
    assert isinstance(events[-1], Finished)
    return events[:-1]  # type: ignore[return-value]


async def another_pid(engine: LocalProcessEngine, pid: int | None) -> int:
    """The process id of the child that serves once `pid` no longer does."""
    async with asyncio.timeout(60):
        while engine.pid in (None, pid):
            await asyncio.sleep(0.01)  # the engine starts it by itself and tells nobody
    assert engine.pid is not None
    return engine.pid


async def test_a_killed_child_ends_running_requests_and_serves_the_queued_ones(
    qwen: Path, versions: list[Path]
) -> None:
    async with await LocalProcessEngine.start(qwen, CONFIG) as engine:
        await engine.load_version(1, versions[1])
        await engine.load_version(2, versions[2], serve=False)
        running = [engine.generate(prompt(i, 10), Sampling(max_tokens=480)) for i in range(2)]
        for stream in running:
            await anext(stream)
        queued = [asyncio.create_task(reply(engine, prompt(9, 10))) for _ in range(3)]
        score = asyncio.create_task(engine.score(prompt(1, 30), 10, version=2))
        await asyncio.sleep(0)  # each of them has asked
        first = engine.pid
        assert first is not None

        os.kill(first, signal.SIGKILL)

        for stream in running:
            with pytest.raises(EngineGone, match="died while the request ran"):
                async for _ in stream:
                    pass
        for sampled in await asyncio.gather(*queued):
            assert {event.version for event in sampled} == {1}
            own = rescored(versions[1], prompt(9, 10), [event.token_id for event in sampled])
            assert [event.raw_logprob for event in sampled] == pytest.approx(own, abs=1e-4)
        own = rescored(versions[2], prompt(1, 30)[:10], prompt(1, 30)[10:])
        assert (await score).logprobs == pytest.approx(own, abs=1e-4)
        assert engine.num_restarts == 1
        assert engine.pid not in (None, first)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_for_the_whole_group_leaves_the_end_of_the_child_to_its_parent(
    qwen: Path, number: signal.Signals
) -> None:
    async with await LocalProcessEngine.start(qwen, CONFIG) as engine:
        first = engine.pid
        assert first is not None
        assert os.getpgid(first) != os.getpgid(0), "Ctrl-C in a terminal does not reach it"
        os.kill(first, number)

        assert len(await reply(engine, prompt(1, 10))) == 20
        assert (engine.pid, engine.num_restarts) == (first, 0)


@pytest.mark.parametrize("is_told", [False, True])
def test_a_child_whose_parent_goes_before_it_serves_ends_without_a_word(qwen: Path, *, is_told: bool) -> None:
    ours, theirs = frames.pair()
    with theirs:
        child = subprocess.Popen(
            [sys.executable, "-m", "agentrl.engine.local_child", str(theirs.fileno())],
            pass_fds=(theirs.fileno(),),
            stderr=subprocess.PIPE,
        )
    with ours:
        if is_told:
            ours.sendall(frames.frame((str(qwen), CONFIG.model_dump(), 0, None, {})))
    _, said = child.communicate(timeout=60)

    assert (child.returncode, said) == (0, b"")


async def test_a_version_published_under_load_begins_before_the_old_one_ends(
    qwen: Path, versions: list[Path]
) -> None:
    config = CONFIG.model_copy(update={"max_running": 16, "prefill_chunk": 32, "max_resident_versions": 4})
    async with await LocalProcessEngine.start(qwen, config) as engine:
        order: list[int] = []
        at_work = [asyncio.Event() for _ in range(4)]

        async def one(ids: list[int], count: int) -> None:
            sampled = []
            async for event in engine.generate(ids, Sampling(max_tokens=count)):
                if isinstance(event, Sampled):
                    order.append(event.version)
                    sampled.append(event)
                    if order.count(event.version) >= 20:
                        at_work[event.version].set()
            assert len({event.version for event in sampled}) == 1
            own = rescored(versions[sampled[0].version], ids, [event.token_id for event in sampled])
            assert [event.raw_logprob for event in sampled] == pytest.approx(own, abs=1e-4)

        async with asyncio.TaskGroup() as group:
            for number in range(4):
                if number:
                    await engine.load_version(number, versions[number])
                for i in range(8 if number == 0 else 2):
                    group.create_task(one(prompt(10 * number + i, 20), 250))
                async with asyncio.timeout(60):
                    await at_work[number].wait()

        for old in range(3):
            assert order.index(old + 1) < len(order) - 1 - order[::-1].index(old)


async def test_a_request_that_waits_for_the_next_child_keeps_its_deadline(qwen: Path) -> None:
    async with await LocalProcessEngine.start(qwen, CONFIG) as engine:
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await reply(engine, prompt(1, 10))
        assert (await engine.capacity()).queued == 0


async def test_a_request_that_kills_every_child_is_given_up(qwen: Path) -> None:
    async with await LocalProcessEngine.start(qwen, CONFIG) as engine:
        # Stopped children hand out nothing, as if the request had made them hang.
        task = None
        for _ in range(2):
            pid = await another_pid(engine, None)
            os.kill(pid, signal.SIGSTOP)
            # so long that the second child has not ended before it is stopped
            task = task or asyncio.create_task(reply(engine, prompt(1, 10), max_tokens=500))
            await asyncio.sleep(0)  # it has asked
            os.kill(pid, signal.SIGKILL)
            await another_pid(engine, pid)
        assert task is not None
        with pytest.raises(EngineGone):
            await task
        assert len(await reply(engine, prompt(1, 10))) == 20


class Counting(LocalProcessEngine):
    """Counts what comes over the link."""

    num_reports = 0
    num_ids = 0

    def _deliver(self, report: Report) -> None:
        self.num_reports += 1
        self.num_ids += len(report.sampled)
        super()._deliver(report)


async def test_a_closed_stream_is_computed_no_further(qwen: Path) -> None:
    async with await Counting.start(qwen, CONFIG) as engine:
        for _ in range(3):
            async with aclosing(engine.generate(prompt(1, 10), Sampling(max_tokens=490))) as stream:  # type: ignore[type-var]
                await anext(stream)
        await reply(engine, prompt(2, 10), max_tokens=400)

        # Beyond the 400 there are only the few steps that were under way while each word went over the link.
        assert engine.num_ids < 400 + 3 * 150


async def test_an_old_version_that_goes_unused_is_no_longer_reported(
    qwen: Path, versions: list[Path]
) -> None:
    async with await LocalEngine.start(qwen, CONFIG.model_copy(update={"stick_s": 0.05})) as engine:
        await engine.load_version(1, versions[1])
        async with asyncio.timeout(10):
            while (await engine.capacity()).resident_versions != (1,):
                await asyncio.sleep(0.01)  # time is what is tested: the old version goes after stick_s


async def test_one_message_a_step_serves_all_sequences(qwen: Path) -> None:
    async with await Counting.start(qwen, CONFIG.model_copy(update={"max_running": 8})) as engine:
        await asyncio.gather(*(reply(engine, prompt(i, 10), max_tokens=100) for i in range(8)))

        assert engine.num_ids == 800
        assert engine.num_reports < 200


async def test_what_keeps_a_model_from_loading_crosses_as_its_own_error(tmp_path: Path, qwen: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json"):
        await LocalProcessEngine.start(tmp_path, CONFIG)

    async with await LocalProcessEngine.start(qwen, CONFIG) as engine:
        with pytest.raises(ModelError, match=r"model\.safetensors"):
            await engine.load_version(1, tmp_path)
        assert len(await reply(engine, prompt(1, 10))) == 20


async def test_stop_strings_are_matched_in_the_child_and_refused_without_a_tokenizer(
    qwen: Path, llama: Path
) -> None:
    async with await LocalProcessEngine.start(qwen, CONFIG) as engine:
        events = [e async for e in engine.generate(prompt(3, 20), Sampling(max_tokens=50, stop=("",)))]
        assert events[-1].finish_reason is FinishReason.LENGTH  # type: ignore[union-attr]
    async with await LocalEngine.start(llama, CONFIG) as engine:
        with pytest.raises(RequestError, match=r"tokenizer\.json"):
            await reply(engine, prompt(3, 20), stop=("x",))


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_k", -1),
        ("max_tokens", 0),
        ("top_logprobs", 21),
        ("grammar", "{"),
        ("grammar_after", 256),
    ],
)
async def test_sampling_that_cannot_be_done_is_refused_by_name(qwen: Path, param: str, value: object) -> None:
    async with await LocalEngine.start(qwen, CONFIG) as engine:
        with pytest.raises(RequestError) as caught:
            await reply(engine, prompt(1, 5), **{param: value})
        assert caught.value.param == param
        with pytest.raises(RequestError, match="id 256 is not in the vocabulary"):
            await reply(engine, [1, 256])


async def test_a_failure_in_the_scheduler_ends_every_request_with_its_reason(qwen: Path) -> None:
    engine = await LocalEngine.start(qwen, CONFIG)
    async with aclosing(engine.generate(prompt(1, 5), Sampling(max_tokens=480))) as stream:  # type: ignore[type-var]
        await anext(stream)
        engine._worker.scheduler.model = None  # type: ignore[assignment]
        engine._worker.scheduler.config = None  # type: ignore[assignment]
        engine._worker.scheduler.waiting = None  # type: ignore[assignment]
        with pytest.raises(EngineGone, match="the engine failed"):
            async for _ in stream:
                pass
    with pytest.raises(EngineGone, match="the engine failed"):
        await reply(engine, prompt(1, 5))
    await engine.aclose()


PARENT = """
import asyncio, sys
sys.modules["torch"] = None
sys.modules["transformers"] = None
from pathlib import Path
from agentrl.config import EngineConfig
from agentrl.engine.local_process import LocalProcessEngine
from agentrl.engine.scripted import ScriptedEngine
from agentrl.types import Sampling

async def main():
    engine = await LocalProcessEngine.start(Path(sys.argv[1]), EngineConfig(precision="fp32"))
    events = [event async for event in engine.generate([1, 2, 3], Sampling(max_tokens=5))]
    print(len(events), engine.pid, flush=True)
    if sys.argv[2] == "stay":
        await asyncio.sleep(600)  # until it is killed: what is tested
    await engine.aclose()

asyncio.run(main())
"""


def test_the_parent_serves_without_torch_and_closing_ends_the_child(qwen: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PARENT, str(qwen), "close"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    count, pid = done.stdout.split()

    assert count == "6"
    assert done.stderr == ""
    assert not psutil.pid_exists(int(pid))


def test_a_parent_that_is_killed_takes_its_child_with_it(qwen: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(qwen), "stay"], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    with parent.stdout:
        child = psutil.Process(int(parent.stdout.readline().split()[1]))
    parent.kill()
    parent.wait()

    # It is nobody's child here, so it is gone, or a zombie of whoever adopted it.
    psutil.wait_procs([child], timeout=20)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


async def test_an_engine_that_is_closed_right_after_its_start_leaves_no_process(qwen: Path) -> None:
    engine = await LocalProcessEngine.start(qwen, CONFIG)
    pid = engine.pid
    assert pid is not None
    await engine.aclose()
    assert engine.pid is None
    assert not psutil.pid_exists(pid)
