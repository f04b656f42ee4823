from __future__ import annotations

from pathlib import Path

import pytest
from engine_harness import Harness
from engine_models import prompt, rescored

from agentrl.engine.local_job import Job
from agentrl.engine.local_scheduler import Scheduler
from agentrl.engine.local_versions import Resident
from agentrl.errors import EngineError, VersionGone


def versions_of(engine: Harness, job: int) -> list[tuple[int, int, int]]:
    return [(span.version, span.start, span.end) for span in engine.ended[job].version_spans]


def worst_gap(engine: Harness, folders: list[Path], prompts: dict[int, list[int]]) -> float:
    """Largest difference between the log-prob handed out for an id and that of the version it claims."""
    gap = 0.0
    for job, ids in prompts.items():
        replies = engine.ids(job)
        for version in {row[5] for row in engine.sampled[job]}:
            own = rescored(folders[version % len(folders)], ids, replies)
            mine = engine.sampled[job]
            gap = max(gap, *(abs(row[3] - own[i]) for i, row in enumerate(mine) if row[5] == version))
    return gap


def publish(
    engine: Harness, folders: list[Path], publications: int, *, step_s: float
) -> dict[int, list[int]]:
    """Publishes one version after another, each while at least eight requests are running.

    `step_s` is what the clock advances by in each step. One request begins right after each publication.
    """
    prompts: dict[int, list[int]] = {}

    def begin() -> None:
        ids = prompt(len(prompts), 3 + len(prompts) % 23)
        prompts[engine.generate(ids, max_tokens=20 + len(prompts) % 17)] = ids

    def step() -> None:
        while engine.scheduler.num_running + len(engine.scheduler.waiting) < 9:
            begin()
        engine.now += step_s
        engine.step()

    for number in range(1, publications + 1):
        for _ in range(3):
            step()
        while engine.scheduler.num_running < 8:
            step()
        call = engine.load(number, folders[number % len(folders)])
        while call not in engine.done:
            step()
        begin()
    engine.run()
    return prompts


PUBLICATIONS = [20, pytest.param(100, marks=pytest.mark.heavy)]


def test_the_versions_of_these_tests_differ_by_more_than_half_a_nat(versions: list[Path]) -> None:
    probe, reply = prompt(1, 20), prompt(2, 30)
    scores = [rescored(folder, probe, reply) for folder in versions]
    gaps = [
        sum(abs(a - b) for a, b in zip(one, other, strict=True)) / 30
        for i, one in enumerate(scores)
        for other in scores[:i]
    ]
    assert min(gaps) > 0.5


@pytest.mark.parametrize("publications", PUBLICATIONS)
def test_requests_finish_on_their_version_and_every_logprob_is_that_versions(
    qwen: Path, versions: list[Path], publications: int
) -> None:
    engine = Harness(qwen, max_running=16, prefill_chunk=64, max_pin_s=1e9)
    prompts = publish(engine, versions, publications, step_s=0.0)

    assert all(len(engine.ended[job].version_spans) == 1 for job in prompts)
    assert {engine.sampled[job][0][5] for job in prompts} == set(range(publications + 1))
    assert engine.version_prefill_tokens == 0
    assert worst_gap(engine, versions, prompts) < 1e-4
    for number in range(publications):
        last_of_old = max(engine.steps_of[job][-1] for job in prompts if engine.sampled[job][0][5] == number)
        first_of_new = min(
            engine.steps_of[job][0] for job in prompts if engine.sampled[job][0][5] == number + 1
        )
        assert first_of_new < last_of_old


@pytest.mark.parametrize("publications", PUBLICATIONS)
def test_requests_that_move_claim_each_id_for_the_version_that_sampled_it(
    qwen: Path, versions: list[Path], publications: int
) -> None:
    engine = Harness(qwen, max_running=16, prefill_chunk=64, max_pin_s=0.5)
    prompts = publish(engine, versions, publications, step_s=0.3)

    moved = [job for job in prompts if len(engine.ended[job].version_spans) > 1]
    assert sum(len(engine.ended[job].version_spans) - 1 for job in moved) > 4 * publications
    assert all(engine.ended[job].num_version_prefill > 0 for job in moved)
    assert engine.version_prefill_tokens == sum(engine.ended[job].num_version_prefill for job in prompts)
    for job in prompts:
        spans = versions_of(engine, job)
        claimed = [version for version, start, end in spans for _ in range(start, end)]
        assert claimed == [row[5] for row in engine.sampled[job]]
        assert [start for _, start, _ in spans] == [0, *(end for _, _, end in spans[:-1])]
        assert [version for version, _, _ in spans] == sorted({version for version, _, _ in spans})
    assert worst_gap(engine, versions, prompts) < 1e-4


class KeepsOldKeys(Scheduler):
    """What an engine does that swaps weights under running requests."""

    def carry(self, source: Resident, row: int, filled: int, job: Job) -> int:
        target = self.versions[job.version]
        target.rows.load(job.row, source.rows.save(row, filled), filled)
        return filled


def test_without_recomputation_the_check_of_logprobs_fails(qwen: Path, versions: list[Path]) -> None:
    engine = Harness(qwen, KeepsOldKeys, max_running=16, prefill_chunk=64, max_pin_s=0.5)
    prompts = publish(engine, versions, 20, step_s=0.3)

    assert any(len(engine.ended[job].version_spans) > 1 for job in prompts)
    assert worst_gap(engine, versions, prompts) > 0.5


def test_a_move_is_recomputed_in_chunks_between_the_steps_of_others(qwen: Path, versions: list[Path]) -> None:
    engine = Harness(qwen, prefill_chunk=16, max_pin_s=1.0, stick_s=0)
    old = engine.generate(prompt(1, 200), max_tokens=40)
    while not engine.ids(old):
        engine.step()
    engine.load(1, versions[1])
    engine.step()
    new = engine.generate(prompt(2, 5), max_tokens=30)
    engine.step(3)
    engine.now = 1.0
    before = len(engine.ids(old))
    at = engine.num_steps
    engine.run()

    # Its ids are read again under version 1, 16 a step, while the other request gets an id in every step.
    filled = 200 + before - 1
    assert engine.steps_of[old][before] == at + -(-(filled + 1) // 16)
    assert engine.steps_of[new] == list(range(engine.steps_of[new][0], engine.steps_of[new][0] + 30))
    assert versions_of(engine, old) == [(0, 0, before), (1, before, 40)]
    assert engine.ended[old].num_version_prefill == filled


def test_a_request_that_names_its_version_never_moves(qwen: Path, versions: list[Path]) -> None:
    engine = Harness(qwen, max_pin_s=0.1)
    named = engine.generate(prompt(1, 5), version=0, max_tokens=30)
    free = engine.generate(prompt(1, 5), max_tokens=30)
    engine.step(3)
    engine.load(1, versions[1])
    engine.step(2)
    engine.now = 100.0
    engine.run()

    assert versions_of(engine, named) == [(0, 0, 30)]
    assert [version for version, _, _ in versions_of(engine, free)] == [0, 1]


def test_a_conversation_stays_on_its_version_for_a_bounded_time(qwen: Path, versions: list[Path]) -> None:
    engine = Harness(qwen, stick_s=2.0)
    ids = prompt(1, 40)
    engine.generate(ids, cache_key="s")
    engine.run()
    engine.load(1, versions[1])
    engine.step(2)

    engine.now = 1.9
    stays, other = engine.generate(ids, cache_key="s"), engine.generate(ids, cache_key="t")
    engine.run()
    engine.now = 2.0
    goes = engine.generate(ids, cache_key="s")
    engine.run()

    assert (engine.sampled[stays][0][5], engine.ended[stays].num_cached) == (0, 39)
    assert engine.sampled[other][0][5] == 1
    assert (engine.sampled[goes][0][5], engine.ended[goes].num_cached) == (1, 0)
    assert engine.ended[goes].num_version_prefill == 39


def test_an_unused_old_version_goes_after_its_time_and_its_keys_with_it(
    qwen: Path, versions: list[Path]
) -> None:
    engine = Harness(qwen, stick_s=2.0)
    engine.generate(prompt(1, 40), cache_key="s")
    engine.run()
    engine.load(1, versions[1])
    engine.step(2)

    assert engine.live() == [0, 1]
    assert engine.scheduler.deadline() == 2.0
    engine.now = 2.0
    engine.step()

    assert engine.live() == [1]
    assert engine.scheduler.deadline() is None
    assert len(engine.scheduler.conversations) == 0


def test_a_version_in_use_stays_until_its_last_request_ends(qwen: Path, versions: list[Path]) -> None:
    engine = Harness(qwen, stick_s=0, max_pin_s=1e9)
    job = engine.generate(prompt(1, 5), max_tokens=10)
    engine.step()
    engine.load(1, versions[1])
    engine.step(2)
    assert engine.live() == [0, 1]

    engine.run()

    assert versions_of(engine, job) == [(0, 0, 10)]
    assert engine.live() == [1]


def test_a_newer_candidate_replaces_the_one_that_waits_for_a_place(qwen: Path, versions: list[Path]) -> None:
    engine = Harness(qwen, max_resident_versions=2, max_pin_s=1e9, stick_s=0)
    old = engine.generate(prompt(1, 5), max_tokens=30)
    engine.step()
    first = engine.load(1, versions[1])
    engine.step(2)
    second, third = engine.load(2, versions[2]), engine.load(3, versions[3])
    engine.step(5)

    assert first in engine.done
    assert isinstance(engine.failed[second], VersionGone)
    assert third not in engine.done
    assert engine.live() == [0, 1]
    engine.run()
    assert third in engine.done
    assert versions_of(engine, old) == [(0, 0, 30)]
    assert engine.live() == [3]


def test_a_waiting_candidate_gets_the_place_of_an_idle_version_at_once(
    qwen: Path, versions: list[Path]
) -> None:
    engine = Harness(qwen, max_resident_versions=2, stick_s=1000.0, max_pin_s=2000.0)
    engine.load(1, versions[1])
    engine.step(2)
    call = engine.load(2, versions[2])
    engine.step(2)

    assert call in engine.done
    assert engine.live() == [1, 2]


def test_with_one_place_the_requests_move_at_once(qwen: Path, versions: list[Path]) -> None:
    engine = Harness(qwen, max_resident_versions=1, max_pin_s=1e9)
    job = engine.generate(prompt(1, 20), max_tokens=20)
    engine.step(5)
    for number in (1, 2):
        engine.load(number, versions[number])
        engine.step(5)
        assert engine.live() == [number]
    engine.run()

    assert [version for version, _, _ in versions_of(engine, job)] == [0, 1, 2]
    assert worst_gap(engine, versions, {job: prompt(1, 20)}) < 1e-4


def test_a_held_version_answers_by_number_until_it_is_dropped(qwen: Path, versions: list[Path]) -> None:
    engine = Harness(qwen, stick_s=0)
    engine.load(1, versions[1], serve=False)
    engine.step(2)
    engine.now = 1000.0
    by_number, free = engine.generate(prompt(1, 5), version=1), engine.generate(prompt(1, 5))
    engine.run()
    assert (engine.sampled[by_number][0][5], engine.sampled[free][0][5]) == (1, 0)

    running = engine.generate(prompt(1, 5), version=1, max_tokens=20)
    engine.step(2)
    assert engine.drop(1) in engine.done or engine.step()
    refused = engine.generate(prompt(1, 5), version=1)
    engine.run()

    assert isinstance(engine.failed[refused], VersionGone)
    assert versions_of(engine, running) == [(1, 0, 20)]
    assert engine.live() == [0]


def test_a_held_version_stays_held_while_and_after_it_is_served(qwen: Path, versions: list[Path]) -> None:
    engine = Harness(qwen, stick_s=0)
    engine.load(0, qwen, serve=False)
    engine.load(1, versions[1])
    engine.step(2)
    engine.load(0, qwen)
    engine.step(2)
    engine.load(2, versions[2])
    engine.step(2)
    assert engine.live() == [0, 2]

    engine.drop(0)
    engine.step()
    assert engine.live() == [2]


def test_dropping_the_serving_version_ends_only_its_holding(qwen: Path, versions: list[Path]) -> None:
    engine = Harness(qwen, stick_s=0)
    engine.load(0, qwen, serve=False)
    engine.step()
    first, second = engine.drop(0), engine.drop(0)
    job = engine.generate(prompt(1, 5))
    engine.run()

    assert first in engine.done
    assert isinstance(engine.failed[second], EngineError)
    assert versions_of(engine, job) == [(0, 0, 8)]
    engine.load(1, versions[1])
    engine.step(2)
    assert engine.live() == [1]


def test_serving_a_live_version_again_is_a_rollback_without_a_load(qwen: Path, versions: list[Path]) -> None:
    engine = Harness(qwen, stick_s=10.0)
    engine.load(1, versions[1])
    engine.step(2)
    call = engine.load(0, Path("not read"))
    engine.step()
    job = engine.generate(prompt(1, 5))
    engine.run()

    assert call in engine.done
    assert versions_of(engine, job) == [(0, 0, 8)]


def test_the_serving_version_cannot_be_dropped(qwen: Path) -> None:
    engine = Harness(qwen)
    call = engine.drop(0)
    engine.step()

    assert isinstance(engine.failed[call], EngineError)
    assert engine.live() == [0]


def test_holding_more_than_there_are_places_for_is_refused(qwen: Path, versions: list[Path]) -> None:
    engine = Harness(qwen, max_resident_versions=2, stick_s=0)
    fine, too_many = engine.load(1, versions[1], serve=False), engine.load(2, versions[2], serve=False)
    engine.step(2)

    assert fine in engine.done
    assert "max_resident_versions is 2" in str(engine.failed[too_many])

    # With one place left for the serving line, the line goes on: requests move as soon as a version comes.
    job = engine.generate(prompt(1, 5), max_tokens=20)
    engine.step(3)
    engine.load(3, versions[3])
    engine.step(3)
    assert engine.live() == [1, 3]
    engine.run()
    assert [version for version, _, _ in versions_of(engine, job)] == [0, 3]


def test_a_score_that_is_moved_begins_again_and_comes_from_one_version(
    qwen: Path, versions: list[Path]
) -> None:
    engine = Harness(qwen, prefill_chunk=16, max_pin_s=0.5)
    ids = prompt(1, 100)
    job = engine.score(ids, 1)
    engine.step(3)
    engine.load(1, versions[1])
    engine.step()
    engine.now = 1.0
    engine.run()

    assert engine.scores[job].version == 1
    assert engine.scores[job].logprobs == pytest.approx(rescored(versions[1], ids[:1], ids[1:]), abs=1e-4)


def test_a_queued_request_keeps_the_version_that_it_names(qwen: Path, versions: list[Path]) -> None:
    engine = Harness(qwen, max_running=1, stick_s=0)
    engine.generate(prompt(1, 5), max_tokens=10)
    engine.step()
    queued = engine.generate(prompt(2, 5), version=0)
    waiting = engine.generate(prompt(3, 5))
    engine.load(1, versions[1])
    engine.step(3)
    engine.now = 1000.0
    engine.run()

    assert versions_of(engine, queued) == [(0, 0, 8)]
    assert versions_of(engine, waiting) == [(1, 0, 8)]
    assert engine.live() == [1]


def test_rows_of_a_version_that_goes_serve_the_next_one(qwen: Path, versions: list[Path]) -> None:
    engine = Harness(qwen, stick_s=0, max_resident_versions=2)
    jobs = {}
    storages = set()
    for number in range(1, 7):
        ids = prompt(number, 30)
        job = engine.generate(ids)
        jobs[job] = ids
        engine.run()
        storages.add(engine.scheduler.versions[number - 1].rows.storage.data_ptr())
        engine.load(number, versions[number])
        engine.step(2)

    assert len(storages) <= 2
    assert worst_gap(engine, versions, jobs) < 1e-4
