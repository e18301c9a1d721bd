"""`check`, `schema`, `approve`, and a policy at work on a real registry."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from modelrel.commands.checked import lines
from modelrel.commands.settings import TABLE
from tests.conftest import Run

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
FINE = """
[release]
target = ["docker"]
promote = "champion"

[policy]
ladder = ["candidate", "champion"]

[policy.champion]
from = ["candidate"]
smoke = ["docker"]
"""


def test_a_valid_file_ends_with_0(run: Run, tmp_path: Path) -> None:
    (tmp_path / "modelrel.toml").write_text(FINE)
    done = run("check", "--json")
    assert (done.code, done.json["findings"]) == (0, [])
    (tmp_path / "other.toml").write_text("")
    assert run("check", "other.toml").code == 0


WRONG = {
    "no TOML": ("[policy]\nladder = [\n", 2),
    "not closed": ('[policy]\nladder = "a\n', 2),
    "no section": ("\n[relaese]\n", 2),
    "no setting": ('[release]\nregistry = "x"\ndits = "y"\n', 3),
    "another type": ('[release]\n\nopset = "many"\n', 3),
    "no target": ('[release]\ntarget = [\n  "docker",\n  "dokcer",\n]\n', 2),
    "no key": ("[policy.champion]\nmin_row = 1\n", 2),
    "no size": ('[policy]\nladder = ["champion"]\nchampion.max_size = "3 parsecs"\n', 3),
    "no span": ('[policy.champion]\n# a comment = 1\nmax_age = "soon"\n', 3),
    "no rung": ("[policy]\nleader = 1\n", 2),
    "no table": ("policy = 1\n", 1),
    "no metric": ("[policy.champion]\nmetrics = { f1 = { margn = 1 } }\n", 2),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_ends_with_2_and_names_the_line(name: str, run: Run, tmp_path: Path) -> None:
    text, line = WRONG[name]
    (tmp_path / "modelrel.toml").write_text(text)
    done = run("check", "--json")
    assert done.code == 2
    (found,) = done.json["error"]["evidence"]["findings"]
    assert (found["line"], found["wrong"]) == (line, True)
    assert f"line {line}: " in done.json["error"]["message"]


def test_a_file_that_cannot_be_read_ends_with_2(run: Run, tmp_path: Path) -> None:
    assert run("check").code == 2
    (tmp_path / "modelrel.toml").write_bytes(b"[policy]\n# gr\xfc\xdfe\n")
    assert "UTF-8" in run("check").err


def test_a_policy_that_nobody_can_meet_ends_with_4(run: Run, tmp_path: Path) -> None:
    (tmp_path / "modelrel.toml").write_text(FINE.replace('"champion"\n\n', '"chmpion"\n\n', 1))
    done = run("check")
    assert done.code == 4
    assert "line 4: [release] promotes to 'chmpion'" in done.err
    assert "modelrel.toml:4" in done.out


def test_a_key_that_is_not_there_or_is_none_ends_with_4(run: Run, tmp_path: Path) -> None:
    (tmp_path / "modelrel.toml").write_text('[policy]\npublic_keys = ["release.pub"]\n[policy.a]\nsigned = true\n')
    assert run("check").code == 4
    (tmp_path / "release.pub").write_text("no key")
    assert "release.pub is no public key in PEM" in run("check").err
    (tmp_path / "release.pub").write_text(public_key())
    assert run("check").code == 0


def public_key() -> str:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def test_everything_is_found_at_once_in_the_order_of_the_file(run: Run, tmp_path: Path) -> None:
    text = '[release]\ndits = "x"\n[policy]\nladder = ["a", "a"]\n[policy.a]\nsmoke = ["dokcer"]\nmin_rows = -1\n'
    (tmp_path / "modelrel.toml").write_text(text)
    done = run("check", "--json")
    assert done.code == 2
    found = done.json["error"]["evidence"]["findings"]
    assert [(one["line"], one["wrong"]) for one in found] == [(2, True), (4, False), (6, False), (7, True)]


def test_lines_of_keys_are_found_however_they_are_written() -> None:
    text = (
        '"a b" = 1\n[x]\ny = """\n[not.this]\nz = 1\n"""\n\'q.r\' = [\n  "]", # ]\n  1,\n]\n[x.w]\nu.v = { t = 1 }\n'
        "s = '''\n'''\np = 2\n"
    )
    assert tomllib.loads(text)
    assert lines(text) == {
        ("a b",): 1, ("x",): 2, ("x", "y"): 3, ("x", "q.r"): 7, ("x", "w"): 11, ("x", "w", "u"): 12,
        ("x", "w", "u", "v"): 12, ("x", "w", "s"): 13, ("x", "w", "p"): 15,
    }  # fmt: skip


def schema(run: Run) -> dict[str, Any]:
    done = run("schema")
    assert done.code == 0
    found: dict[str, Any] = done.json
    return found


def test_the_schema_is_one_and_describes_every_key(run: Run) -> None:
    found = schema(run)
    jsonschema.Draft202012Validator.check_schema(found)
    assert set(found["properties"]) == {*TABLE, "policy"}
    for section, keys in TABLE.items():
        assert set(found["properties"][section]["properties"]) == set(keys)
        for key in keys:
            said = found["properties"][section]["properties"][key]["description"]
            assert not said.startswith("Environment:"), (section, key)


def test_the_schema_takes_the_example_of_readme_and_refuses_what_check_refuses(run: Run) -> None:
    checker = jsonschema.Draft202012Validator(schema(run))
    example = README.split("## Configuration")[1].split("```toml\n")[1].split("```")[0]
    checker.validate(tomllib.loads(example))
    checker.validate(tomllib.loads(FINE))
    for name, (text, _) in WRONG.items():
        if name not in ("no TOML", "not closed", "no target"):
            assert not checker.is_valid(tomllib.loads(text)), name


def test_the_settings_in_the_folder_do_not_matter_to_the_schema(run: Run, tmp_path: Path) -> None:
    (tmp_path / "modelrel.toml").write_text("[relaese]\n")
    assert schema(run)["title"] == "modelrel.toml"


POLICY = """
[policy]
ladder = ["candidate", "champion"]

[policy.champion]
min_rows = 1000
pickle = "safe"
signature = "compatible"
metrics = { accuracy = 0.0001 }
approvals = 1
"""


def test_a_version_is_promoted_once_every_rule_is_met(
    run: Run, own_registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "modelrel.toml").write_text(POLICY)
    monkeypatch.setenv("MODELREL_REGISTRY", own_registry)
    monkeypatch.setenv("MODELREL_USER", "ada@example.org")

    def rules(version: int) -> dict[str, str]:
        done = run("promote", f"flowers/{version}", "--to", "champion", "--dry-run", "--json")
        verdict = done.json["promotion"]["verdict"] if done.code == 0 else done.json["error"]["evidence"]
        assert done.code == (4 if any(rule["outcome"] != "passed" for rule in verdict["rules"]) else 0)
        return {rule["name"]: rule["outcome"] for rule in verdict["rules"]}

    for version in (2, 1):
        assert run("smoke", f"flowers/{version}", "--target", "docker", "--render-only").code == 0
    first = rules(2)
    assert {name for name, outcome in first.items() if outcome != "passed"} == {"approvals"}
    refused = run("promote", "flowers/2", "--to", "champion", "--dry-run")
    assert (refused.code, "approvals" in refused.out, "would move" in refused.out) == (4, True, True)
    assert run("promote", "flowers/2", "--to", "champion").code == 4
    approved = run("approve", "flowers/2", "-m", "looked at it", "--json")
    assert (approved.code, approved.json["approval"]["by"]) == (0, "ada@example.org")
    assert set(rules(2).values()) == {"passed"}
    assert run("promote", "flowers/2", "--to", "champion").code == 0
    # version 1 is worse, holds nothing, and nobody approved of it
    wrong = {name for name, outcome in rules(1).items() if outcome != "passed"}
    assert wrong == {"from", "metrics.accuracy", "approvals"}
    done = run("promote", "flowers/1", "--to", "champion", "--json")
    assert done.code == 4
    assert all(f"{name}: " in done.json["error"]["message"] for name in wrong)
    assert json.dumps(done.json["error"]["evidence"]).count('"outcome"') == len(rules(1))
