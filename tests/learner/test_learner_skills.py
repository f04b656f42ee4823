"""Skills in the learner: what its guards doubt stands behind no skill that a teacher is shown."""

from pathlib import Path

import pytest
from learner_run import Run, reading_skills, write_base

from skills.bank import SkillBank, Source
from skills.library import SKILLS_FOLDER, Draft, Origin, SkillLibrary
from skills.request import Request

SKILL = {"name": "skill", "position": "tail"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("model") / "base")


def written_from(run: Run, turn_id: str) -> None:
    """A skill as the loop of skills writes it."""
    turn = run.turn("do it", "abc", turn_id=turn_id, session="told")
    run.record(turn, reward=-1.0)
    draft = Draft(name="say-xyz", description="To do it.", body="Say xyz.")
    root = run.path / SKILLS_FOLDER
    SkillLibrary(root).learn(draft, Origin(turn_ids=(turn_id,), version=0, score=-1.0))
    made = Source(
        session="told",
        task_key="do it",
        request=Request.of(turn),
        turn_ids=(turn_id,),
        reward=-1.0,
        draft=draft.body,
    )
    with SkillBank(root) as bank:
        bank.close_episode("default", made, last_seq=1, outcome="written", name="say-xyz", is_new=True)


@pytest.mark.parametrize("num_against", [0, 2])
def test_a_skill_of_a_turn_that_other_sessions_contradict_is_shown_to_no_teacher(
    tmp_path: Path, base: Path, num_against: int
) -> None:
    run = Run(tmp_path / "run", base, context=SKILL, batch__turns_per_step=1)
    written_from(run, "told")
    for number in range(num_against):
        run.record(run.turn("do it", "abc", session=f"well{number}"), reward=1.0)
    run.record(run.turn("do it", "something else", turn_id="later"), reward=-1.0)
    with reading_skills(run) as (learner, loop):
        for _ in range(10):
            loop.once()

        fate = learner.log.fate("later")
    assert fate == ("rejected:no context" if num_against else "trained")
