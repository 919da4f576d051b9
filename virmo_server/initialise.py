"""``virmo-server init``: a folder with everything a trial server needs: CA, certificate, configuration, admin token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import yaml

from virmo_server.api.auth import add_token
from virmo_server.certificates import Pair, make_certificates, make_client_certificate
from virmo_server.config import ConfigError, ServerConfig, load_config
from virmo_server.migrate import migrate
from virmo_server.model import Role
from virmo_server.services import open_database

CONFIG_NAME = "virmo-server.yaml"
CLIENT_CONFIG_NAME = "virmo.yaml"
DEFAULT_HOSTS = ("localhost", "127.0.0.1")


@dataclass(frozen=True, slots=True)
class Installation:
    """What was made, for the next steps that are shown."""

    folder: Path
    config: ServerConfig
    config_file: Path
    client_config_file: Path
    ca_file: Path


def initialise(folder: Path, *, hosts: Sequence[str], listen: str, port: int, server_id: str) -> Installation:
    """Make ``folder`` ready. The first of ``hosts`` becomes part of the public URL. Never overwrites a file."""
    config_file = folder / CONFIG_NAME
    if config_file.exists():
        raise ConfigError(f"{config_file} exists already: choose another folder, or remove it to begin anew")
    folder.mkdir(parents=True, exist_ok=True)
    tls = folder / "tls"
    tls.mkdir(mode=0o700, exist_ok=True)
    names = list(dict.fromkeys([*hosts, *DEFAULT_HOSTS]))
    certificates = make_certificates(names)
    ca_file = tls / "ca.pem"
    _write(ca_file, certificates.ca.certificate, public=True)
    _write(tls / "ca.key", certificates.ca.key)
    _write(tls / "server.pem", certificates.server.certificate, public=True)
    _write(tls / "server.key", certificates.server.key)
    public_url = f"https://{_bracketed(names[0])}:{port}"
    settings = {
        "server_id": server_id,
        "public_url": public_url,
        "listen": {"host": listen, "port": port},
        "state_dir": "state",
        "tls": {
            "certificate": "tls/server.pem",
            "key": "tls/server.key",
            "ca": "tls/ca.pem",
            "client_ca": "tls/ca.pem",
        },
    }
    # The other settings have defaults, listed in the README of this package.
    _write(config_file, yaml.safe_dump(settings, sort_keys=False).encode(), public=True)
    config = load_config(config_file)
    config.state_dir.mkdir(mode=0o700, exist_ok=True)
    database = open_database(config)
    try:
        migrate(database)
        with database.write() as session:
            token = add_token(session, name="admin", role=Role.ADMIN, now=datetime.now(UTC))
    finally:
        database.close()
    client = {"server": f"https://localhost:{port}", "ca_file": str(ca_file.resolve()), "token": token}
    client_config_file = folder / CLIENT_CONFIG_NAME
    _write(client_config_file, yaml.safe_dump(client, sort_keys=False).encode())
    return Installation(folder, config, config_file, client_config_file, ca_file)


def issue_client_certificate(config: ServerConfig, name: str, folder: Path) -> Path:
    """A client certificate for a board by the trial CA, with its key in one PEM file; its subject is ``CN=name``."""
    ca = config.tls.client_ca if config.tls is not None else None
    if ca is None or not ca.with_suffix(".key").is_file():
        raise ConfigError(
            "only the trial CA of 'virmo-server init' can make certificates: tls.client_ca beside its key"
        )
    try:
        made = make_client_certificate(Pair(ca.read_bytes(), ca.with_suffix(".key").read_bytes()), name)
    except ValueError as error:
        raise ConfigError(f"{ca} cannot sign: {error}") from error
    path = folder / f"{name}.pem"
    _write(path, made.certificate + made.key)
    return path


def _write(path: Path, content: bytes, *, public: bool = False) -> None:
    path.touch(mode=0o644 if public else 0o600, exist_ok=False)
    path.write_bytes(content)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
