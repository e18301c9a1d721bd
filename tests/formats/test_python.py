"""Format python: the model as it is, packed alike every time, run in a process of its own, never believed."""

from __future__ import annotations

import dataclasses
import json
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from modelrel import archive
from modelrel.errors import Refused
from modelrel.formats import FORMATS, python
from modelrel.steps.convert import convert
from modelrel.steps.verify import verify
from modelrel.values import ConvertedModel, ConvertOptions, VerifyOptions
from tests.models import logged

ROWS = np.random.default_rng(0).normal(size=(60, 3))
LINE = LinearRegression().fit(ROWS, ROWS @ [1, 2, 3])


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> ConvertedModel:
    return convert(logged(LINE, ROWS, tmp_path_factory.mktemp("line")), "python", ConvertOptions())


def test_the_packed_model_is_compared_with_the_original(packed: ConvertedModel) -> None:
    report = verify(packed, VerifyOptions(rows=100, budget=1))
    assert {parity.name: parity.disagreements for parity in report.outputs} == {"prediction": 0}
    assert [parity.max_abs_error for parity in report.outputs] == [0]


def test_the_zip_holds_the_files_as_they_were_logged(packed: ConvertedModel) -> None:
    with zipfile.ZipFile(packed.path) as content:
        held = {name.removeprefix("model/"): content.read(name) for name in content.namelist()}
    said = json.loads(held.pop(python.DESCRIPTION))
    top = packed.source.model_dir
    assert held == {path.relative_to(top).as_posix(): path.read_bytes() for path in top.rglob("*") if path.is_file()}
    assert said["flavor"] == "sklearn"
    assert said["metadata"]["modelrel.source_digest"] == packed.source.digest


def test_converting_again_gives_the_same_bytes(packed: ConvertedModel) -> None:
    before = packed.path.read_bytes()
    assert convert(packed.source, "python", ConvertOptions()).path.read_bytes() == before


def test_a_packed_model_that_answers_otherwise_is_refused(packed: ConvertedModel, tmp_path: Path) -> None:
    other = logged(LinearRegression().fit(ROWS, ROWS @ [1, 2, 4]), ROWS, tmp_path)
    with zipfile.ZipFile(packed.path) as content:
        held = {name: content.read(name) for name in content.namelist()}
    held["model/model.pkl"] = (other.model_dir / "model.pkl").read_bytes()
    path = packed.path.with_name("other.zip")
    written(path, held)
    changed = dataclasses.replace(packed, file=archive.describe(path, packed.folder))
    FORMATS["python"].check(path)
    with pytest.raises(Refused, match=r"the python copy of churn/7 \(LinearRegression\) differs .* worst row"):
        verify(changed, VerifyOptions(rows=50, budget=1))


def written(path: Path, held: dict[str, bytes]) -> bytes:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as content:
        for name, one in held.items():
            content.writestr(name, one)
    return path.read_bytes()


def linked(content: zipfile.ZipFile) -> None:
    entry = zipfile.ZipInfo("model/link")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    content.writestr(entry, "/etc/passwd")


def twice(content: zipfile.ZipFile) -> None:
    content.writestr("model/MLmodel", b"flavors: {}")


HOSTILE: dict[str, Callable[[zipfile.ZipFile], None]] = {
    "above": lambda content: content.writestr("model/../../out", b"x"),
    "top": lambda content: content.writestr("../out", b"x"),
    "absolute": lambda content: content.writestr("/tmp/out", b"x"),
    "backslash": lambda content: content.writestr("model\\..\\..\\out", b"x"),
    "drive": lambda content: content.writestr("C:/out", b"x"),
    "beside": lambda content: content.writestr("other/out", b"x"),
    "link": linked,
    "folder": lambda content: content.writestr("model/sub/", b""),
    "control character": lambda content: content.writestr("model/a\nb", b"x"),
    "twice": twice,
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("way", HOSTILE)
def test_an_entry_that_is_no_file_of_the_model_is_refused(way: str, packed: ConvertedModel, tmp_path: Path) -> None:
    path = tmp_path / "in/model.zip"
    path.parent.mkdir()
    path.write_bytes(packed.path.read_bytes())
    with zipfile.ZipFile(path, "a") as content:
        HOSTILE[way](content)
    for ask in (FORMATS["python"].check, FORMATS["python"].load):
        with pytest.raises(Refused) as stop:
            ask(path)
        assert stop.value.message.count("\n") == 0
    assert sorted(one.name for one in tmp_path.rglob("*")) == ["in", "model.zip"]


def test_an_entry_that_claims_more_than_it_holds_is_refused(packed: ConvertedModel, tmp_path: Path) -> None:
    content = bytearray(packed.path.read_bytes())
    place = content.index(b"PK\x01\x02")  # the first entry of the central directory; its size stands 24 bytes on
    content[place + 24 : place + 28] = (2**31 - 1).to_bytes(4, "little")
    (tmp_path / "model.zip").write_bytes(content)
    with pytest.raises(Refused, match="that claim to be 2,147,483,647"):
        FORMATS["python"].check(tmp_path / "model.zip")


@pytest.mark.parametrize(
    "said",
    [b"", b"[]", b"{}", b"[" * 100_000, b'{"flavor": "os", "signature": null}'],
    ids=["empty", "list", "nothing", "deep", "other flavor"],
)
def test_a_zip_that_does_not_say_how_it_is_run_is_refused(said: bytes, packed: ConvertedModel, tmp_path: Path) -> None:
    with zipfile.ZipFile(packed.path) as content:
        held = {name: content.read(name) for name in content.namelist()}
    (tmp_path / "model.zip").write_bytes(written(tmp_path / "work.zip", held | {python.DESCRIPTION: said}))
    with pytest.raises(Refused, match="does not say how its model is run"):
        FORMATS["python"].check(tmp_path / "model.zip")


def test_a_description_that_would_fill_the_memory_is_not_read(packed: ConvertedModel, tmp_path: Path) -> None:
    with zipfile.ZipFile(packed.path) as content:
        held = {name: content.read(name) for name in content.namelist()}
    (tmp_path / "model.zip").write_bytes(
        written(tmp_path / "work.zip", held | {python.DESCRIPTION: b" " * (2**24 + 1)})
    )
    with pytest.raises(Refused, match="says in 16,777,217 bytes"):
        FORMATS["python"].check(tmp_path / "model.zip")


def test_its_process_ends_when_nobody_needs_it(packed: ConvertedModel) -> None:
    import gc

    import psutil

    before = {child.pid for child in psutil.Process().children()}
    predict = FORMATS["python"].load(packed.path)
    predict({"input": ROWS[:1]})
    started = {child.pid for child in psutil.Process().children()} - before
    assert len(started) == 1
    del predict
    gc.collect()
    assert not any(psutil.pid_exists(pid) for pid in started)


def test_the_limits_of_a_verification_are_those_of_the_packed_model_too(
    packed: ConvertedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []
    load = python.load

    def seen(path: Path, *limits: object) -> object:
        given.append(limits)
        return load(path, *limits)  # type: ignore[arg-type]

    monkeypatch.setattr(python, "load", seen)
    verify(packed, VerifyOptions(rows=20, budget=1, seconds=77.0, memory_bytes=2**32, env="current"))
    assert given == [(77.0, 2**32, "current")]


def test_a_packed_model_that_takes_too_long_is_refused(packed: ConvertedModel) -> None:
    predict = python.load(packed.path, 0.01, 0, "current")
    with pytest.raises(Refused, match=r"loading the model took longer than 0\.01 seconds"):
        predict({"input": ROWS[:2]})
