"""What answering needs of a payload, and nothing else; with its modules compiled, where the platform cannot do that.

A function is fetched and unpacked before each cold start, so that every megabyte is time. A smoke test of the built
thing proves for the model at hand that nothing is missing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from modelrel import archive, bytecode, wheels
from modelrel.targets.payload import Payload, copy
from modelrel.values import digest

ROOTS: Final[Mapping[str, tuple[str, ...]]] = {
    "awslambdaric": ("awslambdaric", "runtime_client"),
    "msgspec": ("msgspec",),
    "numpy": ("numpy", "numpy.libs"),
    "onnxruntime": ("onnxruntime",),
    "pillow": ("PIL", "pillow.libs"),
    "simplejson": ("simplejson",),
    "snapshot_restore_py": ("snapshot_restore_py",),
    "tokenizers": ("tokenizers",),
}
"""Distribution -> what it has at the top. What else comes along is for tools of these (onnxruntime's converters read
protocol buffers, tokenizers' downloads go through huggingface_hub): none of it is imported to load and run a file."""

_TOPS: Final = frozenset(top for tops in ROOTS.values() for top in tops)

_UNUSED: Final = re.compile(
    r"""
    numpy/(?:fft|ma|polynomial|random|testing)/
  | numpy/_typing/(?!__init__\.py$)
  | numpy/_core/(?:_simd|_multiarray_tests|_operand_flag_tests|_rational_tests|_struct_ufunc_tests|_umath_tests)\.
  | numpy/(?:conftest\.py$|lib/recfunctions\.py$)
  | onnxruntime/capi/(?:convert_npz_to_onnx_adapter|onnxruntime_collect_build_info)\.py$
  | simplejson/tool\.py$
    """,
    re.VERBOSE,
)
"""Parts that `numpy` imports when somebody asks for them, and that neither onnxruntime nor our server asks for."""

_NO_DOCS: Final = '"""Left empty by modelrel: no program reads the documentation that this module gives to others."""\n'

REPLACED: Final[Mapping[str, str]] = {
    "numpy/_core/_add_newdocs.py": _NO_DOCS,
    "numpy/_core/_add_newdocs_scalars.py": _NO_DOCS,
    "numpy/_typing/__init__.py": '''"""What stands for the types in annotations of numpy; written by modelrel."""


class Annotation:
    """Stands for every type."""

    def __class_getitem__(cls, item):
        return cls


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return Annotation
''',
}
"""Module of numpy -> its source in a function. They take a fifth of a cold start (40 of 200 ms), and no answer is
theirs: the first two say of themselves that they only add docstrings to what is written in C, and `numpy._typing`
(private) is imported for the annotations of `numpy.linalg`, and makes some hundred generic types for that."""

_DIST_INFO: Final = re.compile(r"(?P<name>[^/]+?)-[^/-]+\.dist-info/")


def slim(load: Payload, wheels_at: str = "") -> Payload:
    """Return a payload with what answering needs; `wheels_at` is where its wheels are, "" or ending in `/`.

    Its wheels are a folder of their own, so that a bill of materials made from it lists what is inside.
    """
    whole = load.wheels.folder
    folder = wheels.cache_dir() / "slim" / digest([whole.name, ROOTS, _UNUSED.pattern, REPLACED])
    if not folder.is_dir():
        with wheels.alone(folder.parent):
            if not folder.is_dir():
                _fill(folder, whole)
    files = {f"{wheels_at}{path.relative_to(folder).as_posix()}": path for path in archive.walk(folder)}
    others = {name: size for name, size in load.parts.items() if name not in wheels.sizes(whole)}
    return replace(
        load,
        groups={**load.groups, "wheels": files},
        wheels=replace(load.wheels, folder=folder),
        parts={**wheels.sizes(folder), **others},
    )


def _fill(folder: Path, whole: Path) -> None:
    with archive.fresh_folder(folder) as work:
        kept = {path.relative_to(whole).as_posix(): path for path in archive.walk(whole)}
        copy({name: path for name, path in kept.items() if _needed(name)}, work)
        for name in REPLACED.keys() & kept.keys():
            archive.within(work, name).write_text(REPLACED[name], encoding="utf-8")


def with_bytecode(load: Payload, at: str, python: str, groups: tuple[str, ...] = ("wheels", "serving")) -> Payload:
    """Return a payload with its modules compiled beside them; `at` is the folder where it stands when it runs.

    It is as it was where this machine has no interpreter of that version.
    """
    made = {name: bytecode.compiled(load.groups[name], at, python) for name in groups}
    size = sum(path.stat().st_size for group in made.values() for path in group.values())
    joined = {**load.groups, **{name: {**load.groups[name], **made[name]} for name in groups}}
    return replace(load, groups=joined, parts={**load.parts, **({"bytecode": size} if size else {})})


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "_", name).lower()


def _needed(name: str) -> bool:
    if _UNUSED.match(name):
        return False
    if found := _DIST_INFO.match(name):
        return _plain(found["name"]) in ROOTS
    top = name.partition("/")[0]
    return top in _TOPS or ("/" not in name and top.partition(".")[0] in _TOPS)
