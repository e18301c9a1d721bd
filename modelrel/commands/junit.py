"""JUnit XML of a release, as GitLab and Jenkins read it: a test case for each stage, and for each rule of the policy.

What a gate refused is a failure; what could not be done at all (a silent registry, a wrong option) is an error. There
is no standard; the elements and attributes are those of Jenkins' schema of JUnit reports, which GitLab reads as well.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal
from xml.etree import ElementTree as ET  # written, never read

from modelrel.errors import Refused

if TYPE_CHECKING:
    from modelrel.commands.outputs import Told
    from modelrel.steps.stages import StageResult

_NO_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What no XML 1.0 document can hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    name: str
    seconds: float = 0.0
    kind: Literal["", "failure", "error"] = ""
    message: str = ""
    text: str = ""


def xml(one: Told) -> bytes:
    """Return the report of a command."""
    suites = [("stages", _stages(one))]
    rules = [
        _Case(
            name=rule.name,
            kind="" if rule.outcome == "passed" else "failure",
            message="" if rule.outcome == "passed" else f"{rule.found}, but wanted is {rule.wanted}",
            text="\n".join(filter(None, (f"wanted: {rule.wanted}", f"found: {rule.found}", rule.hint))),
        )
        for rule in one.rules
    ]
    if rules:
        suites.append(("policy", rules))
    top = ET.Element(
        "testsuites", _counts(f"modelrel {one.command} {one.label}", [case for _, all_ in suites for case in all_])
    )
    for name, cases in suites:
        suite = ET.SubElement(top, "testsuite", _counts(name, cases))
        for case in cases:
            _add(suite, case, f"modelrel.{one.command}.{one.label}.{name}")
    ET.indent(top)
    text: bytes = ET.tostring(top, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _stages(one: Told) -> list[_Case]:
    cases = [_stage(result) for result in one.stages]
    message, hint = one.error
    if one.stop is not None:
        running, seconds = one.running
        last = cases[-1] if cases else None
        if not running and last and last.kind:
            return cases  # the stage itself ended so
        kind: Literal["failure", "error"] = "failure" if isinstance(one.stop, Refused) else "error"
        text = "\n".join(filter(None, (message, hint)))
        cases.append(_Case(name=running or one.command, seconds=seconds, kind=kind, message=message, text=text))
    return cases


def _stage(result: StageResult) -> _Case:
    refused = result.outcome == "would be refused"
    said = f"{result.outcome}: {result.detail}"
    return _Case(
        name=result.stage,
        seconds=result.seconds,
        kind="failure" if refused else "",
        message=said if refused else "",
        text=said,
    )


def _counts(name: str, cases: list[_Case]) -> dict[str, str]:
    return {
        "name": _plain(name),
        "tests": str(len(cases)),
        "failures": str(sum(case.kind == "failure" for case in cases)),
        "errors": str(sum(case.kind == "error" for case in cases)),
        "time": f"{sum(case.seconds for case in cases):.3f}",
    }


def _add(suite: ET.Element, case: _Case, group: str) -> None:
    named = {"name": _plain(case.name), "classname": _plain(group), "time": f"{case.seconds:.3f}"}
    found = ET.SubElement(suite, "testcase", named)
    if case.kind:
        wrong = ET.SubElement(found, case.kind, {"message": _plain(case.message), "type": case.kind})
        wrong.text = _plain(case.text)
    else:
        ET.SubElement(found, "system-out").text = _plain(case.text)


def _plain(text: str) -> str:
    return _NO_XML.sub("\ufffd", text)
