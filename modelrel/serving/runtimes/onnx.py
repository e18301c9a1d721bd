"""ONNX files, by onnxruntime on the CPU."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from ..manifest import BrokenModel
from ..tensors import ONNX_TYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import onnxruntime

    from ..manifest import Manifest
    from ..tensors import Array
    from . import Means

PLATFORM: Final = "onnxruntime_onnx"
_SILENT: Final = 4  # onnxruntime's severity: not even errors, which it raises too; stderr holds lines of our own


class Session:
    """One onnxruntime session."""

    blocks = False
    pool = None
    ready = True

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self.inputs: Mapping[str, str] = {
            node.name: ONNX_TYPES.get(node.type, node.type) for node in session.get_inputs()
        }
        self.outputs: Mapping[str, str] = {
            node.name: ONNX_TYPES.get(node.type, node.type) for node in session.get_outputs()
        }
        # The compiled ``run``, without the Python around it. That Python checks again, input by input, what the
        # protocols have checked: 9 of the 28 microseconds of a model with 30 columns. The attribute is not public, so
        # the public one stands in should it go.
        compiled = getattr(session, "_sess", None)
        self._run: Callable[..., list[Array]] = getattr(compiled, "run", session.run)

    def run(
        self,
        outputs: Sequence[str],
        feeds: Mapping[str, Array],
        params: Mapping[str, Any] | None,  # noqa: ARG002 (a graph has no parameters)
    ) -> list[Array]:
        """Compute the named outputs."""
        return self._run(outputs, feeds, None)

    def close(self) -> None:
        """Do nothing: the session goes with the last reference."""


def load(path: Path, manifest: Manifest, means: Means) -> Session:  # noqa: ARG001 (other formats need it)
    """Load an ONNX file. Raises ``BrokenModel``."""
    # From 1.31 on, onnxruntime on Linux reports to its maker and keeps an identifier in the home folder. A released
    # model tells nobody where it runs; who wants that can set the variable to 0. It is read when the library loads.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _SILENT
    options.intra_op_num_threads = means.threads or 1
    options.inter_op_num_threads = 1
    # Spinning threads burn a core between requests, which a container is billed for and a neighbour misses.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        return Session(onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]))
    except Exception as error:  # onnxruntime raises a dozen unrelated classes, ValueError and RuntimeError too
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BrokenModel(f"{path} cannot be loaded: {reason}") from error
