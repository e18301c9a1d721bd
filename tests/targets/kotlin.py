"""Kotlin's own compiler, and stand-ins for what an Android phone has, to compile and run what is packaged for one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from modelrel import wheels
from tests.targets import javascript, tiny

COMPILER = "kotlin-compiler@2.4.20"
PHONE = Path(__file__).parent / "phone"


def compiled(sources: list[Path], work: Path) -> Path:
    """Compile Kotlin sources against the stand-ins, every warning an error; return the folder of the classes."""
    java, javac = shutil.which("java"), shutil.which("javac")
    if java is None or javac is None:
        tiny.absent("kotlin", "there is no Java here")
    lib = _installed()
    stand_ins, classes = work / "stand-ins", work / "classes"
    _run([javac, "-Xlint:all", "-Werror", "-d", stand_ins, *sorted(PHONE.rglob("*.java"))])
    _run(
        [
            java, "-Xmx1g", "-cp", f"{lib}/*", "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler", "-no-stdlib",
            "-no-reflect", "-Werror", "-jvm-target", "1.8", "-cp", f"{lib}/kotlin-stdlib.jar:{stand_ins}",
            "-d", classes, *sources,
        ]
    )  # fmt: skip
    return classes


def ran(classes: Path, test: str, assets: Path) -> str:
    """Run an instrumented test on this machine's JVM; return what it says: "right"."""
    path = os.pathsep.join(map(str, (classes, classes.parent / "stand-ins", f"{_installed()}/kotlin-stdlib.jar")))
    settings = (f"-Dpython={sys.executable}", f"-Dbridge={PHONE / 'bridge.py'}")
    return _run(["java", *settings, "-cp", path, "stand.Main", test, assets])


def _installed() -> Path:
    """Return the folder of the compiler's jars, which is fetched once for a machine."""
    folder = wheels.cache_dir() / "clients" / COMPILER.replace("@", "-")
    with wheels.alone(folder.parent):
        if not (folder / "whole").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            done = javascript.run("npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", COMPILER, at=folder)
            assert done.returncode == 0, done.stderr[-3000:]
            (folder / "whole").touch()
    return folder / "node_modules" / "kotlin-compiler" / "lib"


def _run(words: list[object]) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout.strip()
