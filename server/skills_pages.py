"""What the commands say of a run's skills and do with them; they work beside a running server and without one."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

from server.run_files import existing_run, settings_of
from server.scopes import require_key
from server.typed import command
from skills.bank import BANK_NAME, SkillBank
from skills.figures import figures, num_left_out, of_turn, outcomes, taught_turns
from skills.library import SKILLS_FOLDER, SkillLibrary
from skills.marks import suspicion
from skills.skill_file import SkillFile, SkillState


def listed(run_dir: Path, scope: str) -> dict[str, Any]:
    """The skills of a scope with their statistics, files that cannot be read, and what came of the episodes."""
    library = library_of(run_dir, scope)
    with closing(SkillBank(root_of(run_dir))) as bank:
        rows = [row(skill) | figures(bank, scope, skill.name) for skill in library.all()]
        return {
            "skills": rows,
            "unreadable": library.faults,
            "episodes": outcomes(bank),
            "lines_left_out": num_left_out(bank),
        }


def shown(run_dir: Path, scope: str, name: str) -> dict[str, Any]:
    """One skill whole. Raises SkillError where there is none."""
    library = library_of(run_dir, scope)
    skill = library.get(name)
    with closing(SkillBank(root_of(run_dir))) as bank:
        return (
            row(skill)
            | {
                "edited_by_hand": skill.is_edited,
                "turns": list(skill.turn_ids),
                "file": str(library.path / name),
                "text": skill.body,
            }
            | figures(bank, scope, name)
        )


def export(run_dir: Path, scope: str, folder: Path, names: list[str]) -> str:
    library = library_of(run_dir, scope)
    paths = library.give(folder, names)
    said = [f"{len(paths)} skills in {folder}: {', '.join(path.name for path in paths) or 'none is active'}"]
    left_out = {} if names else library.faults
    return "\n".join((*said, *(f"  {name} was left out: {why}" for name, why in left_out.items())))


def take(run_dir: Path, scope: str, folder: Path) -> str:
    """Copies skills in, those that read like an attack as proposed ones. Raises SkillError; UserError where no API key
    has such a scope."""
    config = settings_of(run_dir)
    require_key(config, scope)
    state = SkillState.PROPOSED if config.reviews_skills else SkillState.ACTIVE
    library = library_of(run_dir, scope)
    names = library.take(folder, state=state)
    said = [f"imported: {', '.join(names)}"]
    for name in names:
        mark = suspicion(library.get(name))
        if mark is not None:
            look, approve = (command(f"skills {what} {name}", run_dir, scope) for what in ("show", "approve"))
            said.append(
                f"  {name} is marked as suspicious: {mark}; it is only proposed: {look}, then {approve}"
            )
    return "\n".join(said)


def change(run_dir: Path, scope: str, name: str, state: str) -> str:
    skill = library_of(run_dir, scope).change(name, SkillState(state))
    said = f"skill {skill.name} is {skill.state}"
    mark = suspicion(skill) if skill.state is SkillState.ACTIVE else None
    if mark is None:
        return said
    back = command(f"skills retire {name}", run_dir, scope)
    return f"{said}\n  it is marked as suspicious: {mark}; {back} takes it back"


def skills_of_turn(run_dir: Path, turn_id: str) -> dict[str, Any]:
    """The skills that a turn was taught with, text included, and those that were written from its episode."""
    if not (root_of(run_dir) / BANK_NAME).is_file():
        return {"taught_with": [], "written_from": []}
    with closing(SkillBank(root_of(run_dir))) as bank:
        return of_turn(bank, turn_id)


def turns_taught(run_dir: Path, scope: str, name: str) -> list[str]:
    """The turns that a skill was chosen for as the teacher's context."""
    if not (root_of(run_dir) / BANK_NAME).is_file():
        return []
    with closing(SkillBank(root_of(run_dir))) as bank:
        return taught_turns(bank, scope, name)


def row(skill: SkillFile) -> dict[str, Any]:
    return {
        "name": skill.name,
        "state": skill.state.value,
        "description": skill.description,
        "revision": skill.revision,
        "version": skill.version,
        "score": skill.score,
        "suspicious": suspicion(skill),
    }


def library_of(run_dir: Path, scope: str) -> SkillLibrary:
    return SkillLibrary(root_of(run_dir), scope)


def root_of(run_dir: Path) -> Path:
    return existing_run(run_dir) / SKILLS_FOLDER
