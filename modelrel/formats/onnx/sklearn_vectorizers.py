"""Vectorizers of scikit-learn as data: what `modelrel.serving.adapters.text` needs to do the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from modelrel.errors import Refused
from modelrel.serving.adapters.faults import BrokenAdapter
from modelrel.serving.adapters.text import analyzer

_MODULE: Final = "sklearn.feature_extraction.text"
_NAMES: Final = ("CountVectorizer", "HashingVectorizer")
WEIGHTS: Final = "modelrel_weights_"
"""Attribute of a vectorizer (in the converter's copy): the TfidfTransformers behind it."""

_MOST_TERMS: Final = 4_000_000
"""What fits, with a weight each, in the largest file of an adapter."""

_DTYPES: Final = ("float64", "float32", "int64", "int32")
_OWN: Final = ("tokenizer", "preprocessor")
_REPLACED: Final = (
    "build_analyzer", "build_preprocessor", "build_tokenizer", "decode", "get_stop_words", "transform", "_count_vocab",
    "_word_ngrams", "_char_ngrams", "_char_wb_ngrams",
)  # fmt: skip


def counts(native: Any) -> bool:
    """Whether an estimator is a vectorizer of texts, or made of one."""
    return any(kind.__module__ == _MODULE and kind.__name__ in _NAMES for kind in type(native).__mro__)


def counted(native: Any) -> dict[str, Any]:
    """Return the part of the adapter that does what a fitted vectorizer does; raises `Refused`, naming the option."""
    name = type(native).__name__
    _plain(native, name)
    dtype = np.dtype(native.dtype).name
    if dtype not in _DTYPES:
        raise Refused(f"{name} counts in {dtype}", "Train it with dtype=numpy.float64.")
    said = {
        "do": "count",
        "analyzer": native.analyzer,
        "lowercase": bool(native.lowercase),
        "accents": native.strip_accents or None,
        "ngrams": [int(size) for size in native.ngram_range],
        "pattern": native.token_pattern if native.analyzer == "word" else None,
        "stop_words": sorted(native.get_stop_words() or ()) if native.analyzer == "word" else [],
        "dtype": dtype,
        "width": width_of(native),
        "vocabulary": None if name == "HashingVectorizer" else _vocabulary(native),
        "signs": name == "HashingVectorizer" and bool(native.alternate_sign),
        "stages": list(_stages(native)),
        "cell": "FP64",
    }
    try:
        analyzer(said)
    except BrokenAdapter as error:
        raise Refused(f"{name} cannot be released: {error}", "Train it with a simpler token_pattern.") from error
    return said


def width_of(native: Any) -> int:
    """Return the number of columns that a vectorizer gives."""
    if type(native).__name__ == "HashingVectorizer":
        return int(native.n_features)
    return len(native.get_feature_names_out())


def _plain(native: Any, name: str) -> None:
    """Raise `Refused` where a vectorizer runs code that came with the model, or reads files."""
    hint = "Do that before the model, in the data, or train with scikit-learn's own options."
    if type(native).__module__ != _MODULE:
        raise Refused(f"{name} of {type(native).__module__} is not scikit-learn's own, and has code of its own", hint)
    for option in _OWN:
        if (own := getattr(native, option)) is not None:
            raise Refused(f"{name} has the {option} {_called(own)}, which is code of the model's own", hint)
    for option in ("analyzer", "strip_accents"):
        if callable(own := getattr(native, option)):
            raise Refused(f"{name} has the {option} {_called(own)}, which is code of the model's own", hint)
    replaced = [method for method in _REPLACED if method in vars(native)]
    if replaced:
        raise Refused(f"{name} has a {replaced[0]} of its own, which is code of the model's own", hint)
    if native.input != "content":
        raise Refused(f"{name} reads texts from the {native.input} that it is given", "Train it with input='content'.")


def _called(own: Any) -> str:
    return str(getattr(own, "__qualname__", "") or type(own).__qualname__)


def _vocabulary(native: Any) -> list[str]:
    """Return the terms in the order of their columns."""
    if len(native.vocabulary_) > _MOST_TERMS:
        raise Refused(
            f"{type(native).__name__} knows {len(native.vocabulary_):,} terms, and an adapter can have {_MOST_TERMS:,}",
            "Train it with max_features, or use a HashingVectorizer.",
        )
    terms = sorted(native.vocabulary_, key=native.vocabulary_.__getitem__)
    places = [int(native.vocabulary_[term]) for term in terms]
    if places != list(range(len(terms))) or not all(type(term) is str for term in terms):
        raise Refused(
            f"the vocabulary of {type(native).__name__} is not one term for each of {len(terms)} columns",
            "Train it with a list of different words.",
        )
    return terms


def _stages(native: Any) -> Iterator[dict[str, Any]]:
    """Yield what is done to the counts, in turn."""
    name = type(native).__name__
    real = np.dtype(native.dtype).kind == "f"
    if native.binary:
        yield {"do": "ones"}
    weights = [vars(native)["_tfidf"]] if name == "TfidfVectorizer" else []
    if name == "HashingVectorizer" and native.norm is not None:
        if not real:
            yield {"do": "real"}
            real = True
        yield from _norm(native.norm, name)
    for one in (*weights, *getattr(native, WEIGHTS, ())):
        if not real:
            yield {"do": "real"}
            real = True
        yield from _weights(one)


def _weights(native: Any) -> Iterator[dict[str, Any]]:
    """Yield the stages of a fitted TfidfTransformer."""
    if native.sublinear_tf:
        yield {"do": "log"}
    if hasattr(native, "idf_"):
        idf = np.asarray(native.idf_, np.float64)
        if not np.isfinite(idf).all():
            word = int(np.flatnonzero(~np.isfinite(idf))[0])
            raise Refused(
                f"the weight of column {word} of {type(native).__name__} is {idf[word]}: no text had its word",
                "Train it with smooth_idf=True.",
            )
        yield {"do": "idf", "idf": idf.tolist()}
    if native.norm is not None:
        yield from _norm(native.norm, type(native).__name__)


def _norm(norm: str, name: str) -> Iterator[dict[str, Any]]:
    if norm not in ("l1", "l2"):
        raise Refused(f"{name} has the norm {norm!r}", "Train it with norm='l2'.")
    yield {"do": "norm", "norm": norm}
