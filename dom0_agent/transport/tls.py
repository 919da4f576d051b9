"""TLS settings of an account; apart from the transport, so that reading a configuration loads no HTTP library."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dom0_agent.config_schema import setting


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """How the server's certificate is checked and ours is shown."""

    ca_file: Path | None = setting(
        "PEM file with the CA that signed the server's certificate; default: the system's", None
    )
    client_certificate: Path | None = setting("PEM file with our certificate, when the server asks for one", None)
    client_key: Path | None = setting("PEM file with its key", None)
    allow_plain_http: bool = setting("accept http:// addresses (tests only: secrets can be read on the way)", False)
