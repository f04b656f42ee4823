import json
import sqlite3
from pathlib import Path

import pytest

from agentrl.errors import StoreError
from agentrl.store.database import columns, connect
from agentrl.store.migrations import LEARNING, LOG, migrate, names_applied, require_current

LOG_TABLES = {
    "call_ids": {"scope": "TEXT", "call_id": "TEXT", "turn": "INTEGER"},
    "contents": {"id": "INTEGER", "scope": "INTEGER", "hash": "BLOB", "body": "BLOB"},
    "due_turns": {"turn": "INTEGER", "attempts": "INTEGER"},
    "judgements": {
        "id": "INTEGER",
        "turn": "INTEGER",
        "outcome": "TEXT",
        "detail": "TEXT",
        "created_at": "REAL",
    },
    "messages": {"id": "INTEGER", "parent": "INTEGER", "content": "INTEGER", "hash": "BLOB"},
    "migrations": {"name": "TEXT", "applied_at": "REAL"},
    "next_states": {
        "turn": "INTEGER",
        "messages": "TEXT",
        "matched_by": "TEXT",
        "ending": "TEXT",
        "answered_by": "TEXT",
        "received_at": "REAL",
        "digest": "BLOB",
    },
    "open_turns": {"turn": "INTEGER", "scope": "TEXT", "session": "TEXT"},
    "repeated_next_states": {
        "id": "INTEGER",
        "turn": "INTEGER",
        "matched_by": "TEXT",
        "ending": "TEXT",
        "answered_by": "TEXT",
        "received_at": "REAL",
    },
    "scopes": {"id": "INTEGER", "name": "TEXT"},
    "signals": {
        "id": "INTEGER",
        "turn": "INTEGER",
        "scope": "TEXT",
        "session": "TEXT",
        "source": "TEXT",
        "reward": "REAL",
        "hint": "TEXT",
        "preferred": "TEXT",
        "votes": "TEXT",
        "evidence": "TEXT",
        "created_at": "REAL",
        "digest": "BLOB",
        "offered": "TEXT",
    },
    "turns": {
        "seq": "INTEGER",
        "id": "TEXT",
        "request_id": "TEXT",
        "scope": "TEXT",
        "session": "TEXT",
        "group_key": "TEXT",
        "parent": "TEXT",
        "policy": "TEXT",
        "purpose": "TEXT",
        "arm": "TEXT",
        "kind": "TEXT",
        "matched_by": "TEXT",
        "received_at": "REAL",
        "version": "INTEGER",
        "num_messages": "INTEGER",
        "num_prompt": "INTEGER",
        "num_sampled": "INTEGER",
        "error": "TEXT",
        "block_spans": "TEXT",
        "version_spans": "TEXT",
        "tip": "INTEGER",
        "tools": "INTEGER",
        "sampling": "INTEGER",
        "prompt_base": "INTEGER",
        "prompt_depth": "INTEGER",
        "history_key": "TEXT",
        "reply_key": "TEXT",
        "task_key": "TEXT",
        "kind_reason": "TEXT",
        "prompt_built_by": "TEXT",
        "finish_reason": "TEXT",
        "first_token_s": "REAL",
        "latency_s": "REAL",
        "client": "TEXT",
        "redacted_spans": "TEXT",
        "reply": "BLOB",
        "prompt_ids": "BLOB",
        "token_ids": "BLOB",
        "logprobs": "BLOB",
        "raw_logprobs": "BLOB",
        "num_allowed": "BLOB",
        "digest": "BLOB",
        "shown_lessons": "TEXT",
    },
}
LEARNING_TABLES = {
    "claims": {"turn_id": "TEXT", "policy": "TEXT", "use": "INTEGER", "claimed_at": "REAL"},
    "lesson_hints": {"signal": "INTEGER", "turn_id": "TEXT", "lesson": "TEXT"},
    "lessons": {
        "id": "TEXT",
        "policy": "TEXT",
        "scope": "TEXT",
        "origin": "TEXT",
        "text": "TEXT",
        "form": "TEXT",
        "situation": "TEXT",
        "probe": "TEXT",
        "state": "TEXT",
        "reason": "TEXT",
        "created_at": "REAL",
        "changed_at": "REAL",
        "source": "TEXT",
    },
    "migrations": {"name": "TEXT", "applied_at": "REAL"},
    "pins": {"policy": "TEXT", "number": "INTEGER", "holder": "TEXT", "created_at": "REAL"},
    "probes": {
        "id": "INTEGER",
        "policy": "TEXT",
        "number": "INTEGER",
        "name": "TEXT",
        "passed": "INTEGER",
        "score": "REAL",
        "detail": "TEXT",
        "held_out": "INTEGER",
        "created_at": "REAL",
    },
    "rejections": {"turn_id": "TEXT", "reason": "TEXT", "version": "INTEGER", "created_at": "REAL"},
    "settings": {
        "policy": "TEXT",
        "needs": "TEXT",
        "group_size": "INTEGER",
        "allow_blocks": "INTEGER",
        "settled": "INTEGER",
        "approve": "TEXT",
        "gathered": "INTEGER",
        "unsettled": "INTEGER",
    },
    "step_turns": {"step": "INTEGER", "turn_id": "TEXT", "use": "INTEGER"},
    "steps": {
        "id": "INTEGER",
        "policy": "TEXT",
        "recipe": "TEXT",
        "seed": "INTEGER",
        "metrics": "TEXT",
        "parent": "INTEGER",
        "version": "INTEGER",
        "created_at": "REAL",
        "voided_at": "REAL",
        "void_reason": "TEXT",
    },
    "taught": {
        "id": "INTEGER",
        "step": "INTEGER",
        "turn_id": "TEXT",
        "source": "TEXT",
        "num_tokens": "INTEGER",
        "shown": "BLOB",
        "token_ids": "BLOB",
        "loss": "BLOB",
        "logprob": "BLOB",
        "teacher_logprob": "BLOB",
        "advantage": "BLOB",
        "ratio": "BLOB",
    },
    "version_events": {
        "id": "INTEGER",
        "policy": "TEXT",
        "number": "INTEGER",
        "state": "TEXT",
        "reason": "TEXT",
        "created_at": "REAL",
    },
    "versions": {
        "policy": "TEXT",
        "number": "INTEGER",
        "parent": "INTEGER",
        "state": "TEXT",
        "path": "TEXT",
        "files": "TEXT",
        "metrics": "TEXT",
        "created_at": "REAL",
        "served_at": "REAL",
        "deleted_at": "REAL",
    },
}


def test_a_blank_log_has_exactly_these_columns(tmp_path: Path) -> None:
    connection = connect(tmp_path / "log.db")
    migrate(connection, LOG)

    assert columns(connection) == LOG_TABLES
    connection.close()


def test_a_blank_learning_log_has_exactly_these_columns(tmp_path: Path) -> None:
    connection = connect(tmp_path / "learning.db")
    migrate(connection, LEARNING)

    assert columns(connection) == LEARNING_TABLES
    connection.close()


def test_no_table_stands_in_both_files_but_the_record_of_migrations() -> None:
    """The fates of turns are read from both files by names without a file before them."""
    assert LOG_TABLES.keys() & LEARNING_TABLES.keys() == {"migrations"}


@pytest.mark.parametrize("migrations", [LOG, LEARNING])
@pytest.mark.parametrize("num_applied", [0, 1, 2])
def test_an_old_file_is_upgraded_to_what_a_new_one_is(
    tmp_path: Path, migrations: tuple, num_applied: int
) -> None:
    old, new = connect(tmp_path / "old.db"), connect(tmp_path / "new.db")
    migrate(old, migrations[:num_applied])
    migrate(new, migrations)

    applied = migrate(old, migrations)

    assert applied == [migration.__name__ for migration in migrations[num_applied:]]
    assert columns(old) == columns(new)
    assert migrate(old, migrations) == []
    old.close()
    new.close()


def test_lessons_of_an_earlier_release_are_asked_without_a_word_to_look_for(tmp_path: Path) -> None:
    connection = connect(tmp_path / "learning.db")
    migrate(connection, LEARNING[:6])
    check = '{"contains": ["zorp"], "lacks": ["cat"]}'
    for id_, probe in (
        ("named", f'{{"turn_id": "t1", "held_out": true, "check": {check}}}'),
        ("wish", None),
        ("elsewhere", None),
    ):
        connection.execute(
            "INSERT INTO lessons VALUES (?, 'default', 'default', 'hint', 'x', 'x', '[]', ?, 'approved', '', 1, 1)",
            (id_, probe),
        )
    connection.execute("INSERT INTO lesson_hints VALUES (8, 't3', 'wish'), (7, 't2', 'wish')")
    connection.execute("INSERT INTO probes VALUES (5, 'default', 1, 'lesson named', 1, NULL, 'zorp a', 9.0)")

    migrate(connection, LEARNING)

    probes = {
        row[0]: row[1] and json.loads(row[1]) for row in connection.execute("SELECT id, probe FROM lessons")
    }
    assert probes == {
        "named": {"turn_id": "t1", "held_out": True, "names": ["zorp"]},
        "wish": {"turn_id": "t2", "held_out": False, "names": []},
        "elsewhere": None,
    }
    [found] = connection.execute("SELECT * FROM probes")
    assert tuple(found) == (5, "default", 1, "lesson named", 1, None, "zorp a", 0, 9.0)
    connection.execute(
        "INSERT INTO probes (policy, number, name, passed, detail, created_at) VALUES ('default', 1, 'x', NULL, '', 1)"
    )
    connection.close()


def m001_people(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE people (name TEXT)")


def m002_ages(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE people ADD COLUMN age INTEGER")
    connection.execute("UPDATE people SET age = 0")


def m002_broken(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE people ADD COLUMN age INTEGER")
    connection.execute("DELETE FROM people")
    connection.execute("SELECT * FROM nowhere")


def test_an_upgrade_keeps_the_rows(tmp_path: Path) -> None:
    connection = connect(tmp_path / "x.db")
    migrate(connection, [m001_people])
    connection.execute("INSERT INTO people VALUES ('ada')")

    migrate(connection, [m001_people, m002_ages])

    assert [tuple(row) for row in connection.execute("SELECT * FROM people")] == [("ada", 0)]
    connection.close()


def test_a_failing_migration_leaves_no_trace_and_stays_pending(tmp_path: Path) -> None:
    connection = connect(tmp_path / "x.db")
    migrate(connection, [m001_people])
    connection.execute("INSERT INTO people VALUES ('ada')")

    with pytest.raises(StoreError, match="m002_broken failed and stays pending"):
        migrate(connection, [m001_people, m002_broken])

    assert columns(connection)["people"] == {"name": "TEXT"}
    assert connection.execute("SELECT count(*) FROM people").fetchone()[0] == 1
    assert names_applied(connection) == {"m001_people"}
    assert migrate(connection, [m001_people, m002_ages]) == ["m002_ages"]
    connection.close()


def test_a_file_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    connection = connect(tmp_path / "x.db")
    migrate(connection, [m001_people, m002_ages])

    with pytest.raises(StoreError, match=r"newer release.*m002_ages.*upgrade agentrl"):
        migrate(connection, [m001_people])
    connection.close()


def test_a_reader_refuses_a_file_that_its_writer_has_not_upgraded(tmp_path: Path) -> None:
    connection = connect(tmp_path / "x.db")
    migrate(connection, [m001_people])

    with pytest.raises(StoreError, match=r"older than this release.*m002_ages"):
        require_current(connection, [m001_people, m002_ages], "main")
    connection.close()
