"""What is said of a model folder that is not whole."""

import re
from pathlib import Path

import pytest

from agentrl.config import load_config
from agentrl.errors import ModelError
from agentrl.nano import weights_dir
from server.model_folder import refuse_incomplete
from server.runtime import Runtime

WHOLE = ("config.json", "model.safetensors", "tokenizer.json")


def folder_with(path: Path, *names: str) -> Path:
    path.mkdir(exist_ok=True)
    for name in names:
        (path / name).touch()
    return path


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((), "lacks config.json, model.safetensors, tokenizer.json; download the whole model"),
        (("tokenizer.json",), "lacks config.json, model.safetensors; download the whole model"),
        (WHOLE[1:], "lacks config.json; download the whole model there, or save it (model.save_pretrained)"),
        (WHOLE[:1], "lacks model.safetensors, tokenizer.json; download the whole model"),
        (WHOLE[:2], "lacks tokenizer.json; save it there with the model's tokenizer"),
        (
            ("config.json", "tokenizer.json", "pytorch_model.bin"),
            "lacks model.safetensors; pytorch_model.bin cannot be read",
        ),
        (("nano.gguf",), "lacks config.json, model.safetensors, tokenizer.json; nano.gguf cannot be read"),
        (
            ("adapter_config.json", "adapter_model.safetensors", "tokenizer.json"),
            "lacks config.json, model.safetensors; it holds an adapter",
        ),
    ],
)
def test_a_model_folder_that_is_not_whole_is_told_what_it_lacks_in_the_order_of_mending(
    names: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=re.escape(said)):
        refuse_incomplete(folder_with(tmp_path, *names))


def test_whole_model_folders_are_not_refused(tmp_path: Path) -> None:
    refuse_incomplete(weights_dir())
    refuse_incomplete(folder_with(tmp_path, *WHOLE))
    sharded = ("config.json", "model.safetensors.index.json", "tokenizer.json")
    refuse_incomplete(folder_with(tmp_path / "sharded", *sharded))


async def test_a_server_names_the_missing_settings_of_a_model_before_its_tokenizer(tmp_path: Path) -> None:
    config = load_config(model=str(folder_with(tmp_path / "model")), run_dir=str(tmp_path / "run"))

    with pytest.raises(ModelError, match=r"lacks config\.json, model\.safetensors"):
        await Runtime(config).start()
    assert not (tmp_path / "run").exists()
