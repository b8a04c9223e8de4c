"""What went wrong when a connection was to be encrypted, and what mends it."""

from __future__ import annotations

import ssl
from typing import Final

_EXPIRED, _NOT_YET, _WRONG_HOST, _WRONG_ADDRESS = 10, 9, 62, 64
_AUTHORITY: Final = "name the authority that signed it: ?ssl_ca_certs=FILE in the URL, or SSL_CERT_FILE"
_REMEDIES: Final = {
    _EXPIRED: "renew the server's certificate; if it holds, set this machine's clock",
    _NOT_YET: "set this machine's clock, or the server's certificate",
    _WRONG_HOST: "use the name that the certificate is for, or have one made for this host",
    _WRONG_ADDRESS: "use the name that the certificate is for, or have one made for this address",
}
"""By OpenSSL's number of the fault (X509_V_ERR_...); any other means that the signer is not known."""


def tls_fault(error: BaseException) -> tuple[str, str] | None:
    """(why, remedy) when `error` comes of TLS; None when it comes of anything else."""
    found = _cause(error)
    if isinstance(found, ssl.SSLCertVerificationError):
        why = f"its certificate is refused: {found.verify_message}"
        return why, _REMEDIES.get(found.verify_code, _AUTHORITY)
    if found is None:
        return None
    if found.library in {"X509", "PEM"} or "PEM lib" in str(found):  # before anything was sent
        why = f"a file that the URL names cannot be used: {found.reason or found}"
        return why, "give PEM: certificates in ssl_ca_certs and ssl_certfile, in ssl_keyfile the key of the latter"
    if found.reason in {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"}:
        return "it answers, but not with TLS", "ask its port for TLS, or write redis:// if nobody else is on the path"
    return f"TLS failed: {found.reason or found}", "give what the server asks for: ?ssl_certfile=FILE&ssl_keyfile=FILE"


def _cause(error: BaseException | None) -> ssl.SSLError | None:
    """redis-py raises an error of its own while it handles the one that says more."""
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return error
