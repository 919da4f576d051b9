"""Whose certificate a TLS client has shown: uvicorn verifies it against ``tls.client_ca``, the application asks here.

A client may come without. What a certificate is good for is decided where it is looked at.
"""

from __future__ import annotations

import asyncio
import ssl

from cryptography import x509
from starlette.requests import Request
from uvicorn.protocols.http.h11_impl import H11Protocol

_STATE = "client_subject"


class CertificateProtocol(H11Protocol):
    """HTTP/1.1 that tells each request the subject of its connection's client certificate."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The handshake is over."""
        super().connection_made(transport)
        tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        certificate = None if tls is None else tls.getpeercert(binary_form=True)
        if certificate:
            self.app_state = {**self.app_state, _STATE: subject_of(certificate)}


def subject_of(certificate: bytes) -> str:
    """The subject of a DER certificate as RFC 4514 writes it, such as ``CN=board-1,O=Example``."""
    return x509.load_der_x509_certificate(certificate).subject.rfc4514_string()


def client_subject(request: Request) -> str | None:
    """The subject of the verified certificate that the request's sender has shown, ``None`` without one."""
    subject: str | None = request.scope.get("state", {}).get(_STATE)
    return subject
