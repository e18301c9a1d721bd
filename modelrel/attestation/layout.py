"""What a folder of evidence holds: the names of its files, and the records that stand beside it."""

from __future__ import annotations

from typing import Final

FOLDER: Final = "evidence"
"""The folder, beside what is packaged."""

STATEMENTS: Final = ("provenance", "parity", "smoke")
"""What must be stated about a package: from what it was made, and that both tests passed."""

SIGNED: Final = ".sigstore.json"
UNSIGNED: Final = ".dsse.json"
MODEL: Final = "model.sig"
"""OpenSSF's signature of the packaged files; there where a key was given."""

BOM: Final = "bom.cdx.json"

RECORDS: Final = ("Package.json", "SmokeReport.json", "Attestation.json", "Pushed.json", "SmokeReport.refused.json")
"""What stands beside the packaged files and is none of them."""
