"""The renderer of a small Qwen3-style folder."""

from pathlib import Path

import pytest
from small_models import CHAT_TEMPLATE, CHATML, MARKUP, byte_tokenizer, save_folder

from agentrl.text.renderer import ChatRenderer, load_renderer


@pytest.fixture(scope="session")
def qwen3_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "qwen3-tiny"
    return save_folder(folder, byte_tokenizer(CHATML, MARKUP), CHAT_TEMPLATE, "<|im_end|>")


@pytest.fixture(scope="session")
def qwen3(qwen3_folder: Path) -> ChatRenderer:
    return load_renderer(qwen3_folder)
