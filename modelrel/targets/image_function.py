"""A function's image, started as Lambda starts it: in an engine, else what it adds to its base as a process."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

from modelrel import archive, interpreters, wheels
from modelrel.delivered import Check, Package
from modelrel.errors import Unavailable
from modelrel.oci import examine
from modelrel.oci.content import Descriptor
from modelrel.oci.read import document
from modelrel.targets import as_is
from modelrel.targets.delivery import Note, Running
from modelrel.targets.engine import Engine
from modelrel.targets.function import reaching
from modelrel.targets.invoked import HANDLER, TASK, Function, restored, variables
from modelrel.targets.loaded import examined, loaded, of_platform, opened, program_of
from modelrel.targets.process import Program, Started, resident, started, tail
from modelrel.targets.runtime_api import runtime_api

Start = Callable[[Mapping[str, str], ExitStack], Started]
"""Takes Lambda's variables, and what ends the function."""


@contextmanager
def launch(package: Package, note: Note) -> Iterator[Running]:
    """Start the image of a function with a Runtime API of ours, and end it when the block ends.

    Raises `Unavailable` where there is no engine, and no Python of this machine for what the image adds to its base.
    """
    with runtime_api() as api, ExitStack() as stack:
        start = _start(package, stack, note)

        def begin(address: str, ends: ExitStack, *, restores: bool) -> Started:
            return start(variables("", PurePath(TASK), address, restores=restores), ends)

        def checks() -> Iterator[Check]:
            yield restored(package, lambda address, ends: begin(address, ends, restores=True))
            if package.image is not None and package.image.at:
                with opened(package) as image:
                    yield from examined(package, image)

        program = begin(api.address, stack, restores=False)
        yield replace(Function(api=api, program=program).running(), examined=checks)


def _start(package: Package, stack: ExitStack, note: Note) -> Start:
    """Return what starts the function, in the first place that can."""
    if package.image is None:
        return _context(package, note)
    try:
        engine = stack.enter_context(Engine.connect())
    except Unavailable as error:
        if not package.image.at:
            raise
        note(f"{error.message}: starting what the image adds to its base as a process")
        return _unpacked(package, stack)
    image = package.image
    if image.at:
        opened_image = stack.enter_context(opened(package))
        image = stack.enter_context(loaded(engine, package, opened_image, note))
    note(f"starting {package.image.tags[0]} with a Runtime API (read-only root, no capabilities)")

    def begin(told: Mapping[str, str], ends: ExitStack) -> Started:
        inside = ends.enter_context(engine.run_function(image, told))
        return replace(inside, runner="image", exit_code=lambda: reaching(inside, package.python))

    return begin


def _unpacked(package: Package, stack: ExitStack) -> Start:
    """Start what an image adds to its base with this machine's Python, as its config says."""
    python = _python(package)
    assert package.image is not None
    with opened(package) as image:
        _, manifest = of_platform(image, package.platform)
        settings: Mapping[str, Any] = document(image, Descriptor.read(manifest["config"]))["config"]
        ours = {layer.digest for layer in package.image.layers}
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="modelrel-")))
        examine.unpack(image, [one for one in map(Descriptor.read, manifest["layers"]) if one.digest in ours], root)
    folder = root / str(settings.get("WorkingDir", "")).lstrip("/")

    def begin(told: Mapping[str, str], ends: ExitStack) -> Started:
        return _process(folder, program_of(python, settings, root, {**told, "LAMBDA_TASK_ROOT": str(folder)}), ends)

    return begin


def _context(package: Package, note: Note) -> Start:
    """Start the context of an image that nobody built."""
    python = _python(package)
    note(f"no image was built: starting the context with {python.name}")
    context = archive.within(package.folder, package.artifact)

    def begin(told: Mapping[str, str], ends: ExitStack) -> Started:
        said = {**told, "LAMBDA_TASK_ROOT": str(context), "MODELREL_MODEL_DIR": str(context / "model")}
        said["MODELREL_PYTHON"] = str(context / as_is.FOLDER)
        words = ("-m", "awslambdaric", HANDLER)
        return _process(
            context, Program(python=python, arguments=words, paths=("", "site-packages"), variables=said), ends
        )

    return begin


def _process(folder: Path, program: Program, ends: ExitStack) -> Started:
    log = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="modelrel-")), "log")
    begun = time.perf_counter()
    process = ends.enter_context(started(folder, program, log))
    return Started(
        runner="awslambdaric",
        at=begun,
        exit_code=process.poll,
        memory_bytes=lambda: resident(process.pid),
        log=lambda: tail(log),
    )


def _python(package: Package) -> Path:
    host = wheels.host_platform()
    found = interpreters.find(package.python) if package.platform == host else None
    if found is None:
        raise Unavailable(
            f"there is no engine, and no Python {package.python} for {package.platform} here to start the image with",
            "Start a container engine; or package with --python and --arch that this machine has.",
        )
    return found
