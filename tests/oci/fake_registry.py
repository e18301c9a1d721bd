"""A registry of images in memory that speaks the protocol, and can be told to be sick or hostile."""

from __future__ import annotations

import hashlib
import json
import re
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

INDEX = "application/vnd.oci.image.index.v1+json"


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass
class Seen:
    """A request that arrived."""

    method: str
    path: str
    headers: Mapping[str, str]


@dataclass
class Fake:
    """What the registry holds, what it was asked, and its moods: the first that returns True has answered."""

    blobs: dict[tuple[str, str], bytes] = field(default_factory=dict)
    manifests: dict[tuple[str, str], tuple[str, bytes]] = field(default_factory=dict)
    uploads: dict[str, bytearray] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    moods: list[Callable[[Request], bool]] = field(default_factory=list)
    referrers: bool = False
    mounts: bool = True
    address: str = ""
    begun: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def asked(self, method: str, *parts: str) -> list[Seen]:
        """The requests of a method whose path has all these parts."""
        return [one for one in self.seen if one.method == method and all(part in one.path for part in parts)]

    def tags(self, repository: str) -> set[str]:
        return {ref for at, ref in self.manifests if at == repository and not ref.startswith("sha256:")}

    def hold(self, repository: str, content: bytes) -> str:
        self.blobs[repository, digest(content)] = content
        return digest(content)

    def hold_manifest(self, repository: str, tag: str, kind: str, content: bytes) -> str:
        for reference in (tag, digest(content)):
            self.manifests[repository, reference] = (kind, content)
        return digest(content)


class Request(BaseHTTPRequestHandler):
    """One request to a fake registry."""

    fake: Fake
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def reply(self, status: int, body: bytes = b"", **headers: str) -> bool:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()
        return True

    def error(self, status: int, code: str, **headers: str) -> bool:
        return self.reply(status, json.dumps({"errors": [{"code": code, "message": "no"}]}).encode(), **headers)

    def drop(self) -> bool:
        """Cut the connection."""
        self.close_connection = True
        self.connection.shutdown(2)
        return True

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def handle_any(self) -> None:
        fake = self.fake
        with fake.lock:
            fake.seen.append(Seen(self.command, self.path, dict(self.headers)))
        for mood in list(fake.moods):
            if mood(self):
                if self.command in ("PATCH", "PUT", "POST"):
                    self.close_connection = True  # a body may be left
                return
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        found = re.fullmatch(r"/v2/(.+)/(blobs/uploads|blobs|manifests|referrers)/(.*)", parts.path)
        if not found:
            self.reply(200 if parts.path == "/v2/" else 404)
            return
        repository, kind, rest = found.groups()
        handlers: dict[str, Any] = {"blobs/uploads": self.upload, "blobs": self.blob, "manifests": self.manifest,
                                    "referrers": self.referrer}  # fmt: skip
        handlers[kind](repository, rest, query)

    do_GET = do_HEAD = do_PUT = do_PATCH = do_POST = do_DELETE = handle_any

    def blob(self, repository: str, rest: str, query: Mapping[str, str]) -> None:
        content = self.fake.blobs.get((repository, rest))
        if content is None:
            self.error(404, "BLOB_UNKNOWN")
            return
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if start:
            rest_of = content[int(start[1]) :]
            self.reply(206, rest_of, Content_Range=f"bytes {start[1]}-{len(content) - 1}/{len(content)}")
        else:
            self.reply(200, content, Docker_Content_Digest=rest)

    def upload(self, repository: str, rest: str, query: Mapping[str, str]) -> None:
        fake = self.fake
        if self.command == "POST":
            self.body()
            known = fake.blobs.get((query.get("from", ""), query.get("mount", "")))
            if known is not None and fake.mounts:
                fake.blobs[repository, query["mount"]] = known
                self.reply(201, Location=f"/v2/{repository}/blobs/{query['mount']}")
                return
            with fake.lock:
                fake.begun += 1
                rest = f"u{fake.begun}"
                fake.uploads[rest] = bytearray()
            self.reply(202, Location=f"/v2/{repository}/blobs/uploads/{rest}?state=a", Range="0-0")
            return
        if rest not in fake.uploads:
            self.error(404, "BLOB_UPLOAD_UNKNOWN")
            return
        had = fake.uploads[rest]
        place = f"/v2/{repository}/blobs/uploads/{rest}?state=b"
        if self.command == "DELETE":
            del fake.uploads[rest]
            self.reply(204)
            return
        if self.command in ("PATCH", "PUT"):
            stated = self.headers.get("Content-Range", "")
            if stated and not stated.startswith(f"{len(had)}-"):
                self.body()
                self.reply(416, Location=place, **self.arrived(had))
                return
            had += self.body()
        if self.command == "PUT":
            if digest(bytes(had)) != query.get("digest"):
                self.error(400, "DIGEST_INVALID")
                return
            fake.blobs[repository, query["digest"]] = bytes(had)
            self.reply(201, Location=f"/v2/{repository}/blobs/{query['digest']}")
            return
        self.reply(202 if self.command == "PATCH" else 204, Location=place, **self.arrived(had))

    @staticmethod
    def arrived(had: bytearray) -> dict[str, str]:
        return {"Range": f"0-{len(had) - 1}"} if had else {}

    def manifest(self, repository: str, rest: str, query: Mapping[str, str]) -> None:
        fake = self.fake
        if self.command == "PUT":
            content = self.body()
            plain = json.loads(content)
            named = [plain["config"], *plain["layers"]] if "layers" in plain else []
            missing = [one for one in named if (repository, one["digest"]) not in fake.blobs]
            missing += [one for one in plain.get("manifests", []) if (repository, one["digest"]) not in fake.manifests]
            if missing:
                self.error(400, "MANIFEST_BLOB_UNKNOWN")
                return
            fake.hold_manifest(repository, rest, self.headers["Content-Type"], content)
            subject = {"OCI_Subject": plain["subject"]["digest"]} if fake.referrers and "subject" in plain else {}
            self.reply(201, Docker_Content_Digest=digest(content), **subject)
            return
        kept = fake.manifests.get((repository, rest))
        if kept is None:
            self.error(404, "MANIFEST_UNKNOWN")
        else:
            self.reply(200, kept[1], Content_Type=kept[0], Docker_Content_Digest=digest(kept[1]))

    def referrer(self, repository: str, rest: str, query: Mapping[str, str]) -> None:
        if not self.fake.referrers:
            self.error(404, "UNSUPPORTED")
            return
        listed = []
        for (at, reference), (kind, content) in self.fake.manifests.items():
            plain = json.loads(content)
            if at == repository and reference == digest(content) and plain.get("subject", {}).get("digest") == rest:
                listed.append({"mediaType": kind, "digest": reference, "size": len(content),
                               "artifactType": plain.get("artifactType", "")})  # fmt: skip
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}
        self.reply(200, json.dumps(index).encode(), Content_Type=INDEX)


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[Fake]:
    """Give a fake registry on a port of 127.0.0.1 that the kernel chose."""
    fake = Fake()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("_Bound", (Request,), {"fake": fake}))
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    server.daemon_threads = True
    fake.address = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
