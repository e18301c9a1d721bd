"""The second half of a release's values: what is made of a proven copy, until a registry points to it.

`values.ParityReport` -> `Package` -> `SmokeReport` -> `Promotion`; the rules are those of `values`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from modelrel.promoted import Event, Kind, Verdict
from modelrel.values import ConvertedModel, File, PackageOptions, ParityReport, digest, digest_files


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer of an image: what is in it, the digest of its blob, that of the tar inside (both `sha256:...`), bytes."""

    name: str
    digest: str
    diff_id: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A built container image: its tags, its config digest (`sha256:...`) and its size in bytes.

    `added` is what it adds to its base image, in bytes. Of an image that modelrel wrote itself, `at` is the archive
    that holds it (relative to the release folder), `manifest` the digest of its manifest (or index, where it is for
    several platforms) and `layers` are those that were added; an engine that built one knows these for itself.
    """

    tags: tuple[str, ...]
    id: str
    size: int
    added: int
    base: str
    at: str = ""
    manifest: str = ""
    layers: tuple[Layer, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A delivery for one target: every file with its digest, and the image where an engine built one.

    `options`, `own_templates` (digest of the user's, "" where there were none), `source_date_epoch` (as it was set) and
    `deploys` (the target whose image it deploys) are what making it again takes; no path of this machine is kept.
    `variants` are the proofs of the smaller (or more exact) copies that travel beside the model. `tools` is what else
    decided the bytes: versions, and digests of the templates and the server.
    """

    parity: ParityReport
    target: str
    platform: str
    python: str
    files: tuple[File, ...]
    artifact: str
    size: int
    parts: Mapping[str, int] = field(default_factory=dict)
    image: Image | None = None
    notes: tuple[str, ...] = ()
    options: PackageOptions = field(default_factory=PackageOptions)
    own_templates: str = ""
    source_date_epoch: str = ""
    deploys: str = ""
    variants: tuple[ParityReport, ...] = ()
    tools: Mapping[str, str] = field(default_factory=dict)

    @property
    def converted(self) -> ConvertedModel:
        """The model inside."""
        return self.parity.converted

    @property
    def folder(self) -> Path:
        """The release folder."""
        return self.converted.folder

    @property
    def home(self) -> Path:
        """Where it lies with its records and its evidence: `<release>/<format>/<target>`."""
        return self.folder / self.converted.format / self.target

    @property
    def digest(self) -> str:
        """One sha256 over every packaged file (and the image, where there is one)."""
        return digest([digest_files(self.files), self.image.id if self.image else ""])


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing a smoke test saw: what was sent, and what came back."""

    name: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SmokeReport:
    """The built artifact, started as its platform would start it, answered rightly.

    `runner` says how it was started: `image`, `process`, `awslambdaric`, or `awslambdaric in the engine`.
    """

    package: Package
    runner: str
    checks: tuple[Check, ...]
    rows: int
    max_abs_error: float
    first_answer_s: float
    p50_ms: float
    p99_ms: float
    memory_bytes: int

    @property
    def package_digest(self) -> str:
        """What was smoked."""
        return self.package.digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What was built, in a registry of images: under which name, and what had to be sent.

    `digest` is that of the manifest (or index) there. `sent`, `mounted` and `there` count blobs: uploaded, taken over
    from another repository, found; `sent_bytes` is what went over the wire. `evidence` are the digests of the
    manifests with signed statements that refer to it.
    """

    package: Package
    name: str
    digest: str
    media_type: str
    sent: int
    mounted: int
    there: int
    sent_bytes: int
    seconds: float
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Attestation:
    """Evidence about a package for others to check: statements that name its bytes, signed where a key was given.

    `files` are the statements, beside the package. `key` is the sha256 (hex) of the public key that verifies them, ""
    where they are not signed. `at` is when they were made, ISO 8601 in UTC.
    """

    smoke: SmokeReport
    files: tuple[File, ...]
    key: str
    at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """A registry alias (or stage) that was moved to this version, on the evidence of the smoke reports.

    `entry` is the id of its line in the model's history, "" where nothing was written.
    """

    smokes: tuple[SmokeReport, ...]
    registry: str
    name: str
    version: str
    kind: Kind
    to: str
    previous: str
    by: str
    at: str
    verdict: Verdict
    message: str = ""
    event: Event = "promoted"
    entry: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
