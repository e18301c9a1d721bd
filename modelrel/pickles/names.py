"""What the names mean that a pickle asks for: what of known libraries rebuilds data, and what can do anything."""

from __future__ import annotations

import _compat_pickle
import re
from typing import Final, Literal

import numpy as np

Verdict = Literal["none", "known", "unknown", "dangerous"]
"""Nothing is run, only what is known to rebuild data, code that nobody here knows, what runs programs or any text."""

ORDER: Final[tuple[Verdict, ...]] = ("none", "known", "unknown", "dangerous")

_ANYTHING: Final = frozenset({
    "os", "posix", "nt", "posixpath", "ntpath", "genericpath", "subprocess", "_posixsubprocess", "sys",
    "importlib", "imp", "runpy", "pkgutil", "zipimport", "pty", "tty", "socket", "_socket",
    "socketserver", "ssl", "select", "selectors", "asyncio", "multiprocessing", "_multiprocessing",
    "concurrent", "threading", "_thread", "signal", "http", "urllib", "urllib2", "httplib", "ftplib",
    "smtplib", "poplib", "imaplib", "nntplib", "telnetlib", "xmlrpc", "xmlrpclib", "requests", "httpx",
    "aiohttp", "urllib3", "paramiko", "fabric", "pexpect", "shutil", "tempfile", "glob", "fileinput",
    "ctypes", "_ctypes", "cffi", "_cffi_backend", "mmap", "code", "codeop", "pdb", "bdb", "cProfile",
    "profile", "trace", "timeit", "doctest", "unittest", "pytest", "_pytest", "pydoc", "webbrowser",
    "antigravity", "this", "idlelib", "lib2to3", "turtledemo", "test", "venv", "ensurepip", "pip",
    "setuptools", "pkg_resources", "distutils", "_distutils_hack", "commands", "popen2", "platform",
    "pickle", "_pickle", "cPickle", "pickletools", "marshal", "shelve", "dbm", "sqlite3", "site",
    "sitecustomize", "sysconfig", "gc", "inspect", "faulthandler", "resource", "pwd", "grp", "crypt",
    "atexit", "linecache", "tokenize", "py_compile", "compileall", "bz2", "gzip", "lzma", "zipfile",
    "tarfile", "io", "_io", "IPython", "uv", "docker", "boto3", "botocore", "jinja2",
})  # fmt: skip
"""Top-level modules that run programs, text or libraries, or reach files and the network."""

_BUILTINS: Final = frozenset({
    "bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "object",
    "range", "set", "slice", "str", "tuple", "type", "NoneType", "Ellipsis", "NotImplemented", "long",
    "unicode",
})  # fmt: skip
_BUILTINS_ANYTHING: Final = frozenset({
    "eval", "exec", "execfile", "compile", "__import__", "open", "file", "input", "raw_input",
    "breakpoint", "setattr", "delattr", "globals", "locals", "vars", "dir", "help", "apply", "reload",
    "exit", "quit", "classmethod", "staticmethod", "property", "super", "__build_class__", "__loader__",
    "__spec__",
})  # fmt: skip
_ATTRIBUTES: Final = frozenset({
    "os", "posix", "sys", "subprocess", "importlib", "builtins", "__builtins__", "shutil", "socket",
    "ctypes", "pickle", "marshal", "runpy", "pty", "eval", "exec", "system", "popen", "__import__",
    "modules",
})  # fmt: skip
"""Attributes by which modules of libraries lead to those: what they import themselves."""

_LISTED: Final = (
    r"(copyreg|copy_reg) (_reconstructor|__newobj__|__newobj_ex__)",
    r"_codecs encode",
    r"collections (OrderedDict|defaultdict|deque|Counter)",
    r"datetime (date|datetime|time|timedelta|timezone)",
    r"(decimal Decimal|fractions Fraction|uuid UUID|array (array|_array_reconstructor)|re _compile)",
    r"pathlib (\w+\.)?Pure\w*Path|pathlib(\._local)? (Posix|Windows)?Path",
    r"(functools partial|random Random|types SimpleNamespace|logging getLogger|zoneinfo ZoneInfo\._unpickle)",
    r"numpy(\._?core)?\.multiarray (_reconstruct|scalar)",
    r"numpy(\._?core)?\.numeric _frombuffer",
    r"numpy(\._?core)?(\._internal)? _ufunc_reconstruct",
    r"numpy\.random\._pickle __(randomstate|generator|bit_generator)_ctor",
    r"numpy\.random\.\w+ ([A-Z]\w+|__pyx_unpickle_\w+)",
    r"numpy\.ma\.core (_mareconstruct|MaskedArray|MaskedConstant)",
    r"numpy\.dtypes \w+",
    r"numpy\.polynomial\.\w+ [A-Z]\w+",
    r"joblib\.numpy_pickle(_compat)? (NumpyArrayWrapper|NDArrayWrapper|ZNDArrayWrapper)",
    r"scipy\.sparse(\.\w+)* (csr|csc|coo|bsr|dia|dok|lil)_(matrix|array)",
    r"scipy\.special(\.\w+)* \w+",
    r"sklearn(\.\w+)* (_?[A-Z]\w*|__pyx_unpickle_\w+|newObj)",
    r"sklearn\.(metrics|feature_selection|preprocessing)(\.\w+)* [a-z]\w+",
    r"sklearn\.utils\.validation check_\w+",
    r"(scipy|pandas|xgboost|lightgbm|catboost|_catboost|imblearn)(\.\w+)* (_?[A-Z]\w*|__pyx_unpickle_\w+)",
    r"pandas(\.\w+)* (_unpickle_block|_new_\w+|new_block|_nat_unpickle|_unpickle_\w+)",
    r"torch (\w*Storage|\w*Tensor|Size|device|dtype|Generator|bool)",
    r"torch (bfloat|float|int|uint|complex|quint|qint)\d+(x2)?",
    r"torch\._utils _rebuild_\w+|torch\._tensor _rebuild_from_type_v2|torch\.serialization _get_layout",
    r"torch\.(nn|optim|storage)(\.\w+)* (_?[A-Z]\w*|_rebuild_\w+)",
    r"torch\.nn\.functional \w+|torch\.nn\.modules(\.\w+)* \w+",
    r"(torchvision\.(models|ops)|transformers\.(models|configuration_utils)|tokenizers)(\.\w+)* _?[A-Z]\w*",
    r"mlflow\.(types|models\.signature)(\.\w+)* _?[A-Z]\w*",
    r"mlflow\.pyfunc\.model (PythonModel|PythonModelContext)",
    r"typing [A-Z]\w+|collections\.abc [A-Z]\w+",
    r"__torch__(\.\w+)* \w+|torch\.jit\._pickle build_\w+",
)
"""`module name` of what rebuilds arrays, frames and estimators, and does nothing else."""

_PLAIN: Final = re.compile("|".join(_LISTED))
_NUMPY: Final = ("numpy", "numpy.core._multiarray_umath", "numpy._core._multiarray_umath")

_EXCEPT: Final = re.compile(
    r"numpy\.(testing|distutils|f2py|lib|ctypeslib)|sklearn\.(externals|datasets|utils\._testing|conftest)"
    r"|scipy\.(io|datasets|_lib|weave)|pandas\.(io|core\.computation|util|testing)|xgboost\.(dask|spark|testing)"
    r"|lightgbm\.dask|torch\.(hub|package|jit|fx|utils|distributed|multiprocessing|testing|_inductor|_dynamo)"
)
"""Parts of those libraries that read files, fetch, or run text."""

_CODE: Final = re.compile(
    r"cloudpickle(\.\w+)* \w+|dill(\._dill)? \w+|types (CodeType|FunctionType|LambdaType|ModuleType)"
)
"""What makes functions and classes out of the pickle itself."""


def judged(module: str, name: str) -> Verdict:
    """Return what it means that a pickle asks for a name; of the two that Python 2 and 3 make of it, the worse."""
    said = {(module, name)}
    # pickle's own tables: what protocols 0 to 2 call by the names of Python 2
    said.add(_compat_pickle.NAME_MAPPING.get((module, name), (_compat_pickle.IMPORT_MAPPING.get(module, module), name)))
    return max((_judged(*one) for one in said), key=ORDER.index)


_MAKERS: Final = re.compile(
    r"(cloudpickle(\.cloudpickle(_fast)?)?) "
    r"(_make_(function|skeleton_class|skeleton_enum|cell|empty_cell|typevar|dict_keys|dict_values|dict_items)"
    r"|_builtin_type|_class_setstate|_function_setstate|_lookup_class_or_track|_empty_cell_value|subimport)"
)
"""What cloudpickle itself writes for code, and nothing that reads another pickle (cloudpickle/cloudpickle.py)."""

_IMPORTS: Final = re.compile(r"cloudpickle(\.\w+)* subimport|dill(\._dill)? _import_module")
_LIBRARIES: Final = frozenset({
    "numpy", "scipy", "pandas", "sklearn", "torch", "torchvision", "xgboost", "lightgbm", "catboost", "transformers",
    "tensorflow", "keras", "math", "cmath", "statistics", "random", "itertools", "functools", "collections", "re",
    "string", "json", "datetime", "time", "decimal", "fractions", "typing", "dataclasses", "enum", "abc", "copy",
    "warnings", "logging", "hashlib", "bisect", "heapq", "unicodedata", "textwrap", "operator",
})  # fmt: skip
"""Modules that code of a model may name as a whole."""

_REACHES: Final = frozenset({
    "os", "posix", "nt", "subprocess", "sys", "importlib", "imp", "runpy", "pty", "pkgutil", "socket", "socketserver",
    "ssl", "asyncio", "multiprocessing", "threading", "_thread", "http", "urllib", "urllib2", "urlopen", "ftplib",
    "smtplib", "telnetlib", "xmlrpc", "requests", "httpx", "aiohttp", "urllib3", "paramiko", "shutil", "tempfile",
    "ctypes", "_ctypes", "cffi", "mmap", "pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal",
    "shelve", "sqlite3", "builtins", "__builtin__", "eval", "exec", "execfile", "compile", "open", "getattr", "setattr",
    "delattr", "globals", "locals", "vars", "breakpoint", "system", "popen", "Popen", "spawn", "fork", "execv",
    "execve", "load_library", "from_file", "memmap", "tofile", "read_pickle", "hub",
    "to_pickle", "ctypeslib", "f2py", "attrgetter", "methodcaller", "inspect", "gc", "signal", "boto3", "jinja2",
})  # fmt: skip
_USUAL: Final = frozenset({
    "__init__", "__call__", "__name__", "__class__", "__doc__", "__module__", "__qualname__", "__len__", "__getitem__",
    "__setitem__", "__iter__", "__next__", "__enter__", "__exit__", "__eq__", "__hash__", "__repr__", "__str__",
    "__annotations__", "__post_init__", "__version__", "__contains__", "__setstate__", "__getstate__", "__all__",
    "__future__", "__file__",
})  # fmt: skip


def reaches(word: str) -> bool:
    """Return whether a name in code leads to programs, files, the network or other code, as far as a name tells."""
    special = word.startswith("__") and word.endswith("__")
    return word in _REACHES or (special and word not in _USUAL)


def imports(module: str, name: str) -> bool:
    """Return whether a name imports the module that it is given."""
    return bool(_IMPORTS.fullmatch(f"{module} {name}"))


def usual_maker(whole: str) -> bool:
    """Return whether a name (`module.name`) is one by which cloudpickle rebuilds functions and classes."""
    module, _, name = whole.rpartition(".")
    return bool(_MAKERS.fullmatch(f"{module} {name}"))


def makes_code(module: str, name: str) -> bool:
    """Return whether a name makes functions or classes out of what the pickle holds."""
    return bool(_CODE.fullmatch(f"{module} {name}"))


def _judged(module: str, name: str) -> Verdict:
    top, parts = module.partition(".")[0], name.split(".")
    # A name with dots leads through attributes, and a library has imported what it needs itself: sklearn's `os`.
    if top in _ANYTHING or _ATTRIBUTES.intersection(parts):
        return "dangerous"
    if top in ("builtins", "__builtin__"):
        if name == "getattr":
            return "unknown"  # a method is pickled by it; the machine looks at what it is asked for
        if _BUILTINS_ANYTHING.intersection(parts):
            return "dangerous"
        error = re.fullmatch(r"[A-Z]\w*(Error|Exception|Warning|Interrupt|Iteration|Exit)", name)
        method = len(parts) == 2 and parts[0] in _BUILTINS - {"object", "type"} and not parts[1].startswith("_")
        return "known" if name in _BUILTINS or error or method else "unknown"
    if any(part.startswith("__") and not part.startswith("__pyx_unpickle") for part in parts[1:] or ()):
        return "dangerous"
    if top == "operator" and parts[0] in ("attrgetter", "methodcaller"):
        return "dangerous"
    if makes_code(module, name) or _EXCEPT.match(module):
        return "unknown"
    library = name == "*" and top in _LIBRARIES
    plain = library or _PLAIN.fullmatch(f"{module} {name}") or (module in _NUMPY and _of_numpy(name))
    return "known" if plain else "unknown"


def _of_numpy(name: str) -> bool:
    found = getattr(np, name, None)
    # a memory map writes the file that it is given
    return isinstance(found, (type, np.ufunc)) and found is not np.memmap
