from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch
from engine_harness import Harness
from engine_models import greedy, prompt, rescored

from agentrl.engine.base import Priority
from agentrl.errors import EngineError
from agentrl.types import FinishReason, VersionSpan


@pytest.mark.parametrize("shape", ["qwen", "llama"])
def test_greedy_ids_are_those_of_transformers_generate(shape: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(shape)
    engine = Harness(folder, prefill_chunk=16)
    prompts = [prompt(seed, 5 + 9 * seed) for seed in range(6)]

    jobs = [engine.generate(ids, temperature=0.0, max_tokens=20) for ids in prompts]
    engine.run()

    assert [engine.ids(job) for job in jobs] == [greedy(folder, ids, 20) for ids in prompts]
    assert {row[2] for job in jobs for row in engine.sampled[job]} == {0.0}
    assert {row[4] for job in jobs for row in engine.sampled[job]} == {1}


@pytest.mark.parametrize("shape", ["qwen", "llama"])
def test_raw_logprobs_are_those_of_a_full_rescoring_forward(
    shape: str, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(shape)
    engine = Harness(folder, prefill_chunk=16, max_running=4)
    prompts = [prompt(seed, 4 + 7 * seed) for seed in range(8)]
    ways = [{}, {"temperature": 0.6}, {"top_k": 7}, {"temperature": 0.0}] * 2

    jobs = [engine.generate(ids, max_tokens=24, **way) for ids, way in zip(prompts, ways, strict=True)]
    engine.run()

    for ids, job in zip(prompts, jobs, strict=True):
        assert len(engine.ids(job)) == 24
        assert engine.raw(job) == pytest.approx(rescored(folder, ids, engine.ids(job)), abs=1e-4)


def test_logprobs_are_of_the_distribution_sampled_from(qwen: Path) -> None:
    engine = Harness(qwen)
    hot, plain, few = (
        engine.generate(prompt(1, 9), temperature=1.7),
        engine.generate(prompt(1, 9)),
        engine.generate(prompt(1, 9), top_k=2),
    )
    engine.run()

    assert all(row[2] == row[3] and row[4] == 256 for row in engine.sampled[plain])
    assert any(abs(row[2] - row[3]) > 0.1 for row in engine.sampled[hot])
    assert all(row[2] >= row[3] and row[4] == 2 for row in engine.sampled[few])


def test_a_seeded_reply_is_the_same_alone_and_in_company(qwen: Path) -> None:
    ids = prompt(1, 30)
    alone = Harness(qwen)
    job = alone.generate(ids, seed=5, max_tokens=30, temperature=1.3)
    alone.run()

    crowd = Harness(qwen, prefill_chunk=8)
    for seed in range(5):
        crowd.generate(prompt(seed, 10 * seed + 3), max_tokens=20)
    crowd.step(7)
    again = crowd.generate(ids, seed=5, max_tokens=30, temperature=1.3)
    other = crowd.generate(ids, seed=6, max_tokens=30, temperature=1.3)
    crowd.run()

    assert crowd.ids(again) == alone.ids(job)
    assert crowd.ids(other) != alone.ids(job)


def test_requests_without_a_seed_differ(qwen: Path) -> None:
    engine = Harness(qwen)
    jobs = [engine.generate(prompt(1, 9), seed=None, temperature=2.0, max_tokens=20) for _ in range(3)]
    engine.run()

    assert len({tuple(engine.ids(job)) for job in jobs}) == 3


def test_a_reply_ends_at_a_stop_id_at_its_limit_and_at_the_models_limit(qwen: Path) -> None:
    engine = Harness(qwen, max_len=64)
    ids = prompt(1, 60)
    reply = greedy(qwen, ids[:50], 12)
    stop_at = reply.index(reply[7])

    stopped = engine.generate(ids[:50], temperature=0.0, max_tokens=12, stop_token_ids=(reply[7],))
    short = engine.generate(ids[:50], temperature=0.0, max_tokens=3)
    full = engine.generate(ids, max_tokens=100)
    engine.run()

    assert engine.ids(stopped) == reply[: stop_at + 1]
    assert engine.ended[stopped].finish_reason is FinishReason.STOP
    assert engine.ids(short) == reply[:3]
    assert engine.ended[short].finish_reason is FinishReason.LENGTH
    assert len(engine.ids(full)) == 4
    assert engine.ended[full].finish_reason is FinishReason.LENGTH
    assert engine.ended[short].version_spans == (VersionSpan(version=0, start=0, end=3),)


def test_a_reply_ends_with_the_id_that_completes_a_stop_string(qwen: Path) -> None:
    engine = Harness(qwen)
    ids = prompt(3, 20)
    free = engine.generate(ids, max_tokens=40, seed=1)
    engine.run()
    decode = engine.scheduler.decode
    assert decode is not None
    stop = next(
        text
        for start in range(4, 36)
        if (text := decode(engine.ids(free)[start : start + 3])).isascii()
        and text.isprintable()
        and len(text) == 3
    )
    before = decode(engine.ids(free))
    count = next(n for n in range(1, 41) if stop in decode(engine.ids(free)[:n]))

    stopped = engine.generate(ids, max_tokens=40, seed=1, stop=("never said", stop))
    engine.run()

    assert stop in before
    assert engine.ids(stopped) == engine.ids(free)[:count]
    assert engine.ended[stopped].finish_reason is FinishReason.STOP


def test_a_stop_string_that_stands_in_the_prompt_does_not_end_the_reply(qwen: Path) -> None:
    engine = Harness(qwen)
    ids = prompt(3, 20)
    decode = engine.scheduler.decode
    assert decode is not None
    reply = greedy(qwen, ids, 6)
    across = decode([*ids, *reply])[: len(decode(ids)) + 1][-3:]

    job = engine.generate(ids, max_tokens=6, temperature=0.0, stop=(across,))
    engine.run()

    assert engine.ids(job) == reply


def test_requests_join_and_leave_at_every_step(qwen: Path) -> None:
    engine = Harness(qwen)
    long = engine.generate(prompt(1, 5), max_tokens=30)
    engine.step(5)
    short = engine.generate(prompt(2, 5), max_tokens=3)
    engine.run()

    assert engine.steps_of[long] == list(range(1, 31))
    assert engine.steps_of[short] == [6, 7, 8]


def test_several_prompts_that_fit_the_chunk_are_read_in_one_pass(qwen: Path) -> None:
    engine = Harness(qwen, prefill_chunk=100)
    jobs = [engine.generate(prompt(seed, 25), max_tokens=2) for seed in range(4)]
    engine.step()

    assert [engine.steps_of[job] for job in jobs] == [[1]] * 4


def test_a_long_prompt_does_not_hold_up_those_that_decode(qwen: Path) -> None:
    engine = Harness(qwen, prefill_chunk=16)
    running = [engine.generate(prompt(seed, 5), max_tokens=60) for seed in range(3)]
    engine.step(4)
    long = engine.generate(prompt(9, 400), max_tokens=2)
    engine.run()

    # 25 chunks of 16 ids: in each of those steps every running request got its id all the same.
    assert engine.steps_of[long][0] == 4 + 25
    for job in running:
        assert engine.steps_of[job] == list(range(1, 61))
    assert engine.raw(long) == pytest.approx(rescored(qwen, prompt(9, 400), engine.ids(long)), abs=1e-4)


def test_a_short_prompt_overtakes_a_long_one_that_is_being_read(qwen: Path) -> None:
    engine = Harness(qwen, prefill_chunk=32)
    long = engine.generate(prompt(1, 320), max_tokens=4)
    engine.step(2)
    short = engine.generate(prompt(2, 16), max_tokens=4)
    engine.run()

    assert engine.steps_of[short][0] == 3
    # The long one goes on with at least half a chunk: 2 * 32 + 16 + 7.5 * 32 ids.
    assert engine.steps_of[long][0] == 11
    assert engine.raw(long) == pytest.approx(rescored(qwen, prompt(1, 320), engine.ids(long)), abs=1e-4)
    assert engine.raw(short) == pytest.approx(rescored(qwen, prompt(2, 16), engine.ids(short)), abs=1e-4)


def test_a_lower_priority_number_goes_first(qwen: Path) -> None:
    engine = Harness(qwen, max_running=1)
    first = engine.generate(prompt(1, 5))
    engine.step()
    judge = engine.generate(prompt(2, 5), priority=Priority.JUDGE)
    user = engine.generate(prompt(3, 5), priority=Priority.USER)
    probe = engine.generate(prompt(4, 5), priority=Priority.PROBE)
    teacher = engine.score(prompt(5, 9), 3, priority=int(Priority.TEACHER))
    engine.run()

    order = sorted([first, judge, user, probe], key=lambda job: engine.ended_at[job])
    assert order == [first, user, judge, probe]
    assert teacher in engine.scores


def test_an_aborted_request_frees_its_row_and_the_others_go_on(qwen: Path) -> None:
    engine = Harness(qwen)
    jobs = [engine.generate(prompt(seed, 6 + seed), max_tokens=20) for seed in range(4)]
    engine.step(5)

    engine.abort(jobs[1])

    assert engine.rows() == 3
    engine.run()
    assert engine.ended[jobs[1]].finish_reason is FinishReason.ABORT
    assert engine.ended[jobs[1]].version_spans == (VersionSpan(version=0, start=0, end=5),)
    for seed in (0, 2, 3):
        raw = rescored(qwen, prompt(seed, 6 + seed), engine.ids(jobs[seed]))
        assert engine.raw(jobs[seed]) == pytest.approx(raw, abs=1e-4)


def test_a_waiting_request_can_be_aborted(qwen: Path) -> None:
    engine = Harness(qwen, max_running=1)
    engine.generate(prompt(1, 5))
    waiting = engine.generate(prompt(2, 5))
    engine.step()

    engine.abort(waiting)
    engine.run()

    assert engine.ended[waiting].version_spans == ()
    assert waiting not in engine.sampled


def test_scores_are_raw_logprobs_of_the_given_ids(qwen: Path) -> None:
    engine = Harness(qwen, prefill_chunk=16)
    ids = prompt(1, 60)
    beside = engine.generate(prompt(2, 20), max_tokens=10)
    candidates = [[i % 256, 7] if i % 2 else [3] for i in range(20)]
    plain = engine.score(ids, 40)
    rich = engine.score(ids, 40, top_k=3, candidate_ids=tuple(map(tuple, candidates)))
    whole, one, none = engine.score(ids, 1), engine.score(ids, 59), engine.score(ids, 60)
    engine.score(ids[:1], 1)
    engine.run()

    own = rescored(qwen, ids[:1], ids[1:])
    assert engine.scores[plain].logprobs == pytest.approx(own[39:], abs=1e-4)
    assert engine.scores[whole].logprobs == pytest.approx(own, abs=1e-4)
    assert engine.scores[one].logprobs == pytest.approx(own[58:], abs=1e-4)
    assert engine.scores[none].logprobs == ()
    assert [len(row) for row in engine.scores[rich].candidates] == [len(row) for row in candidates]
    for i, (top, row) in enumerate(zip(engine.scores[rich].top, engine.scores[rich].candidates, strict=True)):
        assert [value for _, value in top] == sorted((value for _, value in top), reverse=True)
        assert row == pytest.approx([rescored(qwen, ids[: 40 + i], [c])[0] for c in candidates[i]], abs=1e-4)
        assert top[0][1] == pytest.approx(rescored(qwen, ids[: 40 + i], [top[0][0]])[0], abs=1e-4)
    assert engine.raw(beside) == pytest.approx(rescored(qwen, prompt(2, 20), engine.ids(beside)), abs=1e-4)


def test_the_next_turn_of_a_conversation_reuses_what_was_computed(qwen: Path) -> None:
    engine = Harness(qwen)
    first = prompt(1, 40)
    one = engine.generate(first, cache_key="s", max_tokens=10)
    engine.run()
    second = [*first, *engine.ids(one), *prompt(2, 15)]
    two = engine.generate(second, cache_key="s", max_tokens=10)
    engine.run()

    # The last sampled id was never fed, so it has no keys and values.
    assert engine.ended[one].num_cached == 0
    assert engine.ended[two].num_cached == 49
    assert engine.ended[two].num_version_prefill == 0
    assert engine.raw(two) == pytest.approx(rescored(qwen, second, engine.ids(two)), abs=1e-4)


def test_a_history_that_was_edited_is_reused_up_to_the_edit(qwen: Path) -> None:
    engine = Harness(qwen)
    first = prompt(1, 40)
    engine.generate(first, cache_key="s")
    engine.run()
    edited = [*first[:25], (first[25] + 1) % 256, *first[26:]]
    two = engine.generate(edited, cache_key="s")
    engine.run()

    assert engine.ended[two].num_cached == 25
    assert engine.raw(two) == pytest.approx(rescored(qwen, edited, engine.ids(two)), abs=1e-4)


def test_nothing_is_reused_across_cache_keys_or_without_one(qwen: Path) -> None:
    engine = Harness(qwen)
    ids = prompt(1, 40)
    engine.generate(ids, cache_key="mine")
    engine.generate(ids)
    engine.run()
    others = [engine.generate(ids, cache_key="yours"), engine.generate(ids)]
    engine.run()

    assert [engine.ended[job].num_cached for job in others] == [0, 0]


def test_nothing_is_reused_across_versions_and_the_cost_is_counted(qwen: Path, versions: list[Path]) -> None:
    engine = Harness(qwen, stick_s=0)
    first = prompt(1, 40)
    engine.generate(first, cache_key="s", max_tokens=10)
    engine.run()
    engine.load(1, versions[1])
    engine.step(2)
    two = engine.generate(first, cache_key="s", max_tokens=10)
    engine.run()

    assert engine.sampled[two][0][5] == 1
    assert engine.ended[two].num_cached == 0
    assert engine.ended[two].num_version_prefill == 39
    assert engine.version_prefill_tokens == 39
    assert engine.raw(two) == pytest.approx(rescored(versions[1], first, engine.ids(two)), abs=1e-4)


def test_keys_of_an_old_version_that_still_runs_are_not_reused_on_the_new_one(
    qwen: Path, versions: list[Path]
) -> None:
    engine = Harness(qwen, stick_s=1.0, max_pin_s=1e9)
    first = prompt(1, 40)
    engine.generate(first, cache_key="s", max_tokens=10)
    engine.run()
    keeps_it_alive = engine.generate(prompt(2, 5), max_tokens=200)
    engine.step()
    engine.load(1, versions[1])
    engine.step(2)
    engine.now = 1.0
    two = engine.generate(first, cache_key="s", max_tokens=10)
    engine.step(20)

    assert engine.live() == [0, 1]
    assert any(
        entry.saved is not None and entry.version == 0
        for entry in engine.scheduler.conversations.entries.values()
    )
    assert (engine.ended[two].num_cached, engine.ended[two].num_version_prefill) == (0, 39)
    assert engine.raw(two) == pytest.approx(rescored(versions[1], first, engine.ids(two)), abs=1e-4)
    engine.run()
    assert {row[5] for row in engine.sampled[keeps_it_alive]} == {0}


def test_logits_that_are_not_finite_end_one_request_and_leave_nothing_behind(
    qwen: Path,
) -> None:
    engine = Harness(qwen)
    bad = engine.generate(prompt(1, 30), max_tokens=30)
    good = engine.generate(prompt(2, 5), max_tokens=30)
    engine.step(3)
    resident = engine.scheduler.versions[0]
    with torch.inference_mode():
        resident.rows.keys[0][0:2, 20] = float("nan")
    engine.step()

    assert isinstance(engine.failed[bad], EngineError)
    later = engine.generate(prompt(3, 40), max_tokens=30)
    engine.run()
    assert list(engine.failed) == [bad]
    for seed, length, job in ((2, 5, good), (3, 40, later)):
        assert engine.raw(job) == pytest.approx(
            rescored(qwen, prompt(seed, length), engine.ids(job)), abs=1e-4
        )
    assert bool(torch.isfinite(resident.rows.storage).all())


def test_a_score_from_logits_that_are_not_finite_is_an_error_and_no_number(qwen: Path) -> None:
    engine = Harness(qwen, prefill_chunk=16)
    job = engine.score(prompt(1, 60), 30)
    engine.step(2)
    with torch.inference_mode():
        engine.scheduler.versions[0].rows.keys[0][0:2, 20] = float("nan")
    engine.run()

    assert isinstance(engine.failed[job], EngineError)
    assert job not in engine.scores
    assert engine.rows() == 0


@pytest.mark.parametrize("number", [100, pytest.param(400, marks=pytest.mark.heavy)])
def test_many_short_requests_leave_no_rows_and_no_tensors_behind(qwen: Path, number: int) -> None:
    engine = Harness(qwen, max_cached_tokens=200, max_running=8)

    def serve(count: int) -> tuple[int, int, int, int]:
        for i in range(count):
            engine.generate(prompt(i % 7, 6), cache_key=f"key {i % 50}", max_tokens=2)
            if i % 8 == 7:
                engine.run()
        engine.run()
        for kept in (engine.sampled, engine.steps_of, engine.ended, engine.ended_at):
            kept.clear()
        gc.collect()
        scheduler = engine.scheduler
        tensors = sum(1 for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor))
        positions = scheduler.versions[0].rows.num_positions
        return (
            tensors,
            positions,
            len(scheduler._jobs) + len(scheduler.waiting),
            scheduler.conversations.num_tokens,
        )

    serve(number)
    before = serve(number)
    after = serve(4 * number)

    assert after[:3] == before[:3]
    assert after[3] <= 200
    assert engine.rows() == 0


def test_one_long_request_does_not_leave_its_room_behind(qwen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentrl.engine.local_scheduler.KEEP_POSITIONS", 256)
    engine = Harness(qwen)
    engine.generate(prompt(1, 400))
    engine.run()

    assert engine.scheduler.versions[0].rows.num_positions == 0
