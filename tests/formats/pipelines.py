"""A small text-classification pipeline with a WordPiece vocabulary of its own, made without any hub."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from typing import Any

from modelrel.values import SourceModel
from tests.models import pulled

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when the library is imported

SENTENCES = ("the cat sat on the mat", "a good film", "a bad film, really awful", "naïve café", "北京 大学", "don't!")
MOST = 24
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
HARD = (
    "", " ", "\t\n", "a good film", "A GOOD FILM", "naïve café", "nai\u0308ve", "北京大学", "😀 film 😀",
    "[SEP] film [CLS]", "[MASK]", "[pad] a", "don't!", "\u200bword", "a\u00a0film", "x" * 200,
    "İstanbul ı ß", "film " * 10,
)  # fmt: skip
"""Texts on which tokenizers differ; all are short enough for the network."""


def fast_tokenizer(**options: Any) -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    words.normalizer = normalizers.BertNormalizer(lowercase=True)
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.train_from_iterator(SENTENCES, trainers.WordPieceTrainer(vocab_size=200, special_tokens=list(SPECIAL)))
    ids = [(token, words.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    words.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ids)
    named = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "pad", "cls", "sep", "mask")}
    return PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=MOST, **named, **options)


def network(words: int, **options: Any) -> Any:
    """Return a BERT of two layers whose answers differ from text to text."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    names = options.pop("names", ("bad", "ok", "good"))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=words, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=37,
        max_position_embeddings=MOST, id2label=dict(enumerate(names)),
        label2id={name: number for number, name in enumerate(names)}, **options,
    )  # fmt: skip
    made = BertForSequenceClassification(config).eval()
    with torch.no_grad():
        for weight in made.parameters():
            if weight.dim() > 1:
                weight.normal_(0, 0.5)
    return made


def logged(folder: Path, config: dict[str, Any] | None = None, **options: Any) -> SourceModel:
    """Log a pipeline as MLflow does; `config` is what its pyfunc calls it with."""
    import mlflow
    import transformers
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    words = options.pop("tokenizer", None) or fast_tokenizer()
    made = transformers.pipeline("text-classification", model=network(min(len(words), 500), **options), tokenizer=words)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.transformers.save_model(
            made, folder / "source", signature=ModelSignature(Schema([ColSpec("string")]), Schema([ColSpec("string")])),
            input_example=list(SENTENCES), pip_requirements=["transformers", "torch"], model_config=config,
        )  # fmt: skip
    return pulled(folder, "transformers", name="reviews")
