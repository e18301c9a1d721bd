"""The two ways in which an adapter stops."""

from __future__ import annotations


class BrokenAdapter(ValueError):
    """The adapter's file is not one; the message is one sentence."""


class BadInput(ValueError):
    """A row cannot be turned into what the graph takes; the message is one sentence for the client."""
