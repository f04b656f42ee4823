"""What the commands say of a run's lessons and do with them; they work beside a running server and without one.

A lesson is what users see of an accepted hint (learning.db) or of a skill (its SKILL.md, under the name "skill:NAME").
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from agentrl.config import Config
from agentrl.errors import UserError
from agentrl.learner.hints import hint_option
from agentrl.recipes.recipe import load_recipe
from agentrl.signals.evidence import FORMATS, read_evidence
from agentrl.signals.lessons import gather, name_of_skill, of_skill, state_of
from agentrl.signals.standing import standing
from agentrl.signals.transcripts import Taken, lessons_from
from agentrl.store.learning_log import LearningLog
from agentrl.store.lesson_rows import PROBE
from agentrl.store.log_reader import LogReader
from agentrl.text.own_patterns import own_redactor
from agentrl.types import Lesson, LessonState, PolicyVersion, VersionState
from server.agents_md import write_part
from server.guard_pages import SET_ASIDE
from server.lesson_marks import marked
from server.lesson_told import asked_where, in_lines, means, next_step
from server.run_files import settings_of
from server.scopes import of_keys, require_key
from server.skills_pages import library_of, turns_taught
from server.typed import command
from skills.skill_file import FILE_NAME, SkillFile, SkillState
from skills.source import first_turn

EXPORTED_SKILL = "lessons-learned"
HELD_BACK = "the guards set all of its turns aside; `agentrl doctor` says why"
Format = Literal["agents-md", "skill-md", "json"]

_STEP = re.compile(r"^\s*\d+[.)]\s+")

_OF_SKILL = {
    SkillState.PROPOSED: LessonState.PROPOSED,
    SkillState.ACTIVE: LessonState.APPROVED,
    SkillState.RETIRED: LessonState.RETIRED,
}
_FOR_SKILL = {
    LessonState.APPROVED: SkillState.ACTIVE,
    LessonState.REJECTED: SkillState.RETIRED,
    LessonState.RETIRED: SkillState.RETIRED,
}


def listed(run_dir: Path, scope: str, state: str | None = None) -> dict[str, Any]:
    """The lessons of a scope with what they came from and whether the newest version asked holds them, those that most
    turns brought first.

    Raises:
        UserError: nobody has such a scope.
    """
    _require_scope(run_dir, scope)
    wanted = None if state is None else LessonState(state)
    found = [lesson for lesson in lessons_of(run_dir, scope) if wanted in (None, lesson.state)]
    marks, held_back = marked(run_dir, found), held_back_of(run_dir, found)
    rows = [_row(lesson, marks, held_back) for lesson in sorted(found, key=_num_turns, reverse=True)]
    return {"lessons": rows, "approve": settings_of(run_dir).learn.approve}


def shown(run_dir: Path, scope: str, name: str) -> dict[str, Any]:
    """One lesson whole. Raises UserError where there is none."""
    lesson = _find(run_dir, scope, lessons_of(run_dir, scope), name)
    marks, held_back = marked(run_dir, [lesson]), held_back_of(run_dir, [lesson])
    config = settings_of(run_dir)
    policy = config.policy
    with LearningLog(run_dir) as log:
        asked = [
            {
                "version": version.number,
                "held": probe.passed,
                "score": probe.score,
                "held_out": probe.held_out,
                "answer": probe.detail,
            }
            for version in log.versions(policy)
            for probe in log.probes(policy, version.number)
            if probe.name == PROBE + lesson.id
        ]
    return _row(lesson, marks, held_back) | {
        "means": means(lesson, HELD_BACK if lesson.id in held_back else _why_kept(config, lesson)),
        "next": next_step(lesson, run_dir, marks.get(lesson.id)),
        "reason": lesson.reason,
        "source": lesson.source,
        "turns": list(lesson.turn_ids),
        "situation": " ".join(lesson.situation),
        "asked_where": asked_where(lesson),
        "probe": lesson.probe,
        "asked": asked,
    }


def change(
    run_dir: Path, scope: str, names: Sequence[str], state: LessonState, reason: str = ""
) -> dict[str, Any]:
    """Gives lessons a state; all or none of those of hints. Raises UserError where one is not there."""
    known = lessons_of(run_dir, scope)
    found = [_find(run_dir, scope, known, name) for name in names]
    marks = marked(run_dir, found) if state is LessonState.APPROVED else {}
    with LearningLog(run_dir) as log:
        hints = [lesson.id for lesson in found if lesson.origin != "skill"]
        log.decide(hints, state, reason, settings_of(run_dir).policy)
    for lesson in found:
        if lesson.origin == "skill":
            library_of(run_dir, scope).change(name_of_skill(lesson), _FOR_SKILL[state])
    learned = {} if state is LessonState.APPROVED else _learned(run_dir, found)
    of_skills_now = _OF_SKILL[_FOR_SKILL[state]].value
    said = []
    for lesson in found:
        said.append(
            f"{lesson.id} is {of_skills_now if lesson.origin == 'skill' else state.value}: {lesson.text}"
        )
        if lesson.id in marks:
            back = command(f"lessons reject {lesson.id}", run_dir, scope)
            said.append(f"  it is marked as suspicious: {marks[lesson.id]}; {back} takes it back")
        if lesson.id in learned:
            said.append(_stays(learned[lesson.id], run_dir))
    return {"changed": list(names), "state": state.value, "learned": learned, "said": "\n".join(said)}


def _learned(run_dir: Path, lessons: Sequence[Lesson]) -> dict[str, dict[str, Any]]:
    """By lesson the served versions that were trained on it, and the newest version from before them."""
    config = settings_of(run_dir)
    found = {}
    with LearningLog(run_dir) as log:
        for lesson in lessons:
            if lesson.state is LessonState.PROPOSED and config.learn.approve == "review":
                continue  # nothing was taught that nobody had approved
            if lesson.origin == "skill":
                taught, sources = turns_taught(run_dir, lesson.scope, name_of_skill(lesson)), []
            else:
                taught, sources = list(lesson.turn_ids), [lesson.id, *lesson.turn_ids]
            versions = log.learned_from(taught, sources, config.policy)
            if versions:
                target = _restorable(log, config.policy, versions[0])
                undone = [v.number for v in log.versions(config.policy) if v.number > target and _counts(v)]
                found[lesson.id] = {"versions": versions, "rollback": target, "num_undone": len(undone)}
    return found


def _restorable(log: LearningLog, policy: str, number: int) -> int:
    """The newest version before this one whose files are still there; the model itself always is."""
    version = log.version(policy, number)
    while version is not None and version.parent is not None:
        version = log.version(policy, version.parent)
        if version is not None and version.path:
            return version.number
    return 0


def _counts(version: PolicyVersion) -> bool:
    """Whether what a version learned is in the weights that serve."""
    return version.state in (VersionState.SERVING, VersionState.RETIRED)


def _stays(learned: dict[str, Any], run_dir: Path) -> str:
    versions = learned["versions"]
    many = len(versions) > 1
    names = f"{'versions' if many else 'version'} {', '.join(map(str, versions[:8]))}{' ..' * (len(versions) > 8)}"
    target, undone = learned["rollback"], learned["num_undone"]
    serves = f"serves version {target} again"
    if target == 0:
        serves += (
            ", the model itself" if versions[0] == 1 else ", since no newer one from before it has files"
        )
    return (
        f"  {names} {'were' if many else 'was'} trained on it already; those weights stay. To be rid of it: "
        f"{command(f'rollback {target}', run_dir)} {serves}, and sets aside what {undone} version{'s' * (undone > 1)} "
        "learned since"
    )


def _require_scope(run_dir: Path, scope: str) -> None:
    config = settings_of(run_dir)
    with LearningLog(run_dir) as log:
        known = log.scopes(config.policy)
    known |= {"default"} | of_keys(config)
    if scope not in known and not library_of(run_dir, scope).all():
        raise UserError(f"nobody has the scope {scope!r}: this run has {', '.join(sorted(known))}")


def proposed(run_dir: Path, scope: str) -> tuple[list[str], list[str]]:
    """The names of the lessons that wait for a decision: those that may be approved together, and those that are marked
    as suspicious, which nobody approves without having named them."""
    waiting = [lesson for lesson in lessons_of(run_dir, scope) if lesson.state is LessonState.PROPOSED]
    marks = marked(run_dir, waiting)
    return [lesson.id for lesson in waiting if lesson.id not in marks], list(marks)


async def take(run_dir: Path, scope: str, path: Path, *, paragraphs: bool = False) -> dict[str, Any]:
    """Makes lessons of transcripts and review comments; see `agentrl.signals.transcripts`.

    Args:
        paragraphs: running text is meant, each paragraph a comment, where a file holds nothing else.

    Raises:
        UserError: no API key has such a scope, or there is nothing to learn in the file.
    """
    config = settings_of(run_dir)
    require_key(config, scope)
    known = lessons_of(run_dir, scope)
    state = state_of(config.learn.approve)
    redactor = own_redactor(config.server.redact_patterns)
    evidence = read_evidence(path)
    read = {
        "transcripts": len(evidence.transcripts),
        "messages": sum(len(transcript.messages) for transcript in evidence.transcripts),
        "comments": sum(comment.form == "comment" for comment in evidence.comments),
        "rules": sum(comment.form == "rule" for comment in evidence.comments),
        "paragraphs": sum(comment.form == "paragraph" for comment in evidence.comments),
    }
    if read["paragraphs"] and not paragraphs and read["paragraphs"] == sum(read.values()):
        raise UserError(
            f"{path} holds running text ({read['paragraphs']} paragraphs) and neither transcripts, comments nor a list "
            "of rules: say --paragraphs to have each paragraph proposed as a lesson, or write a list ('- Use ...'). "
            f"Transcripts are read from .jsonl and .json files, as {FORMATS}"
        )
    if not sum(read.values()):
        raise UserError(
            f"nothing to learn is in {path}: it holds neither transcripts, comments nor rules (headings, "
            "tables and blocks of code are not read). Write rules as a list ('- Use ...', '- Never ...'), comments as "
            f'{{"body": "..."}} in a .json file, transcripts as {FORMATS}'
        )
    taken = await lessons_from(evidence, scope=scope, state=state, known=known, redactor=redactor)
    if not (taken.lessons or taken.num_known or taken.outcomes):
        raise UserError(_nothing(path, len(evidence.transcripts), taken))
    with LearningLog(run_dir) as log:
        log.add_lessons(taken.lessons, policy=config.policy)
    marks = marked(run_dir, taken.lessons)
    kept = [why for lesson in taken.lessons if (why := _why_kept(config, lesson)) is not None]
    return {
        "read": read,
        "imported": [_row(lesson, marks, frozenset()) for lesson in taken.lessons],
        "num_known": taken.num_known,
        "num_proposed": sum(lesson.state is LessonState.PROPOSED for lesson in taken.lessons),
        "num_suspicious": len(marks),
        "hints": dict(taken.outcomes),
        "dropped": [asdict(dropped) for dropped in taken.dropped],
        "num_no_correction": taken.num_no_correction,
        "num_without_calls": taken.num_without_calls,
        "num_kept_for_export": len(kept),
        "why_kept": kept[0] if kept else None,
    }


def _nothing(path: Path, num_transcripts: int, taken: Taken) -> str:
    """Why a file with transcripts brought nothing at all."""
    said = f"nothing to learn is in {path}: no answer of a tool or a user was read as saying what should have been done"
    if taken.num_without_calls:
        said += (
            f", and in {taken.num_without_calls} of {num_transcripts} transcripts no call of a tool was read"
        )
    left = "".join(f"\n  {line}" for line in in_lines(taken.dropped))
    return f"{said}. Transcripts are read as {FORMATS}{left}"


def _why_kept(config: Config, lesson: Lesson) -> str | None:
    """Why a lesson from elsewhere is shown to no teacher; None where it is, or is of the run's own turns."""
    if lesson.origin != "import":
        return None
    option = hint_option(load_recipe(config.learn.recipe, config.learn.overrides))
    # What names no request stands for all of them.
    if option is not None and (option.recall > 0 or not lesson.situation):
        return None
    return f"recipe {config.learn.recipe!r} shows teachers no hints of other turns (context.recall = 0)"


def export(run_dir: Path, scope: str, form: Format, out: Path | None) -> str:
    """The approved lessons as text for other agents, written to `out` or returned: those that most turns brought first,
    and what a single turn brought apart from them, for one turn may be a misunderstanding. What the guards hold back is
    left out. Of an AGENTS.md that is there already the part between the marks is replaced (`server.agents_md`).

    Raises:
        UserError: a skill of no lessons, or a place that cannot be written or is taken.
    """
    approved = [lesson for lesson in lessons_of(run_dir, scope) if lesson.state is LessonState.APPROVED]
    held_back = held_back_of(run_dir, approved)
    found = [lesson for lesson in approved if lesson.id not in held_back]
    lessons = sorted(found, key=_num_turns, reverse=True)
    if form == "skill-md" and not lessons:
        listed_by = command("lessons list", run_dir, scope)
        raise UserError(f"there is no approved lesson to write a skill of: {listed_by} shows what there is")
    text = {"agents-md": _agents_md, "skill-md": _skill_md, "json": _json}[form](lessons)
    if out is None:
        return text.rstrip("\n")
    path = out / EXPORTED_SKILL / FILE_NAME if form == "skill-md" else out
    if form != "agents-md" and path.exists():
        raise UserError(f"{path} is there already: name another place, or remove it")
    folder = out if form == "skill-md" else out.parent
    if not folder.exists() and not folder.parent.exists():
        raise UserError(f"{path} cannot be written: there is no folder {folder.parent}; name another place")
    try:
        if form == "agents-md":
            write_part(path, text)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}; name another place") from error
    return f"{len(lessons)} lessons in {path}"


def lessons_of(run_dir: Path, scope: str) -> list[Lesson]:
    """The lessons of a scope: those of hints, gathered up to now, and those of skills. Raises StoreError, UserError."""
    config = settings_of(run_dir)
    with LearningLog(run_dir) as log:
        gather(log, config.policy, config.learn.approve)
        found = [lesson for lesson in log.lessons(config.policy) if lesson.scope == scope]
        return found + log.with_results(of_skills(run_dir, scope, config.policy), config.policy)


def of_skills(run_dir: Path, scope: str, policy: str) -> list[Lesson]:
    """The skills of a scope as lessons, without what probes found."""
    with LogReader(run_dir, policy) as log:
        return [
            replace(
                of_skill(scope, skill.name, skill.body, first_turn(log, skill)),
                state=_OF_SKILL[skill.state],
                turn_ids=skill.turn_ids,
            )
            for skill in library_of(run_dir, scope).all()
        ]


def _find(run_dir: Path, scope: str, lessons: Sequence[Lesson], name: str) -> Lesson:
    for lesson in lessons:
        if lesson.id == name:
            return lesson
    raise UserError(f"there is no lesson {name!r}: {command('lessons list', run_dir, scope)} shows them")


def held_back_of(run_dir: Path, lessons: Sequence[Lesson]) -> frozenset[str]:
    """The ids of approved lessons that the guards keep from every teacher: all of their turns are set aside."""
    with LearningLog(run_dir) as log:
        set_aside = log.doubted(*SET_ASIDE)
    return frozenset(
        lesson.id
        for lesson in lessons
        if lesson.state is LessonState.APPROVED
        and lesson.origin == "hint"
        and lesson.turn_ids
        and set_aside.issuperset(lesson.turn_ids)
    )


def _row(lesson: Lesson, marks: Mapping[str, str], held_back: Collection[str]) -> dict[str, Any]:
    stands, version = ("held back", None) if lesson.id in held_back else standing(lesson)
    return {
        "id": lesson.id,
        "state": lesson.state.value,
        "origin": lesson.origin,
        "text": lesson.text,
        "num_turns": len(lesson.turn_ids),
        "stands": stands if version is None else f"broken by {version}",
        "suspicious": marks.get(lesson.id),
    }


def _num_turns(lesson: Lesson) -> int:
    return len(lesson.turn_ids)


def _lines(lessons: Sequence[Lesson]) -> str:
    """A list of them, what a single turn brought in one of its own. A skill stands on a whole episode, and what came
    from elsewhere on the word of whoever approved it."""
    once = [lesson for lesson in lessons if lesson.origin == "hint" and _num_turns(lesson) == 1]
    often = [lesson for lesson in lessons if lesson not in once]
    return "\n".join(
        before + "".join(f"- {_in_a_line(lesson)}\n" for lesson in some)
        for before, some in (("", often), ("Seen once:\n\n", once))
        if some
    )


def _in_a_line(lesson: Lesson) -> str:
    """A lesson's words without line ends; the steps of a skill without their numbers."""
    lines = lesson.text.split("\n")
    if lesson.origin == "skill" and sum(_STEP.match(line) is not None for line in lines) > 1:
        lines = [_STEP.sub("", line) for line in lines]
    return " ".join(" ".join(lines).split())


def _agents_md(lessons: Sequence[Lesson]) -> str:
    return f"## Learned from use\n\n{_lines(lessons)}"


def _skill_md(lessons: Sequence[Lesson]) -> str:
    return SkillFile(
        name=EXPORTED_SKILL,
        description="Use before acting in this environment: what works here and what does not, learned from use.",
        body=f"# Lessons learned\n\n{_lines(lessons)}",
    ).render()


def _json(lessons: Sequence[Lesson]) -> str:
    rows = [
        {
            "text": lesson.text,
            # words enough to know a like request by
            "request": " ".join(lesson.situation),
            "id": lesson.id,
            "origin": lesson.origin,
            "num_turns": len(lesson.turn_ids),
            "stands": standing(lesson)[0],
        }
        for lesson in lessons
    ]
    return json.dumps({"lessons": rows}, indent=2, ensure_ascii=False) + "\n"
