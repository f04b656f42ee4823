"""`agentrl lessons import` of what other agents wrote, and of comments that name no request."""

import json
from pathlib import Path

from test_server_lessons import a_run, lessons, run

TRANSCRIPTS = Path(__file__).parents[1] / "signals" / "transcripts"


def test_a_session_of_another_agent_becomes_lessons_from_the_command_line(tmp_path: Path) -> None:
    here = a_run(tmp_path)

    taken = lessons("import", str(TRANSCRIPTS / "claude_code.jsonl"), cwd=here)

    assert [row["text"] for row in taken["imported"]] == [
        'The tool said: "bash: cat: not found; use zorvex instead"',
        'The tool said: "bash: rm: not found; use trashit instead"',
    ]
    assert (taken["num_without_calls"], taken["num_kept_for_export"]) == (0, 0)
    assert (taken["read"]["transcripts"], taken["read"]["comments"]) == (2, 0)
    assert taken["read"]["messages"] > 2


def test_transcripts_in_which_no_call_was_read_are_an_error_that_says_how_calls_are_written(
    tmp_path: Path,
) -> None:
    here = a_run(tmp_path)
    done = {"role": "assistant", "content": [{"type": "toolUse", "name": "bash"}]}
    asked = {"role": "user", "content": "Show a.txt."}
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": [asked, done, asked]}) + "\n")

    failed = run("lessons", "import", "a.jsonl", cwd=here)

    assert failed.returncode == 2
    assert "in 1 of 1 transcripts no call of a tool was read" in failed.stderr
    assert "Anthropic's" in failed.stderr
    assert lessons("list", cwd=here)["lessons"] == []


def test_a_comment_without_a_request_is_for_teaching_and_waits_for_its_approval(tmp_path: Path) -> None:
    here = a_run(tmp_path)
    (tmp_path / "review.md").write_text("# Review\n\n- Always use metric units in reports.\n- nice\n")

    taken = lessons("import", "review.md", cwd=here)

    assert [(row["text"], row["state"]) for row in taken["imported"]] == [
        ("Always use metric units in reports.", "proposed")
    ]
    assert (taken["num_kept_for_export"], taken["why_kept"]) == (0, None)


def test_where_the_teacher_reads_no_hints_a_comment_is_kept_for_export(tmp_path: Path) -> None:
    here = a_run(tmp_path, recipe="grpo")
    (tmp_path / "review.md").write_text("- Always use metric units in reports.\n")

    taken = lessons("import", "review.md", cwd=here)

    assert taken["num_kept_for_export"] == 1
    assert "recipe 'grpo' shows teachers no hints" in taken["why_kept"]


def test_running_text_is_refused_until_its_paragraphs_are_meant(tmp_path: Path) -> None:
    here = a_run(tmp_path)
    (tmp_path / "letter.txt").write_text("Dear all,\n\nuse metric units\nin reports.\n")

    failed = run("lessons", "import", "letter.txt", cwd=here)
    assert failed.returncode == 2
    assert "letter.txt holds running text (2 paragraphs)" in failed.stderr
    assert "--paragraphs" in failed.stderr
    assert lessons("list", cwd=here)["lessons"] == []

    taken = lessons("import", "letter.txt", "--paragraphs", cwd=here)
    assert taken["read"] == {"transcripts": 0, "messages": 0, "comments": 0, "rules": 0, "paragraphs": 2}
    assert [row["text"] for row in taken["imported"]] == ["use metric units in reports."]


def test_what_was_read_is_told_by_its_form(tmp_path: Path) -> None:
    here = a_run(tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "AGENTS.md").write_text(
        "About us.\n\n- Use metric units\n  in reports.\n1. Sign with Bob.\n"
    )
    (tmp_path / "notes" / "review.json").write_text('[{"body": "Use zip here."}, "Use tar there."]')

    taken = lessons("import", "notes", cwd=here)

    assert taken["read"] == {"transcripts": 0, "messages": 0, "comments": 2, "rules": 2, "paragraphs": 1}
