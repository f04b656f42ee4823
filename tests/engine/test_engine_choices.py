"""Several choices of one request: the prompt is read once, and what is asked behind the users' back is not kept."""

from pathlib import Path

import pytest
from engine_harness import Harness
from engine_models import greedy, prompt, rescored

from agentrl.engine.base import Priority


def read(engine: Harness) -> list[int]:
    """Ids that prefilling requests computed, by step."""
    computed: list[int] = []
    shares = engine.scheduler._shares

    def counted() -> dict[int, int]:
        found = shares()
        computed.append(sum(found.values()))
        return found

    engine.scheduler._shares = counted  # type: ignore[method-assign]
    return computed


@pytest.mark.parametrize("chunk", [16, 256])
def test_the_prompt_of_several_choices_is_computed_once(qwen: Path, chunk: int) -> None:
    engine = Harness(qwen, prefill_chunk=chunk)
    computed = read(engine)
    ids = prompt(1, 60)
    jobs = [engine.generate(ids, cache_key="s", max_tokens=12) for _ in range(4)]
    engine.run()

    # 60 ids, and of each other choice the one that gives its first logits.
    assert sum(computed) == 60 + 3
    assert [engine.ended[job].num_cached for job in jobs] == [0, 59, 59, 59]
    for job in jobs:
        assert engine.raw(job) == pytest.approx(rescored(qwen, ids, engine.ids(job)), abs=1e-4)
    assert len({tuple(engine.ids(job)) for job in jobs}) == 4


def test_choices_without_a_key_or_of_different_prompts_wait_for_nobody(qwen: Path) -> None:
    engine = Harness(qwen, prefill_chunk=256)
    computed = read(engine)
    ids, other = prompt(1, 40), prompt(2, 40)
    for key, given in (("", ids), ("", ids), ("s", ids), ("s", other), ("t", ids)):
        engine.generate(given, cache_key=key, temperature=0.0)
    engine.run()

    assert computed[0] == 200
    assert len({tuple(engine.ids(job)) for job in (1, 2, 3, 5)}) == 1
    assert engine.ids(1) == greedy(qwen, ids, 8)


def test_where_the_one_that_reads_is_aborted_the_next_one_reads(qwen: Path) -> None:
    engine = Harness(qwen, prefill_chunk=16)
    ids = prompt(1, 60)
    first, second, third = (engine.generate(ids, cache_key="s", temperature=0.0) for _ in range(3))
    engine.step(2)
    assert engine.rows() == 1
    engine.abort(first)
    engine.run()

    assert engine.ids(first) == []
    assert engine.ids(second) == engine.ids(third) == greedy(qwen, ids, 8)
    assert [engine.ended[job].num_cached for job in (second, third)] == [32, 59]


def test_a_request_of_the_same_conversation_takes_over_what_one_that_still_runs_has_read(qwen: Path) -> None:
    engine = Harness(qwen)
    ids = prompt(1, 50)
    running = engine.generate(ids, cache_key="s", max_tokens=100)
    engine.step(3)
    longer = [*ids, *prompt(3, 20)]
    branch = engine.generate(longer, cache_key="s")
    engine.run()

    assert engine.ended[branch].num_cached >= 50
    assert engine.raw(branch) == pytest.approx(rescored(qwen, longer, engine.ids(branch)), abs=1e-4)
    assert engine.raw(running) == pytest.approx(rescored(qwen, ids, engine.ids(running)), abs=1e-4)


def test_nothing_is_taken_over_from_another_version(qwen: Path, versions: list[Path]) -> None:
    engine = Harness(qwen, stick_s=0, max_pin_s=1e9)
    ids = prompt(1, 50)
    engine.generate(ids, cache_key="s", max_tokens=200)
    engine.step(3)
    engine.load(1, versions[1])
    engine.step(2)
    new = engine.generate(ids, cache_key="s")
    engine.step(20)

    assert engine.sampled[new][0][5] == 1
    assert engine.ended[new].num_cached == 0
    assert engine.raw(new) == pytest.approx(rescored(versions[1], ids, engine.ids(new)), abs=1e-4)


@pytest.mark.parametrize(
    ("priority", "kept"),
    [(Priority.USER, 1), (Priority.TEACHER, 1), (Priority.JUDGE, 0), (Priority.PROBE, 0)],
)
def test_what_is_asked_behind_the_users_is_asked_once_and_not_kept(
    qwen: Path, priority: Priority, kept: int
) -> None:
    engine = Harness(qwen)
    engine.generate(prompt(1, 40), cache_key="s", priority=priority)
    engine.run()

    assert len(engine.scheduler.conversations.entries) == kept


@pytest.mark.parametrize("version", [None, 1])
def test_nobody_waits_for_a_prompt_that_is_read_on_another_version(
    qwen: Path, versions: list[Path], version: int | None
) -> None:
    engine = Harness(qwen, prefill_chunk=8, stick_s=0, max_pin_s=1e9)
    ids = prompt(1, 100)
    old = engine.generate(ids, cache_key="s", temperature=0.0)
    engine.step(1)
    engine.load(1, versions[1])
    engine.step(1)
    new = engine.generate(ids, cache_key="s", temperature=0.0, version=version)
    named = engine.generate(ids, cache_key="s", temperature=0.0, version=0)
    engine.step(1)

    assert [len(resident.line) for resident in engine.scheduler.versions] == [1, 1]
    engine.run()
    assert engine.ids(old) == engine.ids(named) == greedy(qwen, ids, 8)
    assert engine.ids(new) == greedy(versions[1], ids, 8)
    assert [engine.ended[job].num_cached for job in (old, new, named)] == [0, 0, 99]


def test_nobody_waits_for_a_prompt_that_a_less_urgent_request_reads(qwen: Path) -> None:
    engine = Harness(qwen, prefill_chunk=8)
    ids = prompt(1, 100)
    engine.generate(ids, cache_key="s", priority=Priority.JUDGE)
    engine.step(1)
    engine.generate(ids, cache_key="s")
    engine.step(1)

    assert engine.rows() == 2


def test_what_a_choice_takes_over_was_not_computed_again_because_of_a_version(
    qwen: Path, versions: list[Path]
) -> None:
    engine = Harness(qwen, stick_s=0)
    ids = prompt(1, 60)
    engine.generate(ids, cache_key="s")
    engine.run()
    engine.load(1, versions[1])
    engine.step(2)
    longer = [*ids, *prompt(2, 10)]
    jobs = [engine.generate(longer, cache_key="s") for _ in range(3)]
    engine.run()

    assert [engine.ended[job].num_version_prefill for job in jobs] == [60, 0, 0]
    assert engine.version_prefill_tokens == 60
