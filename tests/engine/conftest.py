from __future__ import annotations

from pathlib import Path

import pytest
import torch
from engine_models import save_model, save_tokenizer, save_version


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen3 with 256 ids and a byte tokenizer."""
    folder = tmp_path_factory.mktemp("qwen")
    save_model(folder, "qwen3")
    save_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    save_model(folder, "llama")
    return folder


@pytest.fixture(scope="session")
def versions(qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Folder n holds the weights of version n; version 0 is the model itself."""
    root = tmp_path_factory.mktemp("versions")
    return [qwen, *(save_version(root / str(number), seed=number) for number in range(1, 7))]
