"""The certificate of a server."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .options import Settings


class BadCertificate(Exception):
    """The certificate or its key cannot be used; the message is one sentence."""


def context(settings: Settings) -> ssl.SSLContext:
    """Return a context of TLS 1.2 and later with the certificate of the settings. Raises ``BadCertificate``."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    load_certificate(made, settings)
    return made


def load_certificate(made: ssl.SSLContext, settings: Settings) -> None:
    """Read the certificate, again too: connections from then on get it. Raises ``BadCertificate``."""
    certificate, key = settings.tls_cert, settings.tls_key
    if certificate is None:
        raise BadCertificate("there is a TLS key but no certificate: name it with --tls-cert")
    for path in (certificate, key):
        try:
            if path is not None:
                with open(path, "rb"):  # noqa: PTH123 - ssl says of both files the same, and not which it is
                    pass
        except OSError as error:
            raise BadCertificate(f"{path} cannot be read: {error.strerror}") from error
    try:
        made.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        reason = (error.reason or "no PEM").replace("_", " ").lower()
        raise BadCertificate(
            f"{certificate} and {key or 'its key'} are no certificate with its key: {reason}"
        ) from error


def _no_password() -> str:
    raise BadCertificate("the TLS key is encrypted; give one that is not")
