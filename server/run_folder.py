"""A run's folder: who made it, whose it is, and the secret that is the key of every keyed hash in its log."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import shutil
from contextlib import closing, suppress
from pathlib import Path
from typing import cast

from agentrl.errors import ConfigError
from agentrl.store.database import ELSEWHERE, LEARNING_NAME, columns, connect, naming, scalar
from server.model_folder import model_folder

SECRET_NAME = "secret.key"  # noqa: S105 - the name of the file, not what is in it
NUM_SECRET_BYTES = 32


def run_secret(run_dir: Path) -> bytes:
    """Made once a run, readable by its owner only. The caller holds the run's log, so nobody else makes one."""
    known = read_secret(run_dir)
    if known is not None:
        return known
    secret = secrets.token_bytes(NUM_SECRET_BYTES)
    # The mode is given at creation: between a creation and a chmod anybody could open the file.
    handle = os.open(run_dir / SECRET_NAME, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(secret.hex() + "\n")
    return secret


def read_secret(run_dir: Path) -> bytes | None:
    """The secret of a run folder; None where none was made yet. Raises ConfigError where the file holds something else:
    another secret would know no conversation of the log again."""
    path = run_dir / SECRET_NAME
    why = "it is no key"
    try:
        secret = bytes.fromhex(path.read_text(encoding="ascii"))
        if len(secret) == NUM_SECRET_BYTES:
            return secret
    except FileNotFoundError:
        return None
    except OSError as error:
        why = error.strerror or str(error)
    except ValueError:
        pass
    raise ConfigError(f"{path} cannot be used ({why}): put back a copy, {ELSEWHERE}")


def drawn(secret: bytes, *names: str) -> float:
    """In [0, 1), the same for equal names; nobody without the run's secret can choose it."""
    return int.from_bytes(hmac.digest(secret, "\0".join(names).encode(), hashlib.sha256)[:8], "big") / 2**64


def folders_made(run_dir: Path) -> list[Path]:
    """Makes the folder and those that it stands in. Those that were not there, the run folder first; none where it was,
    or where it cannot be made, of which whoever opens the log speaks."""
    made: list[Path] = []
    with suppress(OSError):  # also where another start has made it meanwhile
        for path in reversed([path for path in (run_dir, *run_dir.parents) if not path.exists()]):
            path.mkdir()
            made.insert(0, path)
    return made if run_dir in made else []


def take_away(made: list[Path]) -> None:
    """Undoes `folders_made`: the run folder goes with all it holds, those around it where nothing else is in them."""
    with suppress(OSError):  # why the start was refused matters more
        for path in made[:1]:
            shutil.rmtree(path)
        for path in made[1:]:
            path.rmdir()


def refuse_another_model(run_dir: Path, model: str) -> None:
    """Raises ConfigError where the folder is another model's run: that model's versions would be served, or none.

    A damaged config.json is no reason to refuse: the start writes it anew. The model stands in learning.db as well.
    """
    try:
        before = json.loads((run_dir / "config.json").read_text(encoding="utf-8"))["model"]
        is_same = _identity(before) == _identity(model)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(
            f"{run_dir} cannot be used for a run ({error}). Name another folder with --run-dir."
        ) from error
    except (ValueError, KeyError, TypeError):
        before = _base(run_dir)
        is_same = before is None or Path(before).resolve() == model_folder(model).resolve()
    if not is_same:
        raise ConfigError(f"{run_dir} is a run of {before}. Name another folder with --run-dir.")


def _base(run_dir: Path) -> str | None:
    """The model's folder as learning.db has it, of whatever release; None where no learner has begun."""
    path = run_dir / LEARNING_NAME
    if not path.is_file():
        return None
    with closing(connect(path, read_only=True)) as connection, naming(path):
        if "versions" not in columns(connection):
            return None
        return cast("str | None", scalar(connection, "SELECT path FROM versions WHERE number = 0"))


def _identity(model: str) -> str:
    """Equal for equal models: the name of the one that ships, or the whole path of a folder."""
    return model if model == "nano" else str(Path(model).expanduser().resolve())
