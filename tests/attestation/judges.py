"""Judges of evidence that we did not write, each in an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from modelrel import wheels
from tests.serving.clients import _made, run_client
from tests.targets import javascript

MODEL_SIGNING = ("model-signing==1.1.1", "pyopenssl==26.4.0")  # the first does not say that it needs the second
IN_TOTO = ("in-toto-attestation==0.9.3",)
SIGSTORE = ("@sigstore/verify@4.1.3", "@sigstore/bundle@5.0.1", "@sigstore/oci@0.7.2")

_READ = """
import base64, json, sys
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.predicates.test_result.v0 import test_result_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement

KINDS = {"https://slsa.dev/provenance/v1": provenance_pb2.Provenance,
         "https://in-toto.io/attestation/test-result/v0.1": test_result_pb2.TestResult}
said = []
for path in sys.argv[1:]:
    envelope = json.load(open(path))
    envelope = envelope.get("dsseEnvelope", envelope)
    given = json.loads(base64.b64decode(envelope["payload"]))
    # an unknown member is an error
    predicate = json_format.ParseDict(given["predicate"], KINDS[given["predicateType"]]())
    statement = Statement.copy_from_pb(json_format.ParseDict(given, statement_pb2.Statement()))
    statement.validate()
    subjects = [(one.name, dict(one.digest)) for one in statement.pb.subject]
    said.append({"type": given["predicateType"], "subjects": subjects,
                 "predicate": json_format.MessageToDict(predicate)})
print(json.dumps(said))
"""

_VERIFY = """
import fs from 'node:fs';
import { createRequire } from 'node:module';
const require = createRequire(process.argv[2]);
const { bundleFromJSON } = require('@sigstore/bundle');
const { Verifier, toSignedEntity, toTrustMaterial } = require('@sigstore/verify');
const pem = fs.readFileSync(process.argv[3], 'utf8');
const key = { rawBytes: Buffer.from(pem.replace(/-----[^-]+-----|\\s/g, ''), 'base64') };
const nobody = { certificateAuthorities: [], timestampAuthorities: [], tlogs: [], ctlogs: [] };
const trust = toTrustMaterial(nobody, { [process.argv[4]]: key });
const verifier = new Verifier(trust, { ctlogThreshold: 0, tlogThreshold: 0, timestampThreshold: 0 });
const said = [];
for (const path of process.argv.slice(5)) {
  try {
    verifier.verify(toSignedEntity(bundleFromJSON(JSON.parse(fs.readFileSync(path, 'utf8')))));
    said.push('verified');
  } catch (error) {
    said.push(`${error.code ?? error.name}: ${error.message}`);
  }
}
console.log(JSON.stringify(said));
"""

_ATTACH = """
import fs from 'node:fs';
import { createRequire } from 'node:module';
const { attachArtifactToImage, getImageDigest } = createRequire(process.argv[2])('@sigstore/oci');
const [imageName, imageTag, path, annotations] = process.argv.slice(3);
const imageDigest = await getImageDigest({ imageName, imageTag });
const artifact = fs.readFileSync(path);
const { mediaType } = JSON.parse(artifact);
console.log(JSON.stringify(await attachArtifactToImage({
  imageName, imageDigest, artifact, mediaType, annotations: JSON.parse(annotations)
})));
"""


def model_signing(folder: Path, signature: Path, public: Path) -> subprocess.CompletedProcess[str]:
    """Return what OpenSSF's own program says of a folder."""
    program = _made(*MODEL_SIGNING).parent / "model_signing"
    command = [program, "verify", "key", folder, "--signature", signature, "--public_key", public]
    given = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, capture_output=True, text=True, env=given, check=False)


def in_toto(*envelopes: Path) -> Any:
    """Return statements as in-toto's own library reads them."""
    return run_client(_made(*IN_TOTO), _READ, *envelopes)


@cache
def _modules() -> Path:
    """Return the folder in which npm has installed Sigstore's verifier, once for a machine."""
    folder = wheels.cache_dir() / "judges" / "-".join(one.rpartition("/")[2].replace("@", "-") for one in SIGSTORE)
    return javascript.kept(folder, "--ignore-scripts", *SIGSTORE)


def sigstore(public: Path, hint: str, *bundles: Path, at: Path) -> Any:
    """Return what Sigstore's verifier for Node says of each bundle: "verified", or why not."""
    (at / "verify.mjs").write_text(_VERIFY, encoding="utf-8")
    done = javascript.run("node", "verify.mjs", _modules() / "package.json", public, hint, *bundles, at=at)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def attached(name: str, tag: str, bundle: Path, annotations: dict[str, str], at: Path) -> Any:
    """Have Sigstore's library for registries attach a bundle to an image; return the descriptor of its manifest."""
    (at / "attach.mjs").write_text(_ATTACH, encoding="utf-8")
    words = ("node", "attach.mjs", _modules() / "package.json", name, tag, bundle, json.dumps(annotations))
    done = javascript.run(*words, at=at)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
