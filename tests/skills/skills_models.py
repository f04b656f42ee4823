"""Small sentence-transformers models, saved as folders."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, StaticEmbedding, Transformer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

WORDS = ("show", "file", "erase", "all", "delete", "everything", "the", "_")


def word_tokenizer(known: Sequence[str]) -> Tokenizer:
    """One id a word; all other words are [UNK], which is id 0."""
    ids = {word: number for number, word in enumerate(["[UNK]", *known])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def static_model(folder: Path, vectors: Mapping[str, Sequence[float]]) -> str:
    """A text is the mean of its words' vectors; words without one are zero."""
    width = len(next(iter(vectors.values())))
    weights = np.array([[0.0] * width, *vectors.values()], dtype=np.float32)
    module = StaticEmbedding(word_tokenizer(list(vectors)), embedding_weights=weights)
    SentenceTransformer(modules=[module], device="cpu").save(str(folder))
    return str(folder)


def bert_model(folder: Path) -> str:
    """A BERT of random weights with mean pooling. One weight is left out, so that loading draws it at random."""
    base = folder.parent / f"{folder.name}-base"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(WORDS) + 1,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
        )
        BertModel(config).save_pretrained(base)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=word_tokenizer(WORDS), unk_token="[UNK]", pad_token="[UNK]"
    )
    tokenizer.save_pretrained(base)
    words = Transformer(str(base))
    SentenceTransformer(modules=[words, Pooling(16)], device="cpu").save(str(folder))
    weights = folder / "model.safetensors"
    kept = load_file(weights)
    del kept["pooler.dense.weight"]
    save_file(kept, weights, metadata={"format": "pt"})
    return str(folder)
