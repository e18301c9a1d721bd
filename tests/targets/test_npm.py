"""The npm package: what is in the tarball, and that Node and a browser answer as the model that was verified."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelrel import archive
from modelrel.delivered import Package
from modelrel.errors import Invalid, Refused, Unavailable
from modelrel.steps.package import checked, package
from modelrel.steps.smoke import smoke
from modelrel.targets import npm
from modelrel.targets.npm import naming, runtime, tarball
from modelrel.values import Interface, PackageOptions, TensorSpec
from tests.serving import browser
from tests.targets import handmade, javascript, tiny

FILES = {
    "README.md", "example/golden.mjs", "example/index.html", "golden.json", "index.d.ts", "index.mjs", "model.onnx",
    "modelrel.json", "package.json", "sbom.cdx.json",
}  # fmt: skip


@pytest.fixture(scope="module")
def delivered() -> Package:
    return tiny.delivered("npm")


@pytest.fixture(scope="module")
def bundled() -> Package:
    javascript.node()
    options = PackageOptions(values={"runtime": "bundled", "name": "@acme/churn"})
    return package(tiny.verified(tiny.place() / "npm-bundled"), "npm", options)


@pytest.fixture
def home(delivered: Package, tmp_path: Path) -> Path:
    """Return the folder of the package, as it is in node_modules."""
    return javascript.unpacked(delivered, tmp_path / "app")


def said(home: Path) -> dict[str, Any]:
    return dict(json.loads((home / "package.json").read_text(encoding="utf-8")))


def test_the_tarball_holds_the_model_and_the_module(delivered: Package, tmp_path: Path) -> None:
    assert delivered.artifact == "onnx/npm/churn-7.0.0.tgz"
    assert set(tarball.unpacked(delivered.folder / delivered.artifact, tmp_path / "package")) == FILES
    about = said(tmp_path / "package")
    assert about["dependencies"] == {"onnxruntime-web": runtime.RANGE}
    assert about["license"] == "UNLICENSED"


def test_npm_packs_the_same_files_to_the_very_same_tar(home: Path, delivered: Package, tmp_path: Path) -> None:
    done = javascript.run("npm", "pack", "--pack-destination", tmp_path, at=home)
    assert done.returncode == 0, done.stderr
    ours = (delivered.folder / delivered.artifact).read_bytes()
    theirs = (tmp_path / Path(delivered.artifact).name).read_bytes()
    assert gzip.decompress(ours) == gzip.decompress(theirs)


def test_the_bytes_do_not_depend_on_folder_or_umask(delivered: Package, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        again = package(tiny.verified(tmp_path / "elsewhere"), "npm", PackageOptions())
    finally:
        os.umask(before)
    assert again.files == delivered.files


def test_npm_installs_it_with_its_runtime_and_the_golden_rows_are_right(delivered: Package, tmp_path: Path) -> None:
    app = javascript.installed(delivered, tmp_path / "app")
    done = javascript.run("node", "node_modules/churn/example/golden.mjs", at=app)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("5 golden rows: right")


def test_each_node_at_hand_gives_the_golden_rows_and_names_what_does_not_fit(home: Path) -> None:
    (home.parent.parent / "misfit.mjs").write_text(
        'import { load, Misfit } from "churn";\n'
        "const model = await load();\n"
        "await model.predict([{}]).catch((error) => console.log(error instanceof Misfit, error.message));\n"
    )
    for node in javascript.nodes():
        done = javascript.run(node, "example/golden.mjs", at=home)
        assert (done.returncode, done.stdout[:20]) == (0, "5 golden rows: right"), f"{node}: {done.stderr}"
        done = javascript.run(node, "misfit.mjs", at=home.parent.parent)
        assert done.stdout.startswith("true row 0 lacks the column"), f"{node}: {done.stderr}"


def test_the_script_of_the_package_notices_another_model(home: Path) -> None:
    content = json.loads((home / "golden.json").read_text())
    content["outputs"]["label"][0] = "leaves"
    (home / "golden.json").write_text(json.dumps(content))
    done = javascript.run("node", "example/golden.mjs", at=home)
    assert done.returncode == 1
    assert done.stdout.startswith("WRONG: label")


def test_smoke_asks_it_with_node(delivered: Package) -> None:
    javascript.node()
    report = smoke(delivered)
    assert report.runner.startswith("Node ")
    assert report.runner.endswith(f"onnxruntime-web {runtime.VERSION}")
    assert {"golden rows", "a batch", "an unknown input", "the model inside", "package.json"} <= {
        check.name for check in report.checks
    }


def test_a_package_with_the_runtime_inside_depends_on_nothing(bundled: Package, tmp_path: Path) -> None:
    home = javascript.unpacked(bundled, tmp_path / "app")
    assert bundled.artifact == "onnx/npm/acme-churn-7.0.0.tgz"
    assert "dependencies" not in said(home)
    shutil.copytree(home, tmp_path / "alone")
    done = javascript.run("node", "example/golden.mjs", at=tmp_path / "alone")
    assert done.returncode == 0, done.stderr
    (web,) = [
        one for one in json.loads((home / "sbom.cdx.json").read_bytes())["components"] if one["type"] == "library"
    ]
    assert (web["name"], web["version"], "properties" in web) == ("onnxruntime-web", runtime.VERSION, False)
    assert "Microsoft" in (home / "runtime/LICENSE").read_text()
    assert smoke(bundled).rows


def test_every_datatype_goes_through_with_the_ends_of_its_range(tmp_path: Path) -> None:
    javascript.node()
    report = handmade.echo(tmp_path / "every", *handmade.columns(handmade.EVERY))
    assert smoke(package(report, "npm", PackageOptions())).max_abs_error == 0


def test_names_that_trip_over_are_names_like_others(tmp_path: Path) -> None:
    rows = {name: ("FP32", [1.0, 2.0]) for name in handmade.HOSTILE}
    made = package(handmade.echo(tmp_path / "names", *handmade.columns(rows)), "npm", PackageOptions())
    home = javascript.unpacked(made, tmp_path / "app")
    (tmp_path / "app/use.mts").write_text(
        'import type { Row } from "churn";\n'
        f"const row: Row = {{{', '.join(f'[{json.dumps(name)}]: 1' for name in handmade.HOSTILE)}}};\n"
        f"// @ts-expect-error one is missing\n"
        f"const less: Row = {{{', '.join(f'[{json.dumps(name)}]: 1' for name in handmade.HOSTILE[1:])}}};\n"
        "export { row, less };\n"
    )
    done = javascript.checked(tmp_path / "app", "use.mts")
    assert done.returncode == 0, done.stdout
    assert "\u2028" not in (home / "index.d.ts").read_text()
    assert smoke(made).rows


def test_a_models_name_is_no_code(tmp_path: Path) -> None:
    name = "</title><script>alert(1)</script> */\n`${x}` \u2028"
    made = package(tiny.verified(tmp_path / "name", name=name, version="7; rm"), "npm", PackageOptions())
    assert made.artifact == "onnx/npm/title-script-alert-1-script-x-0.0.0-v7-rm.tgz"
    home = javascript.unpacked(made, tmp_path / "app")
    assert "alert(1)</script>" not in (home / "example/index.html").read_text()
    assert (
        javascript.script(
            'import { name } from "title-script-alert-1-script-x";\nconsole.log(JSON.stringify(name));\n',
            tmp_path / "app",
        )
        == name
    )
    (tmp_path / "app/use.mts").write_text('import { load } from "title-script-alert-1-script-x";\nawait load();\n')
    done = javascript.checked(tmp_path / "app", "use.mts")
    assert done.returncode == 0, done.stdout


def test_several_tensors_and_a_fixed_batch_go_through(tmp_path: Path) -> None:
    javascript.node()
    specs = (
        TensorSpec(name="a", datatype="FP32", shape=(2, 3)),
        TensorSpec(name="b", datatype="INT64", shape=(2,)),
    )
    rows = {"a": [[1, 2, 3], [4, 5, 6]], "b": [1, 2]}
    made = package(handmade.echo(tmp_path / "two", specs, rows, kind="tensor"), "npm", PackageOptions())
    assert "a shape that does not fit" in {check.name for check in smoke(made).checks}


def test_the_interface_renames_and_passes_through(tmp_path: Path) -> None:
    specs, rows = handmade.columns({"x": ("INT64", [1, 2]), "y": ("FP64", [0.5, 1e300])}, "y")
    shown = Interface(outputs={"score": "x out"}, pass_through=("id", "n:INT64"))
    made = package(
        handmade.echo(tmp_path / "shown", specs, rows, classes=(1, 2), interface=shown), "npm", PackageOptions()
    )
    assert smoke(made).max_abs_error == 0
    home = javascript.unpacked(made, tmp_path / "app")
    assert javascript.script(
        'import { load } from "churn";\n'
        "const answers = await (await load()).predict([{ x: 2, id: 'a', n: 5 }]);\n"
        "console.log(JSON.stringify(answers, (_, value) => typeof value === 'bigint' ? `${value}n` : value));\n",
        home.parent.parent,
    ) == {"score": [[2]], "id": [["a"]], "n": [["5n"]]}


# what is given (an expression), which input is named, and words of the sentence
MISFITS = [
    ("[]", None, "there are no rows"),
    ("null", None, "the model takes rows"),
    ("[1]", None, "row 0 is no object"),
    ("[{plan: 'pro', calls: 1}]", "bill", 'row 0 lacks the column "bill"'),
    ("[{plan: 'pro', calls: 1, bill: 2, bil: 3}]", "bil", 'row 0 has the column "bil"'),
    ("[good, {...good, calls: '1'}]", "calls", 'the column "calls" takes numbers, and row 1 has text'),
    ("[{...good, calls: true}]", "calls", "row 0 has true"),
    ("[{...good, calls: 1e39}]", "calls", "takes numbers of FP32"),
    ("[{...good, plan: null}]", "plan", 'the column "plan" takes text, and row 0 has null'),
    ("[{...good, plan: '\\ud800'}]", "plan", "half a surrogate pair"),
    ("{plan: ['pro'], calls: [1, 2], bill: [1]}", "calls", 'the column "calls" has 2 rows, "plan" has 1'),
    ("{plan: ['pro'], calls: 1, bill: [1]}", "calls", 'the column "calls" is no array'),
    ("{plan: ['pro'], calls: [[1]], bill: [1]}", "calls", "row 0 has a list"),
    ("{plan: ['pro'], calls: [1]}", "bill", 'the model needs the column "bill"'),
]


def test_what_does_not_fit_is_named(home: Path) -> None:
    given = ",\n".join(f"() => ({expression})" for expression, _, _ in MISFITS)
    found = javascript.script(
        'import { load, Misfit } from "churn";\n'
        'const good = { plan: "pro", calls: 1, bill: 2 };\n'
        "const model = await load();\n"
        "const told = [];\n"
        f"for (const given of [\n{given}\n]) {{\n"
        "  try { await model.predict(given()); told.push(['no error', null]); }\n"
        "  catch (error) { told.push([error.message, error instanceof Misfit ? error.input ?? null : 'no Misfit']); }\n"
        "}\n"
        "console.log(JSON.stringify(told));\n",
        home.parent.parent,
    )
    assert [named for _, named in found] == [named for _, named, _ in MISFITS]
    for (message, _), (expression, _, words) in zip(found, MISFITS, strict=True):
        assert words in message, expression


def test_rows_columns_and_typed_arrays_are_answered_alike_and_at_the_same_time(home: Path) -> None:
    alone, together, raw = javascript.script(
        'import { load, classes } from "churn";\n'
        "const model = await load();\n"
        "const row = (calls) => ({ plan: 'pro', calls, bill: 20 });\n"
        "const counts = [0, 1, NaN, 5, null, 7];\n"
        "const one = await Promise.all(counts.map(async (calls) => (await model.predict([row(calls)])).label[0]));\n"
        "const columns = { plan: counts.map(() => 'pro'), calls: Float32Array.from(counts, (one) => one ?? NaN),\n"
        "  bill: Float64Array.from(counts, () => 20) };\n"
        "const raw = await model.run(columns);\n"
        "await model.release();\n"
        "console.log(JSON.stringify([one, raw.label.data, [raw.probabilities.shape, classes]]));\n",
        home.parent.parent,
    )
    assert alone == together
    assert set(alone) == {"stays", "leaves"}
    assert raw == [[6, 2], ["stays", "leaves"]]


GOOD = """
import { load, classes, Misfit } from "churn";
import type { Answers, Columns, Label, Model, Row } from "churn";
const model: Model = await load({ threads: 1, model: new Uint8Array(3) });
const row: Row = { plan: "pro", calls: null, bill: 2.5 };
const columns: Columns = { plan: ["pro"], calls: new Float32Array(1), bill: [1, null] };
const answers: Answers = await model.predict([row, row]);
await model.predict(columns);
const label: "stays" | "leaves" = answers.label[0]!;
const chance: number = answers.probabilities[0]![1]!;
const raw: Float32Array = (await model.run([row])).probabilities.data;
const first: "stays" = classes[0];
const error: string | undefined = new Misfit("x").input;
"""
BAD = [
    'const a: Row = { plan: "pro", calls: 1 };',
    "const a: Row = { plan: 3, calls: 1, bill: 2 };",
    'const a: Row = { plan: "pro", calls: "1", bill: 2 };',
    "const a: Row = { plan: null, calls: 1, bill: 2 };",
    'const a: Row = { plan: "pro", calls: 1, bill: 2, bil: 3 };',
    'const a: Columns = { plan: "pro", calls: [1], bill: [1] };',
    "await model.predict(row);",
    "await model.predict([[1, 2, 3]]);",
    'const a: Label = "goes";',
    'const a: "stays" = answers.label[0]!;',
    "const a: number[] = answers.probabilities;",
    "answers.lable;",
    "await load({ thread: 1 });",
    "answers.label = 3;",
]


def test_types_take_what_fits_and_nothing_else(home: Path) -> None:
    app = home.parent.parent
    wrong = "".join(f"{{\n// @ts-expect-error\n{line}\n}}\n" for line in BAD)
    (app / "use.mts").write_text(f"{GOOD}\n{wrong}")
    done = javascript.checked(app, "use.mts")
    assert done.returncode == 0, done.stdout
    (app / "wrong.mts").write_text(f"{GOOD}\n{BAD[0]}")
    assert "Property '\"bill\"' is missing" in javascript.checked(app, "wrong.mts").stdout.replace(
        "'bill'", "'\"bill\"'"
    )


def test_types_of_tensors_are_as_deep_as_their_shapes(tmp_path: Path) -> None:
    specs = (TensorSpec(name="input", datatype="INT64", shape=(-1, 2)),)
    report = handmade.echo(tmp_path / "one", specs, {"input": [[1, 2]]}, kind="tensor")
    app = javascript.unpacked(package(report, "npm", PackageOptions()), tmp_path / "app").parent.parent
    (app / "use.mts").write_text(
        'import { load } from "churn";\n'
        "const model = await load();\n"
        "const found: bigint[][] = (await model.predict([[1, 2n]]))['input out'];\n"
        "await model.predict({ input: { data: new BigInt64Array(2), shape: [1, 2] } });\n"
        "// @ts-expect-error\nawait model.predict([1, 2]);\n"
        "// @ts-expect-error\nawait model.predict({ input: [['1', '2']] });\n"
        "// @ts-expect-error\nconst other: number[][] = found;\n"
        "console.log(JSON.stringify(found.map((row) => row.map(String))));\n"
    )
    done = javascript.checked(app, "use.mts")
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with browser.browser(tmp_path_factory.mktemp("chromium")) as address:
        yield address


@pytest.mark.parametrize("kind", ["delivered", "bundled"])
def test_the_page_answers_in_a_browser_with_nothing_from_elsewhere(
    kind: str, chromium: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    home = javascript.unpacked(request.getfixturevalue(kind), tmp_path / "app")
    root = home if kind == "bundled" else tmp_path / "app"
    with javascript.served(root) as address, browser.tab(chromium) as page:
        page.open(f"{address}/{home.relative_to(root).as_posix()}/example/")
        assert page.run(javascript.GOLDEN).startswith("5 golden rows: right")
        asked = javascript.awaited("answers", "told.textContent")
        answers = json.loads(page.run(f'document.getElementById("ask").click(); {asked}'))
        assert answers["label"] == ["stays", "leaves"]
        page.run('document.getElementById("answers").textContent = ""; document.getElementById("rows").value = "[{}]";')
        told = page.run(f'document.getElementById("ask").click(); {asked}')
        assert told == 'Misfit: row 0 lacks the column "plan"'
        assert {url.split("/")[2] for url in page.requested if url.startswith("http")} == {address.split("/")[2]}


def test_a_model_behind_an_adapter_is_refused_in_one_sentence(tmp_path: Path) -> None:
    report = tiny.verified(tmp_path / "text")
    path = tmp_path / "text/onnx/adapter.json"
    path.write_text("{}")
    changed = replace(report, converted=replace(report.converted, adapter=archive.describe(path, tmp_path / "text")))
    with pytest.raises(Refused, match="an adapter in Python cuts texts in front of this model"):
        package(changed, "npm", PackageOptions())


def test_half_precision_is_refused(tmp_path: Path) -> None:
    report = handmade.echo(tmp_path / "half", *handmade.columns({"x": ("FP16", [1.0])}))
    with pytest.raises(Refused, match="'x' is FP16"):
        package(report, "npm", PackageOptions())


def test_another_model_in_the_tarball_is_refused(delivered: Package, tmp_path: Path) -> None:
    javascript.node()
    folder = Path(shutil.copytree(delivered.folder, tmp_path / "release"))
    path = folder / delivered.artifact
    names = tarball.unpacked(path, tmp_path / "opened")
    with (tmp_path / "opened/model.onnx").open("ab") as stream:
        stream.write(b"\x12\x00")  # producer_name, "": it still loads, and answers the same
    tarball.write(path, {name: tmp_path / "opened" / name for name in names})
    source = replace(delivered.parity.source, folder=folder)
    parity = replace(delivered.parity, converted=replace(delivered.converted, source=source))
    files = tuple(archive.describe(folder / file.path, folder) for file in delivered.files)
    changed = replace(delivered, parity=parity, files=files)
    with pytest.raises(Refused, match="another than the one that was verified"):
        smoke(changed)


@pytest.mark.parametrize("name", ["../up", "package/../../up", "/etc/x"])
def test_a_tarball_with_a_name_outside_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    path = tmp_path / "x.tgz"
    tarball.write(path, {name.removeprefix("package/"): tmp_path / "x"})
    content = gzip.decompress(path.read_bytes())
    assert b"package/" in content
    with pytest.raises((Refused, Invalid)):
        tarball.unpacked(path, tmp_path / "into")
    assert not (tmp_path / "up").exists()


def test_a_template_of_the_users_own_is_packed(tmp_path: Path) -> None:
    own = tmp_path / "own/npm"
    own.mkdir(parents=True)
    (own / "package.json.j2").write_text(
        '{% extends "builtin/npm/package.json.j2" %}{% block about %}{{ super() }}  "author": "Growth",\n{% endblock %}'
    )
    made = package(tiny.verified(tmp_path / "release"), "npm", PackageOptions(templates=tmp_path / "own"))
    tarball.unpacked(made.folder / made.artifact, tmp_path / "opened")
    assert said(tmp_path / "opened")["author"] == "Growth"
    assert said(tmp_path / "opened")["name"] == "churn"


@pytest.mark.parametrize(
    "values",
    [{"name": "Churn"}, {"name": "a/b"}, {"name": "@acme/../x"}, {"name": "fs"}, {"runtime": "cdn"}, {"nam": "x"}],
)
def test_a_setting_that_is_none_is_an_error_of_the_command(values: dict[str, str]) -> None:
    with pytest.raises(Invalid):
        checked("npm", PackageOptions(values=values))


@pytest.mark.parametrize(
    ("given", "version"),
    [("7", "7.0.0"), ("007", "7.0.0"), ("2.1", "2.1.0"), ("1.2.3", "1.2.3"), ("1.2.3-rc.1", "1.2.3-rc.1"),
     ("1.2.3.4", "0.0.0-v1-2-3-4"), ("20260101123456789012", "0.0.0-v20260101123456789012"), ("ab12", "0.0.0-vab12")],
)  # fmt: skip
def test_a_models_version_becomes_a_semantic_one(given: str, version: str) -> None:
    assert naming.version(given, given) == version


def test_without_node_it_says_how_to_get_it(delivered: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Unavailable, match="node is not installed here"):
        smoke(delivered)


def test_without_a_registry_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    javascript.node()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    with pytest.raises(Unavailable, match="no npm registry answers"):
        runtime.modules(print)
    assert not list((tmp_path / "cache/modelrel/npm").glob("[!.]*"))


def test_bytes_of_the_registry_that_are_not_those_locked_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    javascript.node()
    (tmp_path / "package.json").write_text('{"name": "x", "dependencies": {"guid-typescript": "1.0.9"}}')
    lock = json.loads((runtime.PINNED / "package-lock.json").read_text())
    one = lock["packages"]["node_modules/guid-typescript"] | {"integrity": f"sha512-{'A' * 86}=="}
    packages = {"": {"name": "x", "dependencies": {"guid-typescript": "1.0.9"}}, "node_modules/guid-typescript": one}
    (tmp_path / "package-lock.json").write_text(json.dumps(lock | {"name": "x", "packages": packages}))
    monkeypatch.setattr(runtime, "PINNED", tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(Refused, match="other bytes than those locked"):
        runtime.modules(print)


def test_the_lock_names_the_version_and_the_range_has_it() -> None:
    lock = json.loads((runtime.PINNED / "package-lock.json").read_text())
    packages = {name: one for name, one in lock["packages"].items() if name}
    assert packages["node_modules/onnxruntime-web"]["version"] == runtime.VERSION
    assert all(one["integrity"].startswith("sha512-") and "resolved" not in one for one in packages.values())
    assert npm.VALUES.keys() == {"name", "license", "runtime"}
