"""Hostile models: whatever their files and their names are, nothing escapes, and what is written stays what it is."""

from __future__ import annotations

import json
import os
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from modelrel import archive, records
from modelrel.errors import ModelrelError
from modelrel.steps.package import package
from modelrel.targets import TARGETS
from modelrel.values import Dataset
from tests.conftest import Run
from tests.models import by_hand
from tests.targets import tiny

HEAVY = {"docker", "lambda", "lambda-image", "oci"}
"""Targets that carry wheels: all hostile names at once are enough."""

NAMES = {
    "of a template": "{{ 7*7 }} {% raw %} ${{x}} {# c",
    "of a shell": "$(touch escaped) `touch escaped` ; rm -rf / #' \" \\",
    "of markup": "<script>alert(1)</script> */ ]]> --> **x** | y",
    "of yaml": "a: [b\n- c: &d *e\nFROM evil\nRUN evil\n",
    "of a path": "../../../escaped",
    "of no letters": "模型 🎉 \u202e\u200b",
    "very long": "n" * 3000,
}


def fifo(top: Path) -> None:
    os.mkfifo(top / "pipe")


REFUSED: dict[str, Callable[[Path], object]] = {
    "a link to a file": lambda top: (top / "x").symlink_to("/etc/passwd"),
    "a link that loops": lambda top: (top / "loop").symlink_to("."),
    "a link to a folder": lambda top: (top / "etc").symlink_to("/etc"),
    "a link to nothing": lambda top: (top / "gone").symlink_to("/no/such/file"),
    "a pipe": fifo,
    "a newline": lambda top: (top / "a\nb.txt").write_text("x"),
    "a way up": lambda top: (top / "..\\..\\escaped").write_text("x"),
    "a drive": lambda top: (top / "C:escaped").write_text("x"),
    "no text": lambda top: Path(os.fsdecode(os.fsencode(top) + b"/\xff\xfe")).write_text("x"),
}
"""What MLflow would not write, and somebody else may have: each is exit code 2."""


@pytest.mark.parametrize("what", REFUSED)
def test_files_that_are_no_plain_files_are_refused_before_anything_is_made(what: str, run: Run, tmp_path: Path) -> None:
    top = by_hand(tmp_path / "made", b"never loaded").model_dir
    REFUSED[what](top)
    for target in ("docker", "lambda"):
        done = run("package", top, "--target", target, "--json")
        assert done.code == 2, done.out + done.err
        assert "\n" not in done.json["error"]["message"]
        assert "Traceback" not in done.err
    assert [
        path for path in tmp_path.rglob("*") if path.is_file() and "escaped" in path.name and top != path.parent
    ] == []
    assert not list(tmp_path.glob("dist/**/*.*"))


def hostile(top: Path) -> set[str]:
    """Put files with strange but possible names into a model; return their names."""
    names = {
        *(f"many/{number}" for number in range(10_000)), "größe 模型 🎉 \u202e.txt", "x" * 240, "Readme", "README",
        *(name for key, name in NAMES.items() if key in ("of a template", "of markup")), "-rf", "modelrel-origin.json",
        "manifest.json", "requirements.lock", "sbom.cdx.json", "model/MLmodel", "/".join(["deep" * 20] * 20),
    }  # fmt: skip
    names = {name.replace("</", "<").replace(" */", " *") for name in names}
    for name in names:
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    return names


def test_strange_names_and_ten_thousand_files_travel_as_they_are(run: Run, tmp_path: Path) -> None:
    by_hand(tmp_path / "leads", b"never loaded").model_dir.rename(tmp_path / "model")
    (tmp_path / "leads").rmdir()
    names = hostile((tmp_path / "model").rename(tmp_path / "leads"))
    done = run("pull", tmp_path / "leads", "--json")
    assert done.code == 0, done.out + done.err
    (source,) = Path("dist").glob("*/source")
    found = {path.relative_to(source).as_posix() for path in archive.walk(source)}
    assert names < found
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("leads", "dist")] == []


def texts(top: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every file below, and those inside of archives, by name."""
    for path in archive.walk(top):
        yield path.name, path.read_bytes()
        if path.suffix in (".zip", ".aar"):
            with zipfile.ZipFile(path) as packed:
                yield from ((name, packed.read(name)) for name in packed.namelist() if name.count("/") < 2)
        elif path.suffix == ".tgz":
            with tarfile.open(path) as tar:
                for entry in tar:
                    stream = tar.extractfile(entry)
                    yield entry.name, stream.read() if stream else b""


@pytest.mark.parametrize(
    ("target", "name"),
    [(target, name) for target in sorted(TARGETS) for name in (["all"] if target in HEAVY else [*NAMES, "all"])],
)
def test_a_name_is_a_name_in_whatever_is_written(target: str, name: str, tmp_path: Path) -> None:
    said = NAMES.get(name, " ".join(NAMES.values()))
    parity = tiny.fitting(target, tmp_path / "release")
    source = replace(
        parity.source, name=said, version="7", run_id=said, git_commit=said, experiment=said,
        tags={"mlflow.source.git.repoURL": said, said: said}, metrics={said: 1.0}, params={said: said},
        datasets=(Dataset(name=said, digest=said, context=said),),
    )  # fmt: skip
    parity = replace(parity, converted=replace(parity.converted, source=source, estimator=said[:100]))
    try:
        found = package(parity, target, tiny.plain(target))
    except ModelrelError as error:
        assert error.exit_code in (2, 4), error.message  # noqa: PT017
        return
    top = tmp_path / "release" / parity.converted.format / target
    assert [path for path in tmp_path.rglob("escaped") if top not in path.parents] == []
    assert [path.name for path in tmp_path.iterdir()] == ["release"]
    assert not records.changed(found, found.folder)
    seen = 0
    for file, content in texts(top):
        assert b"49 " not in content or not file.endswith((".md", ".yaml", ".json", "Dockerfile"))
        if file.endswith(".json"):
            json.loads(content)
        elif file.endswith((".yaml", ".yml")) and not target.startswith("lambda"):  # CloudFormation has tags of its own
            assert list(yaml.safe_load_all(content))
        elif file == "Dockerfile":
            words = re.sub(r"\\\n", " ", content.decode()).splitlines()
            known = {"FROM", "ENV", "COPY", "LABEL", "WORKDIR", "STOPSIGNAL", "ENTRYPOINT"}
            known |= {"CMD"} if target == "lambda-image" else {"USER", "EXPOSE", "HEALTHCHECK"}
            assert {line.split()[0] for line in words if line.strip() and not line.startswith("#")} == known
            assert "evil" not in {line.split()[-1] for line in words if line.startswith(("RUN", "FROM"))}
        seen += 1
    assert seen
