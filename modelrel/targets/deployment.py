"""How a Lambda function is to be deployed: the settings that a SAM template is made from, within Lambda's limits.

Limits: AWS Lambda developer guide, "Lambda quotas" and "Improving startup performance with Lambda SnapStart".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from modelrel.errors import Invalid

VALUES: Final[Mapping[str, str]] = {
    "memory": "MB of memory, 256 to 10240; 1769 is one whole processor (1769)",
    "timeout": "seconds that an answer may take, 1 to 900; API Gateway waits 29 (29)",
    "snapstart": "yes: start from a snapshot of the loaded model (no)",
    "provisioned": "how many environments are kept warm, 0 for none (0)",
    "auth": "who may call: iam, signed requests; none, everybody (iam)",
    "api": "API Gateway beside the function URL: http, rest, or none (http)",
    "slim": "no: keep the parts of the wheels that answering does not need (yes)",
}

_YES: Final = {"yes": True, "true": True, "on": True, "1": True, "no": False, "false": False, "off": False, "0": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """The settings; templates find them in `function`."""

    memory_mb: int = 1769
    timeout_s: int = 29
    snapstart: bool = False
    provisioned: int = 0
    auth: str = "iam"
    api: str = "http"

    @property
    def published(self) -> bool:
        """Whether callers go to an alias of a published version: snapshots and warm environments are made of these."""
        return self.snapstart or self.provisioned > 0

    @property
    def auth_type(self) -> str:
        """Lambda's name for who may call its URL."""
        return "NONE" if self.auth == "none" else "AWS_IAM"


def deployment(values: Mapping[str, str]) -> Deployment:
    """Return the settings of `--set NAME=VALUE`; raises `Invalid` for what Lambda does not take."""
    found = Deployment(
        memory_mb=_number(values, "memory", 1769, range(256, 10241)),
        timeout_s=_number(values, "timeout", 29, range(1, 901)),
        snapstart=flag(values, "snapstart", default=False),
        provisioned=_number(values, "provisioned", 0, range(10001)),
        auth=_word(values, "auth", ("iam", "none")),
        api=_word(values, "api", ("http", "rest", "none")),
    )
    if found.snapstart and found.provisioned:
        raise Invalid(
            "a function has either snapstart=yes or provisioned environments, Lambda takes no two of them",
            "Leave one of the two out.",
        )
    flag(values, "slim", default=True)
    return found


def flag(values: Mapping[str, str], name: str, *, default: bool) -> bool:
    """Return a setting that is yes or no; raises `Invalid`."""
    said = values.get(name, "").lower()
    if said and said not in _YES:
        raise Invalid(f"--set {name}={values[name]} is neither yes nor no", f"It sets {VALUES[name]}.")
    return _YES.get(said, default)


def _number(values: Mapping[str, str], name: str, default: int, allowed: range) -> int:
    said = values.get(name, str(default))
    if not (said.isascii() and said.isdigit() and int(said[:9]) in allowed):
        raise Invalid(
            f"--set {name}={said} is no whole number from {allowed[0]} to {allowed[-1]}", f"It sets {VALUES[name]}."
        )
    return int(said)


def _word(values: Mapping[str, str], name: str, known: tuple[str, ...]) -> str:
    said = values.get(name, known[0])
    if said not in known:
        raise Invalid(f"--set {name}={said} is none of {', '.join(known)}", f"It sets {VALUES[name]}.")
    return said
