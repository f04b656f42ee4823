"""The folder of the model that is served: where it is, and whether everything is in it."""

from __future__ import annotations

from pathlib import Path

from agentrl.errors import ConfigError, ModelError
from agentrl.nano import weights_dir

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
OTHER_WEIGHTS = ("*.bin", "*.gguf", "*.pt", "*.pth")
"""Formats that the local engine does not read."""


def model_folder(model: str) -> Path:
    """Raises ConfigError where there is no such folder."""
    path = weights_dir() if model == "nano" else Path(model).expanduser()
    if not path.is_dir():
        raise ConfigError(
            f"there is no model folder {path}. Give a folder with {CONFIG}, {WEIGHTS} and {TOKENIZER}, or 'nano'."
        )
    return path


def refuse_incomplete(folder: Path) -> None:
    """Raises ModelError, naming all that is missing in the order in which one would mend it."""
    files = {CONFIG: (CONFIG,), WEIGHTS: (WEIGHTS, f"{WEIGHTS}.index.json"), TOKENIZER: (TOKENIZER,)}
    missing = [what for what, names in files.items() if not any((folder / name).is_file() for name in names)]
    if not missing:
        return
    others = sorted(path.name for pattern in OTHER_WEIGHTS for path in folder.glob(pattern))
    if (folder / "adapter_config.json").is_file():
        remedy = "it holds an adapter, which is served on its base model: merge both and save the whole model"
    elif missing == [TOKENIZER]:
        remedy = "save it there with the model's tokenizer (tokenizer.save_pretrained)"
    elif WEIGHTS in missing and others:
        remedy = f"{others[0]} cannot be read: load it with transformers and save the model (model.save_pretrained)"
    elif TOKENIZER in missing:
        remedy = "download the whole model there, or save both model and tokenizer (save_pretrained)"
    else:
        remedy = "download the whole model there, or save it (model.save_pretrained)"
    raise ModelError(f"{folder} lacks {', '.join(missing)}; {remedy}")
