"""What a policy asks, and the facts that it is held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from modelrel.delivered import Attestation, SmokeReport
from modelrel.pickles import Finding as Pickled
from modelrel.promoted import Change
from modelrel.values import Signature, digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What is asked of a metric: at most `margin` worse than the holder's, and within absolute bounds."""

    better: Literal["higher", "lower"]
    margin: float | None = None
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """What one alias (or stage) asks of a version; README has the keys of `[policy.NAME]`. None asks for nothing.

    Sizes are in bytes, spans in seconds, by target; the target "" stands for all.
    """

    holds: tuple[str, ...] | None = None
    smoke: tuple[str, ...] = ()
    max_abs_error: float | None = None
    max_disagreements: int | None = None
    min_rows: int | None = None
    max_size: Mapping[str, int] = field(default_factory=dict)
    p99_ms: Mapping[str, float] = field(default_factory=dict)
    pickle: Literal["none", "safe", "unknown", ""] = ""
    signature: Literal["compatible", "same", ""] = ""
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    max_age: float | None = None
    signed: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)
    approvals: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A team's rules: the ladder of aliases, lowest first, and what each rung asks; without any, ours alone hold.

    `public_keys` are the files of the keys that may sign evidence, as the user wrote them.
    """

    ladder: tuple[str, ...] = ()
    public_keys: tuple[str, ...] = ()
    rungs: Mapping[str, Rung] = field(default_factory=dict)

    def rung(self, change: Change) -> Rung:
        """Return what the alias (or stage) asks; stages are found however they are written, as MLflow does."""
        if change.kind == "stage":
            return {name.lower(): rung for name, rung in self.rungs.items()}.get(change.to.lower(), Rung())
        return self.rungs.get(change.to, Rung())

    @property
    def sha256(self) -> str:
        """The sha256 (hex) of what is asked, "" where nothing is."""
        return "" if self == Policy() else digest(asdict(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The version that holds the alias now, as far as a new one is compared with it.

    `gone` says why it cannot be looked at ("" where it can); `problem` why its signature cannot.
    """

    version: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    signature: Signature | None = None
    problem: str = ""
    gone: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """That somebody approved of a version; `source` is the sha256 of the model's files that it was about."""

    by: str
    at: str
    source: str
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a policy is judged on.

    `attestations` are verified ones: about the bytes on disk, their signatures checked; `trusted` the ids of the
    policy's public keys (sha256, hex, of the DER SubjectPublicKeyInfo). `holds` are the aliases (and the stage) that
    the version has now, `metrics`, `tags`, `approvals` and `author` what the registry says of it. `pickles` is what
    loading the pulled files would run, None where nobody looked. `now` is ISO 8601 in UTC.
    """

    smokes: tuple[SmokeReport, ...]
    attestations: tuple[Attestation, ...] = ()
    trusted: frozenset[str] = frozenset()
    holder: Holder | None = None
    holds: frozenset[str] = frozenset()
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    approvals: tuple[Approval, ...] = ()
    author: str = ""
    pickles: tuple[Pickled, ...] | None = None
    now: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What is wrong in the file of settings, and where: the path of keys (`policy`, `champion`, `smoke`).

    `wrong` is False for what is well written and can never be met, or contradicts itself.
    """

    path: tuple[str, ...]
    message: str
    hint: str = ""
    wrong: bool = True
    line: int = 0
