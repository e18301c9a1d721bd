"""What stands behind an MLflow server in earnest: PostgreSQL, and S3 (moto's server); and the server itself."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import REQUIRED, free_port

BUCKET = "models"
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


def _programs() -> Path:
    """Return the folder of PostgreSQL's programs; the test is skipped where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    which = shutil.which("initdb")
    if not found and not which:
        if "postgres" in REQUIRED:
            pytest.fail("PostgreSQL is not installed (apt-get install postgresql)")
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    return found[-1].parent if found else Path(str(which)).parent


@contextmanager
def postgres() -> Iterator[str]:
    """Run a PostgreSQL server as a user without rights; gives the address of its database."""
    programs = _programs()
    top = Path(tempfile.mkdtemp(prefix="modelrel-postgres-", dir="/tmp"))  # where anybody may go
    user = pwd.getpwnam("nobody" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name)
    os.chown(top, user.pw_uid, user.pw_gid)
    data, port = top / "data", free_port()

    def call(*words: object) -> None:
        as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if os.getuid() == 0 else {}
        with (top / "log").open("ab") as log:
            subprocess.run([str(word) for word in words], check=True, stdout=log, stderr=log, cwd=top, **as_user)

    try:
        call(programs / "initdb", "--auth", "trust", "--username", "test", "--no-sync", "--pgdata", data)
        options = f"-p {port} -k {top} -c listen_addresses=127.0.0.1 -c fsync=off"
        call(programs / "pg_ctl", "start", "-w", "-t", "120", "-D", data, "-o", options)
        try:
            yield f"postgresql+psycopg2://test@127.0.0.1:{port}/postgres"
        finally:
            call(programs / "pg_ctl", "stop", "-m", "immediate", "-D", data)
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"PostgreSQL: {(top / 'log').read_text()[-2000:]}") from error
    finally:
        shutil.rmtree(top, ignore_errors=True)


@contextmanager
def running(words: Sequence[str], url: str, log: Path, env: Mapping[str, str] | None = None) -> Iterator[str]:
    """Run a server until the end of the block; gives `url` once it answers there, with whatever status."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            words,
            stdout=stream,
            stderr=stream,
            cwd=log.parent,
            start_new_session=True,
            env={**os.environ, **(env or {})},
        )
    try:
        _answering(url, process, log)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answering(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    while process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"the server did not start: {log.read_text()[-3000:]}")


@contextmanager
def s3(folder: Path) -> Iterator[str]:
    """Run moto's server with one empty bucket; gives its address."""
    import boto3

    port = free_port()
    words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with running(words, f"http://127.0.0.1:{port}", folder / "s3.log") as url:
        client = boto3.client(
            "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
        )
        client.create_bucket(Bucket=BUCKET)
        yield url


@contextmanager
def mlflow_server(folder: Path, *options: str, python: str = sys.executable, **env: str) -> Iterator[str]:
    """Run `mlflow server`; gives its address."""
    port = free_port()
    env = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **env}
    words = [python, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", *options]
    with running(words, f"http://127.0.0.1:{port}", folder / "mlflow.log", env) as url:
        yield url
