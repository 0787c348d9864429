"""Which certificate the server may show: any that the system trusts, or at our own port exactly ours."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path

from deploy.cli.errors import Stopped

END = "-----END CERTIFICATE-----"


def trust(url: str, environment: Mapping[str, str]) -> ssl.SSLContext | bool:
    """What a connection to this address is verified with.

    Our own address is on this machine, and no certificate names it: there the first one in the file of the
    settings is expected, whatever names it has and whoever signed it.
    """
    file = environment.get("POSTHOUSE_TLS_CERT", "")
    if not file or url.rstrip("/") != environment.get("POSTHOUSE_URL", "").rstrip("/"):
        return True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cadata=_first(Path(file).read_text()))
    except (OSError, ValueError, ssl.SSLError) as error:
        raise Stopped(f"POSTHOUSE_TLS_CERT: {file} cannot be read: {error}.") from None
    return context


def _first(text: str) -> str:
    """The certificate of the server; those after it have signed others too."""
    before, end, _ = text.partition(END)
    return before[before.find("-----BEGIN CERTIFICATE-----") :] + end + "\n"
