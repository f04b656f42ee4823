"""Settings of skills that a user writes reach the learner's choice among them."""

from contextlib import ExitStack
from pathlib import Path

import pytest
from skills_episodes import episode, record, recovered

from agentrl.config import load_config, write_config
from agentrl.types import Turn
from server.learner_main import source_of
from skills.library import Draft
from skills.loop import SkillLoop
from skills.source import BankSource


class Named:
    """Writes one skill an episode, by the episode's session."""

    name = "named"

    async def summarise(self, found: object) -> Draft:
        session: str = found.session  # type: ignore[attr-defined]
        return Draft(name=session, description="d", body=f"Run `{session}`.", is_quoted=True)


async def write(run_dir: Path, setting: str) -> None:
    """Writes the run's settings, and skills from what its log holds."""
    config = load_config(overrides=[setting, "learn.recipe=skill_sd"])
    write_config(config, run_dir / "config.json")
    loop = SkillLoop(run_dir, policy=config.policy, settings=config.skills, summariser=Named())
    while await loop.once():
        pass


def shown(skills: BankSource, turn: Turn) -> list[str]:
    skills.begin()
    return [skill.name for skill in skills.skills(turn)]


@pytest.mark.parametrize(
    ("value", "names"),
    [("0.0", ["a"] * 6), ("1000000.0", ["a", "b"] * 3)],
)
async def test_the_larger_skills_exploration_is_the_more_evenly_skills_are_shown(
    value: str, names: list[str], tmp_path: Path
) -> None:
    await record(tmp_path, recovered(session="a"), recovered(session="b"))
    await write(tmp_path, f"skills.exploration={value}")
    with ExitStack() as stack:
        skills = source_of(tmp_path, stack)
        assert skills is not None
        found = []
        for number in range(8):
            session = f"run~g{number}~0"
            [name] = shown(skills, recovered(session=session).steps[0].turn)
            await record(tmp_path, recovered(session=session, reward=1.0 if name == "a" else 0.0))
            found.append(name)

    # each comes once before any comes twice
    assert sorted(found[:2]) == ["a", "b"]
    assert sorted(found[2:]) == sorted(names)


@pytest.mark.parametrize(("value", "names"), [("0.5", ["a"]), ("0.95", [])])
async def test_a_skill_is_found_for_a_new_task_where_it_is_as_like_as_skills_min_likeness_says(
    value: str, names: list[str], tmp_path: Path
) -> None:
    await record(tmp_path, recovered("notes.txt", session="a", task="old"))
    await write(tmp_path, f"skills.min_likeness={value}")
    far = episode("Show the whole file plan.md", ("$ cat plan.md", None), session="s5", task="far").steps[0]
    with ExitStack() as stack:
        skills = source_of(tmp_path, stack)
        assert skills is not None
        assert shown(skills, far.turn) == names
