"""Texts in scikit-learn models: the released copy, with its adapter in front, answers hard texts as the original."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import TruncatedSVD
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.feature_selection import SelectKBest, chi2
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.naive_bayes import BernoulliNB, ComplementNB, MultinomialNB
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import MaxAbsScaler, Normalizer, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import LinearSVC

from modelrel import serving, tensors
from modelrel.errors import Refused
from modelrel.flavors import FLAVORS
from modelrel.formats import FORMATS, Order, behind
from modelrel.probes import rows
from modelrel.steps.convert import convert
from modelrel.steps.verify import verify
from modelrel.values import ConvertOptions, VerifyOptions
from modelrel.worker import Loaded
from tests.formats.texts import HARD, classes, frame, hard_frame, said
from tests.models import adapter_of, logged, signature_of


def converted(model: Any, data: Any, folder: Path, to: str = "onnx") -> tuple[Path, Path | None, Any]:
    """Convert in this process; return the file, its adapter, and a function of rows to the original's answers."""
    (folder / "MLmodel").write_text("flavors:\n  sklearn: {}\n  python_function: {}\n")
    room, signature = FLAVORS["sklearn"], signature_of(data)

    def original(given: Any) -> Any:
        return room.predict(model, rows.fitted(given, signature, "test"), signature)

    shapes = tensors.specs(original(data[:5]))
    order = Order(flavor="sklearn", signature=signature, answers=room.answers(model, folder), shapes=shapes)
    path = folder / f"model{FORMATS[to].SUFFIX}"
    described = FORMATS[to].convert(model, order, path)
    FORMATS[to].check(path)
    return path, adapter_of(described, folder), original


def apart(model: Any, data: Any, asked: Any, folder: Path, to: str = "onnx") -> float:
    """Return how far the copy's numbers are from the original's on `asked`; labels must be equal."""
    path, adapter, original = converted(model, data, folder, to)
    expected = original(asked)
    found = behind(adapter, FORMATS[to].load(path))(rows.fitted(asked, signature_of(data), "test"))
    worst = 0.0
    for name, array in expected.items():
        assert array.shape == found[name].shape, name
        if array.dtype.kind == "f":
            np.testing.assert_array_equal(np.isfinite(array), np.isfinite(found[name]))
            worst = max(worst, float(np.abs(array - found[name]).max()))
        else:
            np.testing.assert_array_equal(array, found[name])
    return worst


def scored(*steps: Any) -> Any:
    """Return steps in front of a classifier, fitted."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make_pipeline(*steps, LogisticRegression(C=10)).fit(said(), classes())


SETTINGS: dict[str, Callable[[], tuple[Any, ...]]] = {
    "the defaults": lambda: (TfidfVectorizer(),),
    "words and pairs, without accents": lambda: (CountVectorizer(ngram_range=(1, 2), strip_accents="unicode"),),
    "stop words, ascii, pairs to triples": lambda: (
        TfidfVectorizer(stop_words="english", strip_accents="ascii", ngram_range=(2, 3)),
    ),
    "case kept, own stop words": lambda: (TfidfVectorizer(lowercase=False, stop_words=["it", "bad"]),),
    "letters": lambda: (TfidfVectorizer(analyzer="char", ngram_range=(2, 4), sublinear_tf=True),),
    "letters in words": lambda: (TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 5), norm="l1"),),
    "a pattern with a group": lambda: (TfidfVectorizer(token_pattern=r"(?u)(\w)\w*", norm=None, smooth_idf=False),),
    "what is not a space": lambda: (CountVectorizer(token_pattern=r"\S+", binary=True),),
    "letters without digits": lambda: (TfidfVectorizer(token_pattern=r"[^\W\d_]+(?:['’-][^\W\d_]+)*", use_idf=False),),
    "Latin letters": lambda: (CountVectorizer(token_pattern="[a-zA-Z0-9]+"), TfidfTransformer(sublinear_tf=True)),
    "few words": lambda: (CountVectorizer(max_features=7, min_df=2),),
    "given words": lambda: (TfidfVectorizer(vocabulary={"film": 1, "good": 0, "café": 2, "i̇stanbul": 3}),),
    "hashes": lambda: (HashingVectorizer(n_features=2**14),),
    "hashes that collide": lambda: (HashingVectorizer(n_features=37, ngram_range=(1, 2), norm=None),),
    "hashes without signs": lambda: (
        HashingVectorizer(n_features=1000, alternate_sign=False, binary=True, norm="l1"), TfidfTransformer(norm="l1"),
    ),
}  # fmt: skip


def test_there_are_two_hundred_hard_texts() -> None:
    assert len(HARD) >= 200


@pytest.mark.parametrize("setting", SETTINGS)
def test_hard_texts_are_answered_as_by_scikit_learn(setting: str, tmp_path: Path) -> None:
    model = scored(*SETTINGS[setting]())
    assert apart(model, said(), np.array(HARD, object), tmp_path) < 1e-12


def test_what_is_counted_in_float32_is_weighed_in_float32(tmp_path: Path) -> None:
    words = TfidfVectorizer(dtype=np.float32, sublinear_tf=True).fit(said())
    assert apart(words, said(), np.array(HARD, object), tmp_path) == 0.0


def test_a_vectorizer_alone_gives_the_same_bits(tmp_path: Path) -> None:
    words = TfidfVectorizer(ngram_range=(1, 2)).fit(said())
    assert apart(words, said(), np.array(HARD, object), tmp_path) == 0.0


BEHIND: dict[str, Callable[[], Any]] = {
    "LinearSVC": lambda: make_pipeline(TfidfVectorizer(), LinearSVC()),
    "RidgeClassifier": lambda: make_pipeline(TfidfVectorizer(), RidgeClassifier()),
    "MultinomialNB": lambda: make_pipeline(CountVectorizer(analyzer="char_wb", ngram_range=(1, 3)), MultinomialNB()),
    "ComplementNB": lambda: make_pipeline(CountVectorizer(), ComplementNB()),
    "BernoulliNB": lambda: make_pipeline(CountVectorizer(), BernoulliNB()),
    "SGD, hinge": lambda: make_pipeline(HashingVectorizer(), SGDClassifier(random_state=0)),
    "SGD, huber": lambda: make_pipeline(TfidfVectorizer(), SGDClassifier(loss="modified_huber", random_state=0)),
    "SGD, log": lambda: make_pipeline(TfidfVectorizer(), SGDClassifier(loss="log_loss", random_state=0)),
    "calibrated": lambda: make_pipeline(TfidfVectorizer(), CalibratedClassifierCV(LinearSVC(), cv=3)),
    "a forest": lambda: make_pipeline(CountVectorizer(), RandomForestClassifier(5, random_state=0)),
    "a reduction": lambda: make_pipeline(TfidfVectorizer(), TruncatedSVD(3, random_state=0), LogisticRegression()),
    "a selection": lambda: make_pipeline(TfidfVectorizer(), SelectKBest(chi2, k=5), LogisticRegression()),
    "a scaler": lambda: make_pipeline(CountVectorizer(), MaxAbsScaler(), Normalizer(), LogisticRegression()),
    "a union": lambda: make_pipeline(
        FeatureUnion([("words", CountVectorizer()), ("letters", CountVectorizer(analyzer="char", ngram_range=(1, 2)))]),
        TfidfTransformer(sublinear_tf=True),
        LogisticRegression(),
    ),
}


@pytest.mark.parametrize("classes_of", ["two", "three"])
@pytest.mark.parametrize("name", BEHIND)
def test_what_comes_behind_words_is_exact(name: str, classes_of: str, tmp_path: Path) -> None:
    target = classes() if classes_of == "three" else (classes() > 0).astype(int)
    model = BEHIND[name]().fit(said(), target)
    assert apart(model, said(), np.array(HARD, object), tmp_path) < 1e-12


def mixed(*final: Any) -> Any:
    columns = ColumnTransformer(
        [
            ("text", TfidfVectorizer(), "text"),
            (
                "letters",
                make_pipeline(CountVectorizer(analyzer="char_wb", ngram_range=(2, 3)), TfidfTransformer()),
                "text",
            ),
            ("numbers", StandardScaler(), ["n", "x"]),
            ("plan", OneHotEncoder(handle_unknown="ignore"), ["plan"]),
            ("place", OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), ["plan"]),
        ]
    )
    return make_pipeline(columns, *(final or (LogisticRegression(),))).fit(frame(), classes())


def test_text_stands_beside_numbers_and_categories(tmp_path: Path) -> None:
    assert apart(mixed(), frame(), hard_frame(), tmp_path) < 1e-12
    kept = {value.name for value in onnx.load(tmp_path / "model.onnx").graph.input}
    assert {"plan", "n", "x"} < kept
    assert "text" not in kept


def test_a_product_with_words_is_made_of_the_few_that_a_text_has(tmp_path: Path) -> None:
    path, _, _ = converted(mixed(), frame(), tmp_path)
    assert "ScatterElements" not in {node.op_type for node in onnx.load(path).graph.node}


def test_words_are_written_for_older_runtimes(tmp_path: Path) -> None:
    source = logged(
        make_pipeline(CountVectorizer(), MaxAbsScaler(), LogisticRegression()).fit(said(), classes()), said(), tmp_path
    )
    made = convert(source, "onnx", ConvertOptions(opset=16))
    assert made.opsets["ai.onnx"] == 16
    verify(made, VerifyOptions(rows=50))


def test_the_released_folder_is_served_with_the_code_that_packages_carry(tmp_path: Path) -> None:
    source = logged(mixed(), frame(), tmp_path)
    report = verify(convert(source, "onnx", ConvertOptions()), VerifyOptions())
    assert all(output.disagreements == 0 for output in report.outputs)
    assert report.sources["text"] > 100
    model = serving.load_model(tmp_path / "onnx")
    asked = hard_frame()
    given = {
        "text": asked[["text"]].to_numpy(object), "plan": asked[["plan"]].to_numpy(object),
        "n": asked[["n"]].to_numpy(), "x": asked[["x"]].to_numpy(),
    }  # fmt: skip
    found = model.predict(given)["probabilities"]
    np.testing.assert_allclose(found, mixed().predict_proba(asked), rtol=0, atol=1e-12)
    path = tmp_path / "onnx" / "adapter.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rows": 7}))
    in_parts = serving.load_model(tmp_path / "onnx").predict(given)["probabilities"]
    np.testing.assert_allclose(in_parts, found, rtol=0, atol=1e-14)


class Stemmed(CountVectorizer):  # type: ignore[misc]  # scikit-learn has no types
    """A vectorizer with code of its own."""


def _replaced() -> Any:
    words = CountVectorizer()
    words.build_tokenizer = lambda: str.split
    return words


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "a tokenizer": (lambda: CountVectorizer(tokenizer=str.split, token_pattern=None), "has the tokenizer str.split"),
    "a preprocessor": (lambda: CountVectorizer(preprocessor=str.upper), "has the preprocessor str.upper"),
    "an analyzer": (lambda: TfidfVectorizer(analyzer=lambda text: text.split()), "has the analyzer "),
    "accents by code": (lambda: CountVectorizer(strip_accents=str.upper), "has the strip_accents str.upper"),
    "a subclass": (Stemmed, "is not scikit-learn's own"),
    "a method": (_replaced, "has a build_tokenizer of its own"),
    "a slow pattern": (lambda: CountVectorizer(token_pattern=r"(?:\w+\s?)+"), r"the pattern '(?:\\w+\\s?)+' repeats"),
    "words never seen": (lambda: TfidfVectorizer(vocabulary=["good", "zebra"], smooth_idf=False), "is inf: no text"),
    "counts of 8 bits": (lambda: CountVectorizer(dtype=np.uint8), "counts in uint8"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REFUSED)
def test_code_of_the_models_own_is_refused_by_name(name: str, tmp_path: Path) -> None:
    make, words = REFUSED[name]
    with pytest.raises(Refused) as stop:
        converted(make_pipeline(make(), LogisticRegression()).fit(said(), classes()), said(), tmp_path)
    assert words in stop.value.message
    assert stop.value.hint


def test_words_inside_an_estimator_of_several_are_refused(tmp_path: Path) -> None:
    model = CalibratedClassifierCV(make_pipeline(TfidfVectorizer(), LinearSVC()), cv=3).fit(said(), classes())
    with pytest.raises(Refused, match="TfidfVectorizer reads what another step makes, or is inside"):
        converted(model, said(), tmp_path)


def test_a_count_that_cancels_is_not_taken_for_missing_by_xgboost(tmp_path: Path) -> None:
    from xgboost import XGBClassifier

    def model(**options: Any) -> Any:
        words = HashingVectorizer(n_features=16, **options)
        return make_pipeline(words, XGBClassifier(n_estimators=3, max_depth=3)).fit(said(), classes())

    with pytest.raises(Refused, match="a count that cancels to 0"):
        converted(model(), said(), tmp_path)
    assert apart(model(alternate_sign=False), said(), np.array(HARD, object), tmp_path) < 1e-6


def test_tflite_gets_the_same_numbers_of_texts_and_codes_of_words(tmp_path: Path) -> None:
    assert apart(mixed(), frame(), hard_frame(), tmp_path, "tflite") < 1e-6
    content = json.loads((tmp_path / "adapter.json").read_text())
    assert {one["datatype"] for one in content["gives"]} == {"INT64", "FP32"}
    assert [part["do"] for part in content["steps"][0]["parts"]] == ["count", "count", "code", "code"]


def test_tflite_gets_codes_of_words_that_were_missing(tmp_path: Path) -> None:
    data = frame()[["plan", "x"]]
    data.loc[::7, "plan"] = None
    words = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    columns = ColumnTransformer([("plan", words, ["plan"]), ("x", "passthrough", ["x"])])
    model = make_pipeline(columns, LogisticRegression()).fit(data, classes())
    assert apart(model, data, data, tmp_path, "tflite") < 1e-6


@pytest.mark.parametrize("rare", [None, 20])
def test_places_of_words_know_gaps_strangers_and_groups_of_rare_ones(rare: int | None, tmp_path: Path) -> None:
    data = frame()[["plan", "n"]].astype({"plan": "str", "n": float})
    data.loc[::6, "plan"] = np.nan
    data.loc[::5, "n"] = np.nan
    places = OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=99, min_frequency=rare
    )
    columns = ColumnTransformer([("plan", places, ["plan"]), ("n", clone(places), ["n"])])
    model = make_pipeline(columns, RandomForestClassifier(5, random_state=0)).fit(data, classes())
    strange = data.assign(plan=data["plan"].replace("pro", "never seen"), n=data["n"] + 9)
    assert apart(model, data, pd.concat([data, strange]), tmp_path) < 1e-12


def test_a_column_of_text_alone_is_handed_to_the_original_as_texts(tmp_path: Path) -> None:
    words = make_pipeline(TfidfVectorizer(), CalibratedClassifierCV(LinearSVC(), method="isotonic", cv=3))
    source = logged(words.fit(said(), classes()), frame()[["text"]], tmp_path)
    report = verify(convert(source, "onnx", ConvertOptions()), VerifyOptions(rows=60))
    assert report.rows > 200


def test_a_model_that_answers_other_rows_than_it_was_asked_is_refused(tmp_path: Path) -> None:
    two = frame()[["text", "plan"]]
    source = logged(TfidfVectorizer().fit(said()), two, tmp_path)
    assert source.signature is not None
    tensors.save(rows.fitted(two[:5], source.signature, "test"), tmp_path / "rows.npz")
    original = Loaded()
    original.load({"flavor": "sklearn", "model_dir": str(source.model_dir)})
    with pytest.raises(Refused, match="the model answers 5 rows with 2"):
        original.predict({"signature": asdict(source.signature), "arrays": str(tmp_path / "rows.npz")})
    with pytest.raises(Refused, match="TfidfVectorizer reads what another step makes"):
        convert(source, "onnx", ConvertOptions())
