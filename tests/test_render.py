"""Templates: the tree is the tree that comes out, a user's own win, and what is wrong with one is one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelrel import __version__, render
from modelrel.errors import Invalid
from modelrel.targets import TARGETS
from modelrel.values import ParityReport
from tests.targets import tiny

KINDS = sorted(TARGETS)


def variables(kind: str, tmp_path: Path) -> dict[str, object]:
    parity = tiny.fitting(kind, tmp_path / "release")
    options = TARGETS[kind].options(tiny.plain(kind))
    return {**TARGETS[kind].variables(parity, options), "parity": parity}


def masked(text: str, parity: ParityReport) -> str:
    """Return the text without what a library's version decides."""
    for known, name in ((parity.converted.file.sha256, "MODEL"), (f'"{__version__}"', '"VERSION"')):
        text = text.replace(known, name)
    if parity.converted.format == "onnx":
        return text
    return text.replace(f"{parity.converted.file.size:,} bytes", "SIZE bytes").replace(
        f"{parity.rows:,} rows", "ROWS rows"
    )


def rendered(kind: str, tmp_path: Path, user: Path | None = None) -> Path:
    into = tmp_path / "out"
    render.render(kind, into, variables(kind, tmp_path), user)
    return into


def own(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / "own" / name
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    return tmp_path / "own"


@pytest.mark.parametrize("kind", KINDS)
def test_the_rendered_tree_is_the_template_tree(kind: str, tmp_path: Path) -> None:
    into = rendered(kind, tmp_path)
    expected = {name.removesuffix(".j2") for name in render.names(render.templates_dir() / kind)}
    assert {path.relative_to(into).as_posix() for path in into.rglob("*") if path.is_file()} == expected


@pytest.mark.parametrize("kind", KINDS)
def test_our_templates_render_to_the_golden_tree(
    kind: str, tmp_path: Path, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1777777777")
    into = rendered(kind, tmp_path)
    golden = Path(__file__).parent / "targets" / "golden" / kind
    for path in sorted(path for path in into.rglob("*") if path.is_file()):
        kept = golden / f"{path.relative_to(into)}.golden"
        text = masked(path.read_text(), tiny.fitting(kind, tmp_path / path.name))
        if pytestconfig.getoption("--golden"):
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(text)
        assert text == kept.read_text(), f"{kept} differs; rewrite it with --golden and read the diff"


def test_a_user_can_replace_one_block_of_ours(tmp_path: Path) -> None:
    user = own(
        tmp_path,
        "docker/Dockerfile.j2",
        '{% extends "builtin/docker/Dockerfile.j2" %}{% block system %}\nENV TEAM=growth\n{% endblock %}\n',
    )
    text = (rendered("docker", tmp_path, user) / "Dockerfile").read_text()
    assert "ENV TEAM=growth\n" in text
    assert "ENTRYPOINT" in text


def test_a_user_template_takes_the_place_of_ours(tmp_path: Path) -> None:
    user = own(tmp_path, "docker/Dockerfile.j2", "FROM scratch\nCOPY model/ /{{ image.name }}/\n")
    assert (rendered("docker", tmp_path, user) / "Dockerfile").read_text() == "FROM scratch\nCOPY model/ /churn/\n"


def test_a_template_that_only_the_user_has_is_rendered_too(tmp_path: Path) -> None:
    user = own(tmp_path, "docker/deploy/compose.yaml.j2", "image: {{ image.name }}:{{ image.version }}\n")
    assert (rendered("docker", tmp_path, user) / "deploy" / "compose.yaml").read_text() == "image: churn:7\n"


def test_an_undefined_variable_is_named_with_its_template(tmp_path: Path) -> None:
    user = own(tmp_path, "docker/Dockerfile.j2", "FROM {{ imagee.base }}\n")
    with pytest.raises(Invalid, match=r"docker/Dockerfile\.j2 .*'imagee' is undefined"):
        rendered("docker", tmp_path, user)


def test_an_undefined_field_is_named_with_its_template(tmp_path: Path) -> None:
    user = own(tmp_path, "docker/Dockerfile.j2", "FROM {{ image.bas }}\n")
    with pytest.raises(Invalid, match=r"docker/Dockerfile\.j2 .*has no attribute 'bas'"):
        rendered("docker", tmp_path, user)


def test_a_syntax_error_is_named_with_its_line(tmp_path: Path) -> None:
    user = own(tmp_path, "docker/Dockerfile.j2", "FROM x\n{% if %}\n")
    with pytest.raises(Invalid, match="line 2"):
        rendered("docker", tmp_path, user)


def test_extending_what_is_not_there_is_said(tmp_path: Path) -> None:
    user = own(tmp_path, "docker/Dockerfile.j2", '{% extends "builtin/docker/Dockerfil.j2" %}\n')
    with pytest.raises(Invalid, match=r"extends builtin/docker/Dockerfil\.j2, which does not exist"):
        rendered("docker", tmp_path, user)


def test_a_template_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="does not exist"):
        rendered("docker", tmp_path, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a\n{{ 1 // 0 }}", r"does not render \(Dockerfile\.j2, line 2\): integer division"),
        ("{% include 'Dockerfile.j2' %}", r"does not render \(.*\): maximum recursion depth"),
        ("\n\n{{ image.bas }}", r"is not defined \(Dockerfile\.j2, line 3\)"),
        ("{{ image | nofilter }}", "not valid at line 1: No filter named 'nofilter'"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ parity.source.folder.joinpath('/etc/passwd').read_text() }}", "unsafe"),
        ("{% include '/etc/passwd' %}", "etc/passwd, which does not exist"),
        ("{% include '../secret' %}", "secret, which does not exist"),
        ("{% include 'builtin/../../secret' %}", "secret, which does not exist"),
        ("{% include 'linked' %}", "a link out of its folder"),
    ],
)
def test_a_template_that_fails_or_reaches_out_is_one_sentence(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hush")
    user = own(tmp_path, "docker/Dockerfile.j2", text)
    (user / "linked").symlink_to("/etc/passwd")
    with pytest.raises(Invalid, match=said):
        rendered("docker", tmp_path, user)


def test_a_template_whose_name_is_mistyped_is_said(tmp_path: Path) -> None:
    user = own(tmp_path, "docker/Dockerfil.j2", "FROM scratch")
    (user / "Dockerfle.j2").write_text("x")
    (user / "README.md.j2").write_text("the name of a template of another target")
    (user / "lamda").mkdir()
    near = " (did you mean Dockerfile.j2?)"
    assert render.strays("docker", user) == (
        "the template Dockerfle.j2 is none of docker, and is used only where another names it" + near,
        "the template docker/Dockerfil.j2 is none of ours, and was rendered beside them" + near,
        "the templates in lamda/ are for no target, and were not used (did you mean lambda?)",
    )
    assert render.strays("docker", None) == ()
