"""Active skills as lessons: what a version is asked for, and in which situation."""

import asyncio
from pathlib import Path

from skills_episodes import WORKED, record, recovered

from agentrl.config import Config, write_config
from server.lessons_pages import lessons_of
from server.skills_loop import skill_loop
from skills.library import SKILLS_FOLDER, SkillLibrary
from skills.skill_file import SkillState
from skills.source import BankSource


def test_a_skill_is_asked_for_in_the_situation_of_its_first_turn(tmp_path: Path) -> None:
    config = Config(run_dir=str(tmp_path))
    write_config(config, tmp_path / "config.json")
    episode = recovered()
    asyncio.run(record(tmp_path, episode))
    asyncio.run(skill_loop(tmp_path, config).once())
    probe = {
        "turn_id": "s1-default-0",
        "held_out": False,
        "names": ["zorp"],
    }

    with BankSource(tmp_path, policy="default", settings=config.skills) as source:
        source.begin()
        assert source.lessons() == [], "no scope was taught yet"
        source.skills(episode.steps[0].turn)
        [lesson] = source.lessons()
        assert (lesson.id, lesson.text, lesson.probe) == ("skill:use-zorp", WORKED, probe)

        SkillLibrary(tmp_path / SKILLS_FOLDER).change("use-zorp", SkillState.RETIRED)
        assert source.lessons() == []

    [listed] = [found for found in lessons_of(tmp_path, "default") if found.origin == "skill"]
    assert (listed.state.value, listed.turn_ids, listed.probe) == (
        "retired",
        ("s1-default-0", "s1-default-1"),
        probe,
    )
