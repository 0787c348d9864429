"""The certificate of the web port, exchanged for a newer one while connections stay open."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog
from cryptography.x509 import load_pem_x509_certificate

from shared.settings import BadSettings

log = structlog.get_logger()
SOON = timedelta(days=14)


class Certificate:
    """What handshakes are made with: the pair of files as it was when it was read last.

    Each reading makes a context of its own, and every handshake takes the newest that could be made: a pair
    that is broken, or half written, never takes the place of one that works.
    """

    def __init__(self, cert: str, key: str) -> None:
        self._files = Path(cert), Path(key or cert)
        self._newest = self._read()
        self.ends = self._ends()
        """Until when the pair in use is good; None: not known."""
        self.context = self._read()
        self.context.sni_callback = self._hand_over

    def reload(self) -> None:
        """Read both files again; when they cannot be used, say so and go on with the old ones."""
        try:
            self._newest = self._read()
        except BadSettings as error:
            log.error("tls_not_reloaded", reason=str(error))
            return
        self.ends = self._ends()
        self.tell()

    def tell(self) -> None:
        """Say until when the certificate is good."""
        ends = self.ends
        write = log.info if ends is None or ends - datetime.now(UTC) > SOON else log.warning
        write("tls_certificate", file=str(self._files[0]), good_until=ends and ends.isoformat())

    def _hand_over(self, tls: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        tls.context = self._newest

    def _read(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        for name, file in zip(("POSTHOUSE_TLS_CERT", "POSTHOUSE_TLS_KEY"), self._files, strict=True):
            _readable(name, file)
        try:
            context.load_cert_chain(*self._files, password=_no_password)
        except (ssl.SSLError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise BadSettings(
                f"{self._files[0]} and {self._files[1]} are no pair to use: {reason}"
            ) from error
        return context

    def _ends(self) -> datetime | None:
        try:
            return load_pem_x509_certificate(self._files[0].read_bytes()).not_valid_after_utc
        except (OSError, ValueError):
            return None


def certificate_of(cert: str, key: str, http_port: int) -> Certificate | None:
    """None when no file is named; raises BadSettings for files that cannot be used."""
    if cert:
        return Certificate(cert, key)
    for name, value in (("POSTHOUSE_TLS_KEY", key), ("POSTHOUSE_HTTP_PORT", http_port)):
        if value:
            raise BadSettings(f"{name} is for use with POSTHOUSE_TLS_CERT, which is not set")
    return None


def _readable(name: str, file: Path) -> None:
    try:
        file.read_bytes()
    except OSError as error:
        raise BadSettings(f"{name}: {file} cannot be read: {error.strerror}") from error


def _no_password() -> str:
    raise ValueError("the key is encrypted, and nobody is there to open it")
