"""The file of a teacher's scores: found again by the ids, and one teacher's alone."""

import hashlib
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from agentrl.errors import ConfigError, ModelError
from agentrl.teacher.scores import Score, ScoreFile, fingerprint, key_of

MINE, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
SCORE = Score(start=2, logprobs=(-0.5, -1.25, -3.0), policy="default", version=7)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with ScoreFile.create(tmp_path / "scores.db", teacher=MINE) as file:
        file.put((5, 6, 7, 8, 9), SCORE)
    return tmp_path / "scores.db"


def test_a_score_is_found_by_the_ids_and_by_no_others(path: Path) -> None:
    with ScoreFile.open(path, teacher=MINE) as file:
        assert file.get((5, 6, 7, 8, 9)) == SCORE
        assert file.get((5, 6, 7, 8)) is None
        assert file.get((5, 6, 7, 9, 8)) is None


def test_the_key_is_the_hash_of_the_ids_as_four_bytes_each() -> None:
    assert key_of((1, 258)) == hashlib.sha256(b"\x01\x00\x00\x00\x02\x01\x00\x00").digest()
    assert key_of((1, 2)) != key_of((12,))


def test_log_probs_are_read_off_at_positions_of_the_ids() -> None:
    assert SCORE.at((2, 4)) == (-0.5, -3.0)
    assert SCORE.at((1, 2)) is None
    assert SCORE.at((4, 5)) is None


def test_a_stream_of_the_wrong_length_is_refused_with_both_lengths(path: Path) -> None:
    with (
        ScoreFile.create(path, teacher=MINE) as file,
        pytest.raises(ValueError, match="3 log-probs from position 2 for 6 ids"),
    ):
        file.put((5, 6, 7, 8, 9, 10), SCORE)


def test_scores_of_another_teacher_are_refused_for_reading_and_for_writing(path: Path) -> None:
    for opened in (ScoreFile.open, ScoreFile.create):
        with pytest.raises(
            ConfigError, match=f"of the teacher {MINE}, expected is {OTHER}: score the turns again"
        ):
            opened(path, teacher=OTHER)


def test_the_file_tells_whose_replies_were_scored(path: Path) -> None:
    with ScoreFile.create(path, teacher=MINE) as file:
        for version in (7, 8):
            file.put((1, 2, version), Score(start=2, logprobs=(-1.0,), policy="user:x", version=version))
        assert file.versions() == {("default", 7): 1, ("user:x", 7): 1, ("user:x", 8): 1}


def test_a_file_that_is_not_there_or_none_of_ours_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"scores\.db cannot be read as a file of scores: unable to open"):
        ScoreFile.open(tmp_path / "scores.db", teacher=MINE)
    (tmp_path / "text").write_text("no database, and long enough to be looked at " * 30)
    for opened in (ScoreFile.open, ScoreFile.create):
        with pytest.raises(ConfigError, match="text cannot be"):
            opened(tmp_path / "text", teacher=MINE)


def test_a_file_of_a_later_format_is_refused(path: Path) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE about SET value = '2' WHERE name = 'format'")
    connection.close()

    with pytest.raises(ConfigError, match="format '2' of scores, known is '1'"):
        ScoreFile.open(path, teacher=MINE)


def test_a_fingerprint_follows_every_file_of_weights_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "model-1.safetensors").write_bytes(b"one")
    first = fingerprint(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert fingerprint(tmp_path) == first == fingerprint(first)
    (tmp_path / "model-2.safetensors").write_bytes(b"two")
    second = fingerprint(tmp_path)
    (tmp_path / "model-1.safetensors").write_bytes(b"eno")

    assert first == "sha256:" + hashlib.sha256(hashlib.sha256(b"one").digest()).hexdigest()
    assert len({first, second, fingerprint(tmp_path)}) == 3


def test_a_folder_without_weights_has_no_fingerprint(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=str(tmp_path)):
        fingerprint(tmp_path)


def test_scores_are_read_without_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import agentrl.teacher.scores"
    subprocess.run([sys.executable, "-c", code], check=True)
