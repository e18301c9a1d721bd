"""Commands about evidence for others: keygen, attest, check-evidence."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelrel.commands.call import Model, call, shared

if TYPE_CHECKING:
    from modelrel.attestation.keys import Signer
    from modelrel.steps.check import Finding

Key = Annotated[
    str | None, typer.Option("--key", metavar="FILE", help="The private key that signs the evidence (PEM, P-256).")
]
Target = Annotated[list[str] | None, typer.Option("--target", "-t", metavar="TARGET", help="As for release.")]
Force = Annotated[bool, typer.Option("--force", help="Smoke-test again, so that the evidence is of now.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(shared(keygen))
    app.command()(shared(attest))
    app.command("check-evidence")(shared(check_evidence))


def signer(given: str | None) -> Signer | None:
    """Return what signs evidence: by the option, `MODELREL_KEY` or the settings; None where nobody signs."""
    chosen = call().settings.pick("release", "key", given, "")
    if not chosen:
        return None
    from modelrel.attestation import keys

    return keys.signer(chosen, os.environ.get(keys.PASSWORD, ""))


def keygen(
    out: Annotated[
        Path, typer.Option("--out", metavar="PREFIX", help="Where: PREFIX.key (yours alone) and PREFIX.pub.")
    ] = Path("modelrel"),
) -> None:
    """Make a key pair that signs evidence; the private key is encrypted where MODELREL_KEY_PASSWORD is set."""
    from modelrel.attestation import keys

    password = os.environ.get(keys.PASSWORD, "")
    private, public = keys.generate(out, password)
    found = keys.public(str(public))
    how = "encrypted" if password else f"not encrypted: set {keys.PASSWORD} to have it so"
    call().result(
        {"private": str(private), "public": str(public), "id": found.id, "encrypted": bool(password)},
        f"{private} is yours alone ({how})",
        f"{public} is for everybody who checks; its id is {found.id}",
    )


def attest(model: Model, target: Target = None, key: Key = None, force: Force = False) -> None:
    """State for others what is proven of packages, and sign it: provenance, parity, smoke test, bill of materials."""
    from modelrel.commands import deliver
    from modelrel.commands import model as about_model
    from modelrel.show import as_json, table

    who, asked = signer(key), deliver.targets(target)
    options = deliver.options_of(asked, "smoke attest" if force else "", {"package": {}})
    with call().release(model, options) as release:
        done = [release.attested(release.smoked(name, as_packaged=True), who) for name in asked]
        release.summary()
        rows = [(file.path, file.sha256, f"{file.size:,}") for one in done for file in one.files]
        call().result(
            {"attestations": [{**as_json(one), "target": one.smoke.package.target} for one in done],
             "stages": about_model.results(release)},
            table(str(release.folder), ("evidence", "sha256", "size"), rows),
            *(_vouched(one.key, one.at) for one in done[:1]),
        )  # fmt: skip


def _vouched(key: str, at: str) -> str:
    if key:
        return f"signed by key {key}; the tests were passed at {at}"
    return f"not signed: nobody vouches for it (give --key); the tests were passed at {at}"


def check_evidence(
    package: Annotated[
        Path, typer.Argument(metavar="PACKAGE", help="The folder of a target, of a release, or an artifact alone.")
    ],
    public_key: Annotated[
        list[str] | None, typer.Option("--public-key", metavar="FILE", help="Who may have signed; repeat it.")
    ] = None,
    evidence: Annotated[
        Path | None, typer.Option("--evidence", metavar="DIR", help="The evidence of an artifact that came alone.")
    ] = None,
    max_age: Annotated[
        str | None, typer.Option("--max-age", metavar="AGE", help="Refuse what is older: 14d, 12h.")
    ] = None,
) -> None:  # fmt: skip
    """Check a package against its evidence, with nothing else than files."""
    from datetime import UTC, datetime

    from modelrel import quantities
    from modelrel.attestation import keys
    from modelrel.errors import Invalid
    from modelrel.steps import check

    trust = check.Trust(
        keys=tuple(keys.public(name) for name in public_key or ()),
        max_age_s=quantities.span(max_age, "--max-age") if max_age else 0.0,
        now=datetime.now(UTC),
    )
    if not package.exists():
        raise Invalid(f"{package} is not there", "Name the folder of a target: dist/churn-7/onnx/docker.")
    if package.is_file():
        found = {package: check.artifact(package, evidence or package.parent / "evidence", trust)}
    else:
        folders = check.evidence_of(package)
        if evidence or not folders:
            raise Invalid(
                f"{package} has no folder evidence"
                if not evidence
                else "--evidence is for an artifact that came alone",
                "Name the folder of a target: dist/churn-7/onnx/docker; modelrel attest makes its evidence.",
            )
        found = {top: check.package(top, trust) for top in folders}
    _told(found, signed=bool(trust.keys))


def _told(found: dict[Path, tuple[Finding, ...]], *, signed: bool) -> None:
    from rich.text import Text

    from modelrel.errors import Refused
    from modelrel.show import table
    from modelrel.steps import check

    colours = {"ok": "green", "wrong": "red", "not checked": "yellow"}
    shown: list[Any] = [
        table(str(top), ("what", "result", "seen"),
              [(one.what, Text(one.outcome, colours[one.outcome]), one.detail) for one in findings])
        for top, findings in found.items()
    ]  # fmt: skip
    wrong = [one for findings in found.values() for one in check.wrong(findings)]
    said = "the bytes are as stated; " if not wrong else ""
    if not signed:
        shown.append(f"{said}nobody vouches for them: give --public-key to know who stated it")
    value = {
        "packages": [
            {"package": str(top), "findings": [{"what": one.what, "result": one.outcome, "seen": one.detail}
                                               for one in findings]}
            for top, findings in found.items()
        ],
        "holds": not wrong, "signed": signed and not wrong,
    }  # fmt: skip
    if wrong:
        if not call().json:
            call().result(value, *shown)
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        refusal = Refused(f"{wrong[0].what}: {wrong[0].detail}{more}", "Do not use it; ask whoever made it.")
        refusal.evidence = value
        raise refusal
    call().result(value, *shown)
