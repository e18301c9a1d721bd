"""An AAR of assets alone: the files that the Android Gradle plugin looks for, in a zip.

Source: Android, "Anatomy of an AAR file"; the entries are those of an AAR that the plugin itself has written.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

from modelrel import archive
from modelrel.delivered import Check
from modelrel.errors import Refused

NAMESPACE: Final = "http://schemas.android.com/apk/res/android"
METADATA: Final = "META-INF/com/android/build/gradle/aar-metadata.properties"
_NEEDED: Final = ("AndroidManifest.xml", "classes.jar", "R.txt", METADATA)

_MANIFEST: Final = """<?xml version="1.0" encoding="utf-8"?>
<manifest xmlns:android="{schema}"
    package="{package}" >

    <uses-sdk android:minSdkVersion="{least}" />

</manifest>
"""
_PROPERTIES: Final = """aarFormatVersion=1.0
aarMetadataVersion=1.0
minCompileSdk=1
minCompileSdkExtension=0
minAndroidGradlePluginVersion=1.0.0
"""
_JAR: Final = "Manifest-Version: 1.0\r\n\r\n"


def write(path: Path, work: Path, package: str, least: int, assets: Mapping[str, Path]) -> None:
    """Write an AAR without code: `assets` are names below `assets/` -> files; `work` is a folder for what is made.

    `classes.jar` has no class in it: the wrapper is source, which the app compiles with its own Kotlin.
    """
    texts = {
        "AndroidManifest.xml": _MANIFEST.format(schema=NAMESPACE, package=package, least=least),
        "R.txt": "",
        METADATA: _PROPERTIES,
        "proguard.txt": "# nothing of this archive is code\n",
        "MANIFEST.MF": _JAR,
    }
    files = {name: work / str(number) for number, name in enumerate([*texts, "classes.jar"])}
    for name, text in texts.items():
        archive.write(files[name], text.encode())
    archive.write_zip(files["classes.jar"], [("META-INF/MANIFEST.MF", files.pop("MANIFEST.MF"))])
    files |= {f"assets/{name}": file for name, file in assets.items()}
    archive.write_zip(path, list(files.items()))


def unpack(path: Path, at: str, into: Path) -> None:
    """Take the assets below `at` out of an AAR; raises `Refused` where it is none, or they leave the folder."""
    with _opened(path) as found:
        prefix = f"assets/{at}/"
        for name in found.namelist():
            if name.startswith(prefix) and not name.endswith("/"):
                target = archive.within(into, name.removeprefix(prefix))
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(found.read(name))


def examined(path: Path, package: str, least: int) -> Check:
    """Look at what Gradle would look at; raises `Refused` where something is missing or says otherwise."""
    with _opened(path) as found:
        missing = [name for name in _NEEDED if name not in found.namelist()]
        if missing or found.testzip():
            raise Refused(f"{path.name} lacks {', '.join(missing) or 'whole entries'}", "Package it again.")
        top = ET.fromstring(found.read("AndroidManifest.xml"))  # noqa: S314  # it is our own, and has no entities
        uses = top.find("uses-sdk")
        said = (top.get("package"), uses.get(f"{{{NAMESPACE}}}minSdkVersion") if uses is not None else None)
        if said != (package, str(least)):
            raise Refused(f"AndroidManifest.xml says {said}, not {(package, str(least))}", "Package it again.")
        count = len(found.namelist())
    return Check(name="AAR", detail=f"{count} entries, package {package}, Android {least} and newer")


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise Refused(f"{path.name} is no AAR: {error}", "Package it again.") from error
