"""Tiny models, and one torch thread. Where another base is needed a file has a fixture of its own."""

from pathlib import Path

import pytest
import torch
from learner_models import write_model, write_tokenizer


@pytest.fixture(scope="module", autouse=True)
def _one_thread_for_fixtures() -> None:
    """What a file's fixtures compute is compared bit for bit with what its tests do."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokenizer(write_model(tmp_path_factory.mktemp("teachers") / "policy"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model, wider than the policy, with its vocabulary."""
    folder = tmp_path_factory.mktemp("teachers") / "other"
    return write_tokenizer(write_model(folder, seed=5, hidden_size=48, num_hidden_layers=3))
