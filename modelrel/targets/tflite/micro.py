"""The model as C source, for machines without a file system: an array that a linker puts into flash."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from modelrel import archive
from modelrel.delivered import Check
from modelrel.errors import Refused
from modelrel.targets.identifiers import identifiers
from modelrel.targets.tflite import packed

SOURCE: Final = "model_data.c"
HEADER: Final = "model_data.h"
MOST_BYTES: Final = 16 * 2**20
"""What is larger fits into no microcontroller's flash, and takes a compiler gigabytes."""

_BYTES_A_LINE: Final = 16
_PROGRAM: Final = """
#include <stdio.h>
#include "model_data.h"
int main(void) {
  if ((size_t){name} % 16 != 0) return 2;
  return fwrite({name}, 1, {name}_size, stdout) == {name}_size ? 0 : 1;
}
"""
# of C23 and C++23; a suffix is added anyway, so that few of these can be met
_KEYWORDS: Final = frozenset({"asm", "main", "model_data"})


def symbol(name: str) -> str:
    """Return the name of the array of a model.

    >>> symbol("größe-2 (beta)")
    'grosse_2_beta_model'
    """
    return f"{identifiers([name], 'snake', _KEYWORDS)[name]}_model"


def write(content: bytes, name: str, title: str, into: Path) -> int:
    """Write header and source of a `.tflite` file, without what only people read in it; return the array's bytes.

    Raises `Refused` for a model of more than `MOST_BYTES`.
    """
    graph = packed.slim(content)
    if len(graph) > MOST_BYTES:
        raise Refused(
            f"the model has {len(graph):,} bytes, and C source for microcontrollers is written up to {MOST_BYTES:,}",
            "Leave out --micro, or make the model smaller (--quantize).",
        )
    called, digest = symbol(name), hashlib.sha256(graph).hexdigest()
    # a comment must not end early, nor a line go on in the next one
    shown = re.sub(r"[^\w .,()=+/-]", "_", title, flags=re.ASCII)
    said = f"/* {shown} for TensorFlow Lite Micro: {len(graph)} bytes, sha256 {digest} */\n"
    archive.write(into / HEADER, (said + _header(called)).encode())
    archive.write(into / SOURCE, (said + _source(called, graph)).encode())
    return len(graph)


def _header(name: str) -> str:
    guard = f"{name.upper()}_DATA_H_"
    return f"""#ifndef {guard}
#define {guard}

#ifdef __cplusplus
extern "C" {{
#endif

extern const unsigned char {name}[];
extern const unsigned int {name}_size;

#ifdef __cplusplus
}}
#endif

#endif /* {guard} */
"""


def _source(name: str, content: bytes) -> str:
    digits = (content[at : at + _BYTES_A_LINE].hex() for at in range(0, len(content), _BYTES_A_LINE))
    lines = "\n".join("  " + re.sub("(..)", r"0x\1,", line) for line in digits)
    return f"""#include "{HEADER}"

/* weights are read where they stand, and small machines read aligned ones only */
#if defined(__cplusplus) && __cplusplus >= 201103L
#define MODEL_ALIGNED alignas({packed.ALIGNMENT})
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define MODEL_ALIGNED _Alignas({packed.ALIGNMENT})
#elif defined(_MSC_VER)
#define MODEL_ALIGNED __declspec(align({packed.ALIGNMENT}))
#else
#define MODEL_ALIGNED __attribute__((aligned({packed.ALIGNMENT})))
#endif

MODEL_ALIGNED const unsigned char {name}[] = {{
{lines}
}};
const unsigned int {name}_size = {len(content)}u;
"""


def array(folder: Path) -> bytes:
    """Return the bytes that the source holds."""
    text = (folder / SOURCE).read_text(encoding="ascii")
    body = text[text.index("[] = {") :].partition("};")[0]
    return bytes(int(digits, 16) for digits in re.findall(r"0x([0-9a-f]{2}),", body))


def compiled(folder: Path, name: str) -> Check | None:
    """Compile and link the source with gcc, and compare what is in the program; None where there is no gcc.

    Raises `Refused` where it does not compile without a warning, or holds other bytes.
    """
    gcc = shutil.which("gcc")
    if gcc is None:
        return None
    with tempfile.TemporaryDirectory(prefix="modelrel-micro-") as work:
        main, program = Path(work, "main.c"), Path(work, "main")
        main.write_text(_PROGRAM.replace("{name}", symbol(name)), encoding="ascii")
        words = [gcc, "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-I{folder}", "-o", str(program)]
        environment = {"PATH": os.defpath, "LC_ALL": "C"}
        done = subprocess.run(
            [*words, str(main), str(folder / SOURCE)], capture_output=True, text=True, check=False, env=environment
        )
        if done.returncode:
            raise Refused(f"gcc does not compile {SOURCE}: {done.stderr.strip()[:300]}", "See the package's folder.")
        ran = subprocess.run([str(program)], capture_output=True, check=False)
    if ran.returncode or ran.stdout != array(folder):
        raise Refused(f"the program that gcc makes of {SOURCE} holds other bytes (exit code {ran.returncode})")
    return Check(name="C source", detail=f"gcc links {len(ran.stdout):,} bytes, aligned to {packed.ALIGNMENT}")
