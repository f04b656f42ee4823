"""The schemas, as functions that are applied in order, each in a transaction with its own record.

A new file and an old one are opened alike: `migrate` applies what is missing. A migration that fails leaves no
trace and stays pending. A file that holds a migration this code does not know comes from a newer release and is
refused, because writing to it could break what the newer release keeps.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence

from agentrl.errors import StoreError
from agentrl.store.database import writing

Migration = Callable[[sqlite3.Connection], None]


def migrate(connection: sqlite3.Connection, migrations: Sequence[Migration]) -> list[str]:
    """Applies what is pending; returns the names applied now.

    Raises:
        StoreError: a migration failed (it stays pending), or the file comes from a newer release.
    """
    connection.execute(
        "CREATE TABLE IF NOT EXISTS main.migrations (name TEXT PRIMARY KEY, applied_at REAL NOT NULL)"
    )
    known = [migration.__name__ for migration in migrations]
    refuse_newer(connection, known)
    applied: list[str] = []
    for migration in migrations:
        name = migration.__name__
        try:
            with writing(connection):
                # Asked inside the transaction: another process may open the same old file at this moment.
                if name in names_applied(connection):
                    continue
                migration(connection)
                connection.execute("INSERT INTO main.migrations VALUES (?, ?)", (name, time.time()))
        except sqlite3.Error as error:
            raise StoreError(f"migration {name} failed and stays pending: {error}") from error
        applied.append(name)
    return applied


def names_applied(connection: sqlite3.Connection, schema: str = "main") -> set[str]:
    """The migrations a file has; none for a file without the table."""
    try:
        return {row[0] for row in connection.execute(f"SELECT name FROM {schema}.migrations")}  # noqa: S608
    except sqlite3.OperationalError:
        return set()


def refuse_newer(connection: sqlite3.Connection, known: Sequence[str], schema: str = "main") -> None:
    unknown = sorted(names_applied(connection, schema) - set(known))
    if unknown:
        raise StoreError(
            f"the file was written by a newer release (it has {', '.join(unknown)}): upgrade agentrl to open it"
        )


def require_current(connection: sqlite3.Connection, migrations: Sequence[Migration], schema: str) -> None:
    """Checks a file that this process may not change. Raises StoreError where it is older or newer."""
    known = [migration.__name__ for migration in migrations]
    refuse_newer(connection, known, schema)
    missing = [name for name in known if name not in names_applied(connection, schema)]
    if missing:
        raise StoreError(
            f"the file of {schema} is older than this release (it lacks {', '.join(missing)}): "
            "start the run once, its writer upgrades the file"
        )


def run(connection: sqlite3.Connection, *statements: str) -> None:
    """Executes statements one by one; `executescript` would commit the transaction around them."""
    for statement in statements:
        connection.execute(statement)


# log.db: written by the server alone


def m001_turns(connection: sqlite3.Connection) -> None:
    """Conversations stored once, turns that point into them.

    contents   a JSON value by the hash of its scope and text: a message, a list of tools, sampling settings
    messages   a chain: hash = sha256(parent's hash + content's hash), so histories share rows up to where they fork
    turns      one sampled choice; what is asked for often stands before the blobs, on the row's first page.
               Rows are never changed: `digest` covers all of them.
    open_turns the turns without a next state, so that finding idle sessions does not read the whole log
    """
    run(
        connection,
        """CREATE TABLE scopes (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)""",
        """CREATE TABLE contents (
            id INTEGER PRIMARY KEY,
            scope INTEGER NOT NULL REFERENCES scopes (id),
            hash BLOB NOT NULL UNIQUE,
            body BLOB NOT NULL)""",
        """CREATE TABLE messages (
            id INTEGER PRIMARY KEY,
            parent INTEGER REFERENCES messages (id),
            content INTEGER NOT NULL REFERENCES contents (id),
            hash BLOB NOT NULL UNIQUE)""",
        """CREATE TABLE turns (
            seq INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            request_id TEXT NOT NULL,
            scope TEXT NOT NULL,
            session TEXT NOT NULL,
            group_key TEXT,
            parent TEXT,
            policy TEXT NOT NULL,
            purpose TEXT NOT NULL,
            arm TEXT NOT NULL,
            kind TEXT NOT NULL,
            matched_by TEXT NOT NULL,
            received_at REAL NOT NULL,
            version INTEGER NOT NULL,
            num_messages INTEGER NOT NULL,
            num_prompt INTEGER NOT NULL,
            num_sampled INTEGER NOT NULL,
            error TEXT,
            block_spans TEXT,
            version_spans TEXT,
            tip INTEGER REFERENCES messages (id),
            tools INTEGER NOT NULL REFERENCES contents (id),
            sampling INTEGER NOT NULL REFERENCES contents (id),
            prompt_base INTEGER REFERENCES turns (seq),
            prompt_depth INTEGER NOT NULL,
            history_key TEXT NOT NULL,
            reply_key TEXT NOT NULL,
            task_key TEXT NOT NULL,
            kind_reason TEXT NOT NULL,
            prompt_built_by TEXT NOT NULL,
            finish_reason TEXT NOT NULL,
            first_token_s REAL,
            latency_s REAL NOT NULL,
            client TEXT NOT NULL,
            redacted_spans TEXT,
            reply BLOB NOT NULL,
            prompt_ids BLOB NOT NULL,
            token_ids BLOB NOT NULL,
            logprobs BLOB NOT NULL,
            raw_logprobs BLOB,
            num_allowed BLOB,
            digest BLOB NOT NULL)""",
        "CREATE INDEX turns_by_session ON turns (scope, session, received_at)",
        "CREATE INDEX turns_by_request ON turns (request_id)",
        "CREATE INDEX turns_by_history ON turns (scope, history_key)",
        "CREATE INDEX turns_by_reply ON turns (scope, session, reply_key)",
        "CREATE INDEX turns_by_version ON turns (policy, version)",
        "CREATE INDEX turns_by_age ON turns (policy, received_at)",
        "CREATE INDEX turns_moved ON turns (policy) WHERE version_spans IS NOT NULL",
        "CREATE INDEX turns_by_group ON turns (policy, scope, group_key) WHERE group_key IS NOT NULL",
        """CREATE TABLE call_ids (
            scope TEXT NOT NULL, call_id TEXT NOT NULL, turn INTEGER NOT NULL REFERENCES turns (seq),
            PRIMARY KEY (scope, call_id, turn)) WITHOUT ROWID""",
        """CREATE TABLE open_turns (
            turn INTEGER PRIMARY KEY REFERENCES turns (seq), scope TEXT NOT NULL, session TEXT NOT NULL)""",
        "CREATE INDEX open_turns_by_session ON open_turns (scope, session)",
    )


def m002_what_followed(connection: sqlite3.Connection) -> None:
    """Next states and what they were judged to mean.

    next_states   one a turn, the first; a second one leaves a row in repeated_next_states and changes nothing.
                  `messages` lists contents by id: the next request of the conversation shares those rows.
    due_turns     answered turns that the judge has not finished with
    judgements    every attempt of the judge, with its outcome
    signals       rewards and hints; any number a turn
    """
    run(
        connection,
        """CREATE TABLE next_states (
            turn INTEGER PRIMARY KEY REFERENCES turns (seq),
            messages TEXT NOT NULL,
            matched_by TEXT NOT NULL,
            ending TEXT,
            answered_by TEXT,
            received_at REAL NOT NULL,
            digest BLOB NOT NULL)""",
        """CREATE TABLE repeated_next_states (
            id INTEGER PRIMARY KEY,
            turn INTEGER NOT NULL REFERENCES turns (seq),
            matched_by TEXT NOT NULL,
            ending TEXT,
            answered_by TEXT,
            received_at REAL NOT NULL)""",
        """CREATE TABLE due_turns (
            turn INTEGER PRIMARY KEY REFERENCES turns (seq), attempts INTEGER NOT NULL)""",
        "CREATE INDEX due_turns_by_attempts ON due_turns (attempts, turn)",
        """CREATE TABLE judgements (
            id INTEGER PRIMARY KEY,
            turn INTEGER NOT NULL REFERENCES turns (seq),
            outcome TEXT NOT NULL,
            detail TEXT NOT NULL,
            created_at REAL NOT NULL)""",
        "CREATE INDEX judgements_by_turn ON judgements (turn)",
        """CREATE TABLE signals (
            id INTEGER PRIMARY KEY,
            turn INTEGER NOT NULL REFERENCES turns (seq),
            scope TEXT NOT NULL,
            session TEXT NOT NULL,
            source TEXT NOT NULL,
            reward REAL,
            hint TEXT,
            preferred TEXT,
            votes TEXT,
            evidence TEXT NOT NULL,
            created_at REAL NOT NULL,
            digest BLOB NOT NULL)""",
        "CREATE INDEX signals_by_turn ON signals (turn)",
        """CREATE INDEX episode_rewards ON signals (scope, session)
            WHERE source = 'environment' AND reward IS NOT NULL""",
    )


def m003_lessons(connection: sqlite3.Connection) -> None:
    """What users see of accepted hints and skills; the newest record of an id stands."""
    run(
        connection,
        """CREATE TABLE lessons (
            id TEXT PRIMARY KEY,
            text TEXT NOT NULL,
            state TEXT NOT NULL,
            turn_ids TEXT NOT NULL,
            probe TEXT,
            held_by TEXT NOT NULL,
            broken_by TEXT NOT NULL,
            created_at REAL NOT NULL,
            changed_at REAL NOT NULL)""",
        "CREATE INDEX lessons_by_state ON lessons (state)",
    )


def m004_lessons_elsewhere(connection: sqlite3.Connection) -> None:
    """Lessons are decided on by the learner and the CLI, which never write here: they stand in learning.db. No server
    ever wrote a row of this table, so none is lost."""
    run(connection, "DROP TABLE lessons")


def m005_hints_in_order(connection: sqlite3.Connection) -> None:
    """The few signals with a hint: whoever asks for new ones does not read all that were ever recorded."""
    run(connection, "CREATE INDEX hints ON signals (id) WHERE hint <> ''")


def m006_shown_lessons(connection: sqlite3.Connection) -> None:
    """turns: `shown_lessons`, the lessons that stood in the prompt, as JSON; NULL without any. A row's digest covers it
    where there are some, so that older rows keep theirs."""
    run(connection, "ALTER TABLE turns ADD COLUMN shown_lessons TEXT")


def m007_offered_hints(connection: sqlite3.Connection) -> None:
    """signals: `offered`, a hint that passed the gates beside the one of its turn. A row's digest covers it where there
    is one, so that older rows keep theirs."""
    run(connection, "ALTER TABLE signals ADD COLUMN offered TEXT")


def m008_answered_turns(connection: sqlite3.Connection) -> None:
    """The whole turns of a scope in the order of their commits: whoever asks for the newest does not sort all."""
    run(
        connection,
        """CREATE INDEX answered_turns ON turns (scope, policy)
            WHERE purpose = 'train' AND kind = 'main' AND error IS NULL AND num_sampled > 0
            AND redacted_spans IS NULL""",
    )


LOG: tuple[Migration, ...] = (
    m001_turns,
    m002_what_followed,
    m003_lessons,
    m004_lessons_elsewhere,
    m005_hints_in_order,
    m006_shown_lessons,
    m007_offered_hints,
    m008_answered_turns,
)


# learning.db: written by the learner and the CLI


def m001_learning(connection: sqlite3.Connection) -> None:
    """Who has which turn, which step used it, which version holds the step.

    settings      one row a policy: what its recipe needs of a turn, and `settled`: every turn up to this seq of
                  log.db has reached its end or stands in claims or step_turns
    claims        turns in the learner's hands right now; gone once a step, a rejection or a release has them
    steps         optimiser steps; `version` is set when one is published, `voided_at` when its weights were lost
    rejections    set aside for good, with the reason
    """
    run(
        connection,
        """CREATE TABLE settings (
            policy TEXT PRIMARY KEY,
            needs TEXT NOT NULL,
            group_size INTEGER NOT NULL,
            allow_blocks INTEGER NOT NULL,
            settled INTEGER NOT NULL)""",
        """CREATE TABLE claims (
            turn_id TEXT PRIMARY KEY, policy TEXT NOT NULL, use INTEGER NOT NULL, claimed_at REAL NOT NULL)""",
        """CREATE TABLE steps (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            policy TEXT NOT NULL,
            recipe TEXT NOT NULL,
            seed INTEGER NOT NULL,
            metrics TEXT NOT NULL,
            parent INTEGER NOT NULL,
            version INTEGER,
            created_at REAL NOT NULL,
            voided_at REAL,
            void_reason TEXT)""",
        "CREATE INDEX steps_by_version ON steps (policy, version)",
        """CREATE TABLE step_turns (
            step INTEGER NOT NULL REFERENCES steps (id), turn_id TEXT NOT NULL, use INTEGER NOT NULL,
            PRIMARY KEY (step, turn_id)) WITHOUT ROWID""",
        "CREATE INDEX step_turns_by_turn ON step_turns (turn_id)",
        """CREATE TABLE rejections (
            turn_id TEXT PRIMARY KEY, reason TEXT NOT NULL, version INTEGER, created_at REAL NOT NULL)""",
    )


def m002_versions(connection: sqlite3.Connection) -> None:
    """The lines of versions, every change of state, who holds a version, and what probes found."""
    run(
        connection,
        """CREATE TABLE versions (
            policy TEXT NOT NULL,
            number INTEGER NOT NULL,
            parent INTEGER,
            state TEXT NOT NULL,
            path TEXT NOT NULL,
            files TEXT NOT NULL,
            metrics TEXT NOT NULL,
            created_at REAL NOT NULL,
            served_at REAL,
            deleted_at REAL,
            PRIMARY KEY (policy, number)) WITHOUT ROWID""",
        # The rule "one version serves" is the database's, not a habit of the code.
        "CREATE UNIQUE INDEX one_serving ON versions (policy) WHERE state = 'serving'",
        """CREATE TABLE version_events (
            id INTEGER PRIMARY KEY, policy TEXT NOT NULL, number INTEGER NOT NULL, state TEXT NOT NULL,
            reason TEXT NOT NULL, created_at REAL NOT NULL)""",
        "CREATE INDEX version_events_by_version ON version_events (policy, number)",
        """CREATE TABLE pins (
            policy TEXT NOT NULL, number INTEGER NOT NULL, holder TEXT NOT NULL, created_at REAL NOT NULL,
            PRIMARY KEY (policy, number, holder)) WITHOUT ROWID""",
        """CREATE TABLE probes (
            id INTEGER PRIMARY KEY, policy TEXT NOT NULL, number INTEGER NOT NULL, name TEXT NOT NULL,
            passed INTEGER NOT NULL, score REAL, detail TEXT NOT NULL, created_at REAL NOT NULL)""",
        "CREATE INDEX probes_by_version ON probes (policy, number)",
    )


def m003_lessons_of_hints(connection: sqlite3.Connection) -> None:
    """What users see of accepted hints, and what they decide about it.

    settings       `approve`: "auto", or "review" where unapproved hints are not taught; NULL where the recipe shows
                   no hints. `gathered`: every hint up to this signal of log.db has its lesson
    lessons        `situation` and `probe` are JSON; results of probes stand in probes, under "lesson ID"
    lesson_hints   which lesson a hint belongs to. The turn is named as well: after a power cut the log may give the
                   number of a lost signal to another one
    """
    run(
        connection,
        "ALTER TABLE settings ADD COLUMN approve TEXT",
        "ALTER TABLE settings ADD COLUMN gathered INTEGER NOT NULL DEFAULT 0",
        """CREATE TABLE lessons (
            id TEXT PRIMARY KEY,
            policy TEXT NOT NULL,
            scope TEXT NOT NULL,
            origin TEXT NOT NULL,
            text TEXT NOT NULL,
            form TEXT NOT NULL,
            situation TEXT NOT NULL,
            probe TEXT,
            state TEXT NOT NULL,
            reason TEXT NOT NULL,
            created_at REAL NOT NULL,
            changed_at REAL NOT NULL)""",
        "CREATE INDEX lessons_by_policy ON lessons (policy, state)",
        """CREATE TABLE lesson_hints (
            signal INTEGER PRIMARY KEY, turn_id TEXT NOT NULL, lesson TEXT NOT NULL REFERENCES lessons (id))""",
        "CREATE INDEX lesson_hints_by_lesson ON lesson_hints (lesson)",
        "CREATE INDEX lesson_hints_by_turn ON lesson_hints (turn_id)",
    )


def m004_lessons_that_came_later(connection: sqlite3.Connection) -> None:
    """The lessons that bring turns without a context back, by time: each such turn asks for those since it was set
    aside. They are few; the approved ones are many."""
    run(
        connection,
        """CREATE INDEX later_lessons ON lessons (policy, scope, changed_at)
            WHERE state = 'approved' AND (changed_at > created_at OR origin = 'import')""",
    )


def m005_unsettled(connection: sqlite3.Connection) -> None:
    """settings: `unsettled` counts how often the fate of a settled turn may have changed after all: whoever has counted
    the settled turns need not count them again until it moves."""
    run(connection, "ALTER TABLE settings ADD COLUMN unsettled INTEGER NOT NULL DEFAULT 0")


def m006_taught(connection: sqlite3.Connection) -> None:
    """taught: what a step taught of each turn, for people: the newest, as many as the run's settings say. `shown` is
    JSON, NULL where the teacher read the plain prompt; `token_ids` is NULL where they are the turn's sampled ids; a
    stream without numbers is NULL."""
    run(
        connection,
        """CREATE TABLE taught (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            step INTEGER NOT NULL REFERENCES steps (id),
            turn_id TEXT NOT NULL,
            source TEXT NOT NULL,
            num_tokens INTEGER NOT NULL,
            shown BLOB,
            token_ids BLOB,
            loss BLOB NOT NULL,
            logprob BLOB NOT NULL,
            teacher_logprob BLOB,
            advantage BLOB,
            ratio BLOB)""",
        "CREATE INDEX taught_by_turn ON taught (turn_id, step)",
    )


def m007_probes_without_names(connection: sqlite3.Connection) -> None:
    """What is asked of versions names no word any more.

    probes    `passed` is NULL where there was nothing to find; `held_out`: asked where nothing is trained
    lessons   the probe holds what the text names, and every lesson of a hint has one
    """
    run(
        connection,
        "ALTER TABLE probes RENAME TO old_probes",
        """CREATE TABLE probes (
            id INTEGER PRIMARY KEY, policy TEXT NOT NULL, number INTEGER NOT NULL, name TEXT NOT NULL,
            passed INTEGER, score REAL, detail TEXT NOT NULL, held_out INTEGER NOT NULL DEFAULT 0,
            created_at REAL NOT NULL)""",
        """INSERT INTO probes (id, policy, number, name, passed, score, detail, created_at)
            SELECT id, policy, number, name, passed, score, detail, created_at FROM old_probes""",
        "DROP TABLE old_probes",
        "CREATE INDEX probes_by_version ON probes (policy, number)",
        """UPDATE lessons SET probe = json_set(json_remove(probe, '$.check'), '$.names',
            json_extract(probe, '$.check.contains')) WHERE json_type(probe, '$.check') = 'object'""",
        """UPDATE lessons SET probe = json_object('turn_id', (SELECT turn_id FROM lesson_hints h
                WHERE h.lesson = lessons.id ORDER BY h.signal LIMIT 1), 'held_out', json('false'), 'names', json('[]'))
            WHERE probe IS NULL AND EXISTS (SELECT 1 FROM lesson_hints h WHERE h.lesson = lessons.id)""",
    )


def m008_sources(connection: sqlite3.Connection) -> None:
    """lessons: `source`, where an imported one stood."""
    run(connection, "ALTER TABLE lessons ADD COLUMN source TEXT NOT NULL DEFAULT ''")


def m009_probes_by_name(connection: sqlite3.Connection) -> None:
    """What was found of one lesson: whoever asks for a few does not read what was found of all."""
    run(connection, "CREATE INDEX probes_by_name ON probes (policy, name, number)")


LEARNING: tuple[Migration, ...] = (
    m001_learning,
    m002_versions,
    m003_lessons_of_hints,
    m004_lessons_that_came_later,
    m005_unsettled,
    m006_taught,
    m007_probes_without_names,
    m008_sources,
    m009_probes_by_name,
)
