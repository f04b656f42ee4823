"""Texts as vectors, by a sentence-transformers model in a folder; the extra `embeddings` brings the library.

It is imported where a model is loaded and nowhere else, for it imports torch, which the gateway never does. Nothing is
fetched from a network, and no code that stands in the folder is run.
"""

from __future__ import annotations

import importlib.util
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentrl.errors import ConfigError

LIBRARY = "sentence_transformers"
MODULES = "modules.json"
"""What makes a folder a sentence-transformers model; without it a language model would pass for one."""
MAX_KEPT = 32_768
"""50 MB of vectors at 384 numbers each. A library with more requests is embedded anew in each iteration."""
BATCH = 32

Vector = NDArray[np.float32]


def refuse_missing(folder: str | None) -> None:
    """What can be told of `skills.embeddings` without loading anything. Raises ConfigError."""
    if folder is None:
        return
    if importlib.util.find_spec(LIBRARY) is None:
        raise ConfigError(
            f"skills.embeddings = {folder!r} needs sentence-transformers, which is not installed: "
            "pip install 'agentrl-live[embeddings]', or leave the setting out to find skills by words alone"
        )
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise ConfigError(
            f"skills.embeddings = {folder!r}: there is no folder {path}. Models are not fetched: `hf download "
            "sentence-transformers/all-MiniLM-L6-v2 --local-dir FOLDER` gets one"
        )
    if not (path / MODULES).is_file():
        raise ConfigError(
            f"skills.embeddings = {folder!r}: {path} is no sentence-transformers model, it has no {MODULES}. Name "
            "the folder that SentenceTransformer.save wrote, or that was downloaded whole"
        )


class Embedder:
    """The model of `skills.embeddings`, on the CPU.

    Args:
        folder: the setting.
        max_kept: vectors that are kept, the least lately used goes first.

    Raises:
        ConfigError: the extra is not installed, or the folder holds no model that can be loaded and asked.
    """

    def __init__(self, folder: str, *, max_kept: int = MAX_KEPT) -> None:
        refuse_missing(folder)
        self._max_kept = max_kept
        self._kept: OrderedDict[tuple[bool, str], Vector] = OrderedDict()
        try:
            self._model = _load(Path(folder).expanduser())
            vectors = [*self.requests(["Show the file _."]), *self.descriptions(["Shows files."])]
        except Exception as error:  # whatever the library raises, the folder is the reason
            raise ConfigError(
                f"skills.embeddings = {folder!r} cannot be loaded as a sentence-transformers model "
                f"({type(error).__name__}: {error}): download or save it again, or leave the setting out"
            ) from error
        if not all(vector.ndim == 1 and np.isfinite(vector).all() for vector in vectors):
            raise ConfigError(
                f"skills.embeddings = {folder!r} answers with something else than a vector of numbers for a text: "
                "name a model that embeds sentences"
            )

    def requests(self, texts: Sequence[str]) -> list[Vector]:
        """Vectors of length 1, or 0 of a text without a known word. Each text is computed once."""
        return self._vectors(texts, is_request=True)

    def descriptions(self, texts: Sequence[str]) -> list[Vector]:
        """The same of texts that requests are to find; some models have another prompt for these."""
        return self._vectors(texts, is_request=False)

    def _vectors(self, texts: Sequence[str], *, is_request: bool) -> list[Vector]:
        distinct = list(dict.fromkeys(texts))
        new = [text for text in distinct if (is_request, text) not in self._kept]
        found = {text: self._kept[is_request, text] for text in distinct if (is_request, text) in self._kept}
        if new:
            found |= zip(new, self._encoded(new, is_request=is_request), strict=True)
        for text, vector in found.items():
            self._kept[is_request, text] = vector
            self._kept.move_to_end((is_request, text))
        while len(self._kept) > self._max_kept:
            self._kept.popitem(last=False)
        return [found[text] for text in texts]

    def _encoded(self, texts: list[str], *, is_request: bool) -> list[Vector]:
        from agentrl.learner.aside import aside

        encode = self._model.encode_query if is_request else self._model.encode_document
        with aside():
            vectors = encode(texts, batch_size=BATCH, normalize_embeddings=True, show_progress_bar=False)
        # Copies: a row of the batch would keep the whole batch in memory.
        return [np.array(vector, dtype=np.float32) for vector in vectors]


def _load(path: Path) -> Any:
    from sentence_transformers import SentenceTransformer
    from transformers.utils.logging import disable_progress_bar

    from agentrl.learner.aside import aside

    disable_progress_bar()  # the learner's output is read line by line
    with aside():
        return SentenceTransformer(str(path), device="cpu", local_files_only=True, trust_remote_code=False)
