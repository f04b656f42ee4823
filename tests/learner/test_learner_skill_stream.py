"""On a live stream, where no environment gives rewards, skills are chosen and retired by what users and judges say."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from learner_run import NOW, Learner, Run, reading_skills, write_base

from agentrl.config import SkillsConfig
from agentrl.store.episodes import Episode
from agentrl.store.signal_log import SignalLog
from agentrl.types import Arm, End, MatchedBy, NextState, Signal, SignalSource, Turn
from skills.bank import SkillBank
from skills.library import SKILLS_FOLDER, Draft, SkillLibrary
from skills.loop import SkillLoop
from skills.skill_file import SkillState
from skills.source import BankSource

TASK = "make the report"


class Named:
    """Writes of the sessions `good` and `bad` a skill of that name, of others none."""

    name = "named"

    async def summarise(self, found: Episode) -> Draft | None:
        if found.session not in ("good", "bad"):
            return None
        return Draft(name=found.session, description="d", body=f"Say {found.session}.", is_quoted=True)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("stream") / "base")


@pytest.fixture
def run(tmp_path: Path, base: Path) -> Run:
    """A live run of Skill-SD with the skills `good` and `bad` of one task."""
    run = Run(
        tmp_path / "run",
        base,
        recipe="skill_sd",
        rollout="stream",
        advantage="raw",
        batch__turns_per_step=1,
        limits__max_logprob_gap=1e9,
        limits__max_version_lag=50,
    )
    for session in ("good", "bad"):
        close(run, session)
    write(run)
    return run


def close(run: Run, session: str) -> None:
    """A conversation that ended without a reward."""
    turn = run.turn(TASK, "abc", session=session, logprobs=(-5.0,) * 4, received_at=NOW)

    async def put() -> None:
        async with await SignalLog.open(run.path) as log:
            await log.record_turn(turn, history_key=f"h-{turn.id}", reply_key=f"r-{turn.id}")
            await log.record_next_state(
                NextState(turn_id=turn.id, end=End.CLOSED, matched_by=MatchedBy.NONE, received_at=NOW)
            )
            await log.mark_judged(turn.id, "abstained")

    asyncio.run(put())


def write(run: Run) -> None:
    """What the server's loop of skills does with the conversations that have ended."""
    settings = SkillsConfig(max_per_task=1)
    loop = SkillLoop(run.path, policy="default", settings=settings, summariser=Named())
    while asyncio.run(loop.once()):
        pass


def live(run: Run, number: int) -> Turn:
    """One more user asks for the same; no two replies are the same."""
    reply = f"reply {number}"
    turn = run.turn(
        TASK, reply, turn_id=f"live{number}", session=f"s{number}", logprobs=(-5.0,) * (len(reply) + 1)
    )
    run.record(turn)
    return turn


def taught_with(run: Run, turn: Turn) -> str | None:
    with SkillBank(run.path / SKILLS_FOLDER) as bank:
        sql = "SELECT s.name FROM uses u JOIN selections s ON s.id = u.selection WHERE u.turn_id = ?"
        return bank.scalar(sql, (turn.id,))


@contextmanager
def learning(run: Run) -> Iterator[tuple[Learner, Callable[[], None]]]:
    """A learner whose teacher reads skills, and what lets it work until there is nothing to do."""
    with reading_skills(run) as (learner, loop):

        def work() -> None:
            loop._refreshed = -1e9  # the log is asked once a second
            while loop.once():
                pass

        yield learner, work


def test_the_skill_that_users_are_content_with_is_chosen_more_often_and_the_other_one_retires(
    run: Run,
) -> None:
    shown: Counter[str | None] = Counter()
    with learning(run) as (learner, work):
        work()
        for number in range(12):
            turn = live(run, number)
            work()
            assert learner.log.fate(turn.id) == "trained"
            name = taught_with(run, turn)
            shown[name] += 1
            run.reward(turn.id, 1.0 if name == "good" else -1.0)

    assert shown.keys() == {"good", "bad"}
    assert shown["good"] >= 10
    library = SkillLibrary(run.path / SKILLS_FOLDER)
    assert {skill.name for skill in library.all(SkillState.ACTIVE)} == {"good", "bad"}
    close(run, "another")
    write(run)
    assert {skill.name for skill in library.all(SkillState.ACTIVE)} == {"good"}
    assert {skill.name for skill in library.all(SkillState.RETIRED)} == {"bad"}


# what an episode's reward is


def mean(run: Run, source: BankSource, turn: Turn) -> float | None:
    """Of the skill that the turn's task has, once the next iteration has looked at the log."""
    source.begin()
    source.skills(replace(turn, id="asks", session="asks"))
    name = taught_with(run, turn)
    assert name is not None
    with SkillBank(run.path / SKILLS_FOLDER) as bank:
        return bank.arms("default", TASK, [name])[0].mean_reward


def say(run: Run, turn: Turn, source: SignalSource, **said: object) -> None:
    asyncio.run(run._log([], [Signal(turn_id=turn.id, source=source, created_at=NOW, **said)]))


def test_the_environments_word_counts_before_all_others_and_of_those_the_last_that_is_believed(
    run: Run,
) -> None:
    first, second = live(run, 1), live(run, 2)
    second = replace(second, id="more", session="s1", reply=replace(second.reply, text="more"))
    run.record(second)
    doubted: set[str] = set()
    unheard: set[SignalSource] = set()
    with BankSource(run.path, policy="default", settings=SkillsConfig()) as source:
        source.heed(
            doubted.__contains__, lambda turn, said: [one for one in said if one.source not in unheard]
        )
        source.begin()
        assert source.skills(first)
        assert mean(run, source, first) is None
        say(run, first, SignalSource.RULE, hint="not like this")
        assert mean(run, source, first) == -1.0
        say(run, second, SignalSource.USER, reward=0.4)
        assert mean(run, source, first) == 1.0
        doubted.add(second.id)
        assert mean(run, source, first) == -1.0
        unheard.add(SignalSource.RULE)
        assert mean(run, source, first) is None
        doubted.clear()
        assert mean(run, source, first) == 1.0
        say(run, first, SignalSource.ENVIRONMENT, reward=0.25)
        assert mean(run, source, first) == 0.25


def test_what_a_lesson_stood_before_and_what_others_may_not_learn_from_says_nothing_of_a_skill(
    run: Run,
) -> None:
    first = live(run, 1)
    for name, changes in {"shown": {"block_spans": ((0, 1),)}, "control": {"arm": Arm.CONTROL}}.items():
        other = replace(run.turn(TASK, name, turn_id=name, session=first.session), **changes)
        run.record(other)
        run.reward(name, -1.0)
    with BankSource(run.path, policy="default", settings=SkillsConfig()) as source:
        source.begin()
        assert source.skills(first)
        assert mean(run, source, first) is None


def test_the_episodes_that_a_skill_was_written_from_are_rewarded_by_their_users_too(run: Run) -> None:
    with SkillBank(run.path / SKILLS_FOLDER, mean_of="source") as bank:
        assert [arm.mean_reward for arm in bank.arms("default", TASK, ["good", "bad"])] == [None, None]
        good = bank.scalar("SELECT turn_ids FROM sources WHERE name = 'good'")
    run.reward(good.strip('[]"'), 1.0)
    with BankSource(run.path, policy="default", settings=SkillsConfig(mean_of="source")) as source:
        source.begin()
        source.skills(live(run, 1))
    with SkillBank(run.path / SKILLS_FOLDER, mean_of="source") as bank:
        assert [arm.mean_reward for arm in bank.arms("default", TASK, ["good", "bad"])] == [1.0, None]
