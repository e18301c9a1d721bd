"""The rules of promotion: what a team wants to see before an alias moves, and whether a release shows it.

A policy is judged on facts that others gathered; nothing here reads a registry, a file or a clock.
"""

from __future__ import annotations

from modelrel.policy.asked import Approval, Facts, Finding, Holder, Metric, Policy, Rung
from modelrel.policy.rules import judge
from modelrel.policy.sense import examine
from modelrel.policy.table import findings, read, schema

__all__ = [
    "Approval", "Facts", "Finding", "Holder", "Metric", "Policy", "Rung", "examine", "findings", "judge",
    "read", "schema",
]  # fmt: skip
