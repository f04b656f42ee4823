"""What the bank knows, for people: figures of a skill, what came of episodes, the skills of a turn."""

from __future__ import annotations

from typing import Any

from skills.bank import SkillBank

LINES_LEFT_OUT = "lines left out"
"""Behind their number, in the detail of an episode whose skill has fewer lines than its writer gave it."""


def figures(bank: SkillBank, scope: str, name: str) -> dict[str, Any]:
    """What is known of one skill over all its tasks."""
    selected = bank.rows(
        """SELECT count(*) AS n, count(DISTINCT task_key) AS tasks FROM selections
           WHERE scope = ? AND name = ?""",
        (scope, name),
    )[0]
    source = bank.rows(
        """SELECT count(*) AS n, avg(reward) AS mean, count(DISTINCT task_key) AS tasks FROM sources
           WHERE scope = ? AND name = ?""",
        (scope, name),
    )[0]
    sql = """SELECT avg(t.reward) FROM taught t JOIN selections s ON s.id = t.selection
             WHERE s.scope = ? AND s.name = ?"""
    return {
        "num_episodes": source["n"],
        "num_tasks": source["tasks"],
        "source_reward": source["mean"],
        "num_selected": selected["n"],
        "num_taught_tasks": selected["tasks"],
        "taught_reward": bank.scalar(sql, (scope, name)),
    }


def taught_turns(bank: SkillBank, scope: str, name: str) -> list[str]:
    """The turns that a skill was chosen for as the teacher's context."""
    sql = """SELECT DISTINCT u.turn_id FROM uses u JOIN selections s ON s.id = u.selection
             WHERE s.scope = ? AND s.name = ? ORDER BY u.turn_id"""
    return [row["turn_id"] for row in bank.rows(sql, (scope, name))]


def outcomes(bank: SkillBank) -> dict[str, int]:
    """What came of the episodes, counted."""
    sql = "SELECT outcome, count(*) AS n FROM episodes GROUP BY 1 ORDER BY 1"
    return {row["outcome"]: row["n"] for row in bank.rows(sql)}


def num_left_out(bank: SkillBank) -> int:
    """How many lines of drafts were left out because they directed elsewhere."""
    rows = bank.rows("SELECT detail FROM episodes WHERE detail LIKE ?", (f"% {LINES_LEFT_OUT}: %",))
    numbers = (row["detail"].partition(f" {LINES_LEFT_OUT}: ")[0] for row in rows)
    return sum(int(number) for number in numbers if number.isdecimal())


def of_turn(bank: SkillBank, turn_id: str) -> dict[str, list[dict[str, Any]]]:
    """The skills that a turn was taught with, with the text shown, and those that were written from it."""
    taught = bank.rows(
        """SELECT s.name, s.iteration, s.created_at, x.body FROM uses u JOIN selections s ON s.id = u.selection
           JOIN texts x ON x.digest = s.digest WHERE u.turn_id = ? ORDER BY s.id""",
        (turn_id,),
    )
    written = bank.rows(
        """SELECT name, created_at FROM sources
           WHERE EXISTS (SELECT 1 FROM json_each(turn_ids) WHERE value = ?) ORDER BY created_at""",
        (turn_id,),
    )
    return {"taught_with": [dict(row) for row in taught], "written_from": [dict(row) for row in written]}
