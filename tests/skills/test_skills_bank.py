import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.errors import StoreError
from skills.bank import SkillBank, Source
from skills.figures import of_turn
from skills.request import Request
from skills.ucb import Arm, choose, ucb1


def arm(name: str, num: int, mean: float | None) -> Arm:
    return Arm(name=name, num_selected=num, mean_reward=mean)


def source(session: str, task: str = "t", reward: float | None = 1.0) -> Source:
    return Source(
        session=session,
        task_key=task,
        request=Request.written("Show"),
        turn_ids=(f"{session}-0",),
        reward=reward,
    )


def write(bank: SkillBank, name: str, session: str, *, is_new: bool = True, **values: object) -> None:
    bank.close_episode(
        "default", source(session, **values), last_seq=1, outcome="written", name=name, is_new=is_new
    )


def always(session: str, turns: Sequence[str]) -> bool:
    return True


# the rule


def test_ucb1_scores_are_those_of_the_paper() -> None:
    """I17: n = (3, 1), mean reward = (.6, .4), c = sqrt 2."""
    first, second = ucb1([arm("a", 3, 0.6), arm("b", 1, 0.4)], math.sqrt(2))

    assert first == pytest.approx(1.561, abs=5e-4)
    assert second == pytest.approx(2.065, abs=5e-4)
    assert choose([arm("a", 3, 0.6), arm("b", 1, 0.4)]) == arm("b", 1, 0.4)


def test_without_exploration_the_best_mean_is_chosen_and_no_arm_gives_none() -> None:
    assert choose([arm("a", 3, 0.6), arm("b", 1, 0.4)], 0.0) == arm("a", 3, 0.6)
    assert choose([]) is None


def test_every_arm_comes_once_before_any_comes_twice_and_endless_exploration_goes_round() -> None:
    for exploration in (math.sqrt(2), 1e9):
        counts: Counter[str] = Counter()
        order = []
        for _ in range(12):
            chosen = choose(
                [arm(name, counts[name], 1.0 if name == "b" else 0.0) for name in "abc"], exploration
            )
            assert chosen is not None
            counts[chosen.name] += 1
            order.append(chosen.name)
        assert order[:3] == ["a", "b", "c"]
        if exploration > 100:
            assert set(counts.values()) == {4}
        else:
            assert counts["b"] == max(counts.values()) > 4


def test_an_unknown_reward_is_the_mean_of_the_others_and_not_nought() -> None:
    known, unknown = ucb1([arm("a", 2, 0.5), arm("b", 2, None)])

    assert known == unknown


@given(st.lists(st.tuples(st.integers(1, 50), st.floats(0, 1)), min_size=1, max_size=6))
def test_the_score_falls_with_the_count_and_rises_with_the_mean(values: list[tuple[int, float]]) -> None:
    arms = [arm(str(i), num, mean) for i, (num, mean) in enumerate(values)]
    total = sum(num for num, _ in values)

    for score, (num, mean) in zip(ucb1(arms), values, strict=True):
        assert score == pytest.approx(mean + math.sqrt(2 * math.log(total) / num))


# the bank


def test_a_skill_written_in_an_iteration_is_usable_from_the_next(tmp_path: Path) -> None:
    with SkillBank(tmp_path) as bank:
        bank.begin_iteration()
        write(bank, "a", "s1")
        assert bank.names_of("default", "t") == ["a"]
        assert not bank.is_usable("default", "a", always)
        bank.begin_iteration()
        assert bank.is_usable("default", "a", always)
        write(bank, "a", "s2", is_new=False)
        assert bank.is_usable("default", "a", always)
        write(bank, "a", "s3")  # a new text
        assert not bank.is_usable("default", "a", always)


def test_a_skill_teaches_no_episode_that_alone_it_was_written_from(tmp_path: Path) -> None:
    with SkillBank(tmp_path) as bank:
        write(bank, "a", "s1")
        bank.begin_iteration()
        assert not bank.is_usable("default", "a", lambda session, turns: session != "s1")
        assert bank.is_usable("default", "put-in-by-hand", lambda session, turns: False)
        write(bank, "a", "s2", is_new=False)
        assert bank.is_usable("default", "a", lambda session, turns: session != "s1")


def test_a_task_keeps_its_skill_for_an_iteration(tmp_path: Path) -> None:
    with SkillBank(tmp_path) as bank, SkillBank(tmp_path) as other:
        bank.begin_iteration()
        first = bank.select("default", "t", "a", digest="d", body="text")
        assert other.select("default", "t", "b", digest="e", body="other") == first
        bank.begin_iteration()
        assert bank.selected("default", "t") is None
        second = bank.select("default", "t", "b", digest="e", body="other")
        assert (first.name, second.name) == ("a", "b")
        assert [each.num_selected for each in bank.arms("default", "t", ["a", "b", "c"])] == [1, 1, 0]


def test_the_mean_is_of_the_episodes_taught_or_of_those_written_from(tmp_path: Path) -> None:
    with SkillBank(tmp_path) as groups, SkillBank(tmp_path, mean_of="source") as sources:
        write(groups, "a", "s1", reward=1.0)
        write(groups, "a", "s2", reward=0.5, is_new=False)
        groups.begin_iteration()
        assert groups.arms("default", "t", ["a"])[0].mean_reward is None
        selection = groups.select("default", "t", "a", digest="d", body="text")
        for session, turn, reward in (("s3", "x", 1.0), ("s3", "y", 1.0), ("s4", "z", 0.0)):
            groups.teach(selection, turn, session, reward)

        assert groups.arms("default", "t", ["a"])[0].mean_reward == 0.5  # of two episodes, not of three turns
        assert sources.arms("default", "t", ["a"])[0].mean_reward == 0.75


def test_a_reward_that_comes_late_counts(tmp_path: Path) -> None:
    with SkillBank(tmp_path) as bank:
        bank.begin_iteration()
        selection = bank.select("default", "t", "a", digest="d", body="text")
        bank.teach(selection, "x", "s3", None)
        assert bank.arms("default", "t", ["a"])[0].mean_reward is None
        bank.settle("default", "t", {"s3": 0.25}.get)
        assert bank.arms("default", "t", ["a"])[0].mean_reward == 0.25


def test_banks_and_statistics_cross_neither_tasks_nor_scopes(tmp_path: Path) -> None:
    with SkillBank(tmp_path) as bank:
        write(bank, "a", "s1")
        bank.begin_iteration()
        bank.teach(bank.select("default", "t", "a", digest="d", body="x"), "turn", "s3", 1.0)

        assert bank.names_of("other", "t") == bank.names_of("default", "u") == []
        assert bank.arms("other", "t", ["a"]) == bank.arms("default", "u", ["a"]) == [arm("a", 0, None)]
        assert bank.requests("other") == {}


def test_a_crowded_bank_loses_the_lowest_mean_and_never_one_without_a_chance(tmp_path: Path) -> None:
    with SkillBank(tmp_path, mean_of="source") as bank:
        for name, reward in (("a", 0.2), ("b", 0.9), ("c", None), ("d", 0.5)):
            write(bank, name, f"s-{name}", reward=reward)

        assert bank.crowded("default", "t", 4) == []
        assert bank.crowded("default", "t", 2) == ["a", "d"]
        assert bank.crowded("default", "t", 1) == ["a", "d", "b"]
        bank.drop("default", "t", "a")
        assert bank.names_of("default", "t") == ["b", "c", "d"]


def test_a_dropped_skill_that_another_task_has_is_still_needed(tmp_path: Path) -> None:
    with SkillBank(tmp_path) as bank:
        write(bank, "a", "s1")
        write(bank, "a", "s2", task="u", is_new=False)

        assert bank.is_elsewhere("default", "t", "a")
        bank.drop("default", "t", "a")
        assert not bank.is_elsewhere("default", "u", "a")


def test_a_turn_names_the_text_that_its_teacher_was_shown(tmp_path: Path) -> None:
    with SkillBank(tmp_path) as bank:
        write(bank, "a", "s1")
        bank.begin_iteration()
        bank.teach(bank.select("default", "t", "a", digest="d", body="as it was"), "turn", "s3", 1.0)

        (shown,) = of_turn(bank, "turn")["taught_with"]
        assert (shown["name"], shown["iteration"], shown["body"]) == ("a", 1, "as it was")
        assert [row["name"] for row in of_turn(bank, "s1-0")["written_from"]] == ["a"]
        assert of_turn(bank, "elsewhere") == {"taught_with": [], "written_from": []}


def test_a_bank_that_is_no_database_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "skills.db").write_text("this is not a database at all, but it is long enough to be read")
    with pytest.raises(StoreError):
        SkillBank(tmp_path)
