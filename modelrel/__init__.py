"""modelrel: the release toolchain for machine-learning models."""

from __future__ import annotations

from typing import Final

__version__: Final = "0.1.0"
