"""The server's YAML configuration, read and validated completely before anything else starts.

Errors name the file, the path of the key and what was expected. Relative paths are relative to the file's folder.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

#: A configuration is a page of text; anything larger is the wrong file.
MAX_CONFIG_BYTES = 1 << 20


class ConfigError(Exception):
    """The configuration cannot be used; the message is for the person who wrote it."""


#: Scheme, host and perhaps a path; also in the API's schema, so that clients can check it before.
BASE_URL_PATTERN = r"^https?://[^\s/?#]+(/[^\s?#]*)?$"


def _check_base_url(url: str) -> str:
    if re.fullmatch(BASE_URL_PATTERN, url) is None:
        raise ValueError("expected an address such as https://virmo.example.org:8443")
    return url.rstrip("/")


BaseUrl = Annotated[
    str, Field(max_length=1024, json_schema_extra={"pattern": BASE_URL_PATTERN}), AfterValidator(_check_base_url)
]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Listen(_Section):
    """Where the server listens."""

    host: str = "127.0.0.1"
    port: int = Field(default=8443, ge=0, le=65535)


class Tls(_Section):
    """PEM files: the certificate (chain) and its key. ``ca``: what clients should trust, shown to operators."""

    certificate: Path
    key: Path
    ca: Path | None = None
    client_ca: Path | None = None  #: who signs the certificates of boards, which may then show one


class Signatures(_Section):
    """Who may sign images. Without ``ca`` signatures are not checked, and boards have to."""

    ca: Path | None = None
    required: bool = False  #: refuse uploads without a signature

    @model_validator(mode="after")
    def _checkable(self) -> Signatures:
        if self.required and self.ca is None:
            raise ValueError("required needs ca, a PEM file")
        return self


class Limits(_Section):
    """What one request may cost the server."""

    message_bytes: int = Field(default=1 << 20, ge=4096, le=2 << 20)  #: one DM message; announced as MaxMsgSize
    object_bytes: int = Field(default=1 << 20, ge=4096)  #: one value of a node; announced as MaxObjSize
    image_bytes: int = Field(default=64 << 30, ge=1)  #: one file of the library
    request_bytes: int = Field(default=1 << 20, ge=4096)  #: one request body of the HTTP API, uploads excepted


class Dm(_Section):
    """Behaviour of DM sessions."""

    session_seconds: int = Field(default=300, ge=10)  #: a session without a message for so long is lost
    order_hours: float = Field(default=24, gt=0)  #: deadline of an order that was given none
    step_attempts: int = Field(default=5, ge=1)  #: a step that was sent so often without an answer fails its order
    resp_uri: bool = True  #: tell devices to send the rest of a session to public_url (or the device's own base_url)
    orders_per_message: int = Field(default=8, ge=1)
    trace_sessions: int = Field(default=5, ge=0, le=100)  #: sessions of each device whose messages are kept to look at


class ServerConfig(_Section):
    """The whole file."""

    server_id: str = Field(default="virmo-server", pattern=r"^[A-Za-z0-9._-]{1,255}$")
    public_url: BaseUrl  #: how devices and operators reach this server; part of each DownloadURI
    state_dir: Path  #: database and image files
    database_url: str | None = None  #: SQLAlchemy URL; default: SQLite in state_dir
    listen: Listen = Listen()
    tls: Tls | None = None  #: without it plain HTTP, for tests and behind a reverse proxy
    signatures: Signatures = Signatures()
    limits: Limits = Limits()
    dm: Dm = Dm()
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"

    @property
    def database(self) -> str:
        """The SQLAlchemy URL in use."""
        return self.database_url or f"sqlite:///{self.state_dir / 'virmo.db'}"

    @property
    def proxied_url(self) -> str | None:
        """The public URL where requests do not show it: without TLS of our own there is a proxy before us."""
        return None if self.tls is not None else self.public_url

    @property
    def image_dir(self) -> Path:
        """Where image files are kept."""
        return self.state_dir / "images"


def load_config(path: Path) -> ServerConfig:
    """Read ``path``; :class:`ConfigError` says what is wrong where."""
    try:
        with path.open("rb") as file:
            untrusted_text = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    if len(untrusted_text) > MAX_CONFIG_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_CONFIG_BYTES} bytes, this is no configuration")
    try:
        untrusted_tree = yaml.safe_load(untrusted_text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    if not isinstance(untrusted_tree, dict):
        raise ConfigError(f"{path}: expected a mapping of settings, found {type(untrusted_tree).__name__}")
    try:
        config = ServerConfig.model_validate(untrusted_tree)
    except ValidationError as error:
        raise ConfigError("\n".join(f"{path}: {describe_error(detail)}" for detail in error.errors())) from error
    return _anchored(config, path.resolve().parent)


def describe_error(detail: ErrorDetails) -> str:
    """One validation error as ``path.of.key: what was expected``; also used for request bodies. Never shows values."""
    where = ".".join(str(part) for part in detail["loc"]) or "(whole)"
    what = "unknown key" if detail["type"] == "extra_forbidden" else detail["msg"]
    return f"{where}: {what}"


def _anchored(config: ServerConfig, folder: Path) -> ServerConfig:
    tls = config.tls
    if tls is not None:
        tls = tls.model_copy(
            update={
                "certificate": folder / tls.certificate,
                "key": folder / tls.key,
                "ca": None if tls.ca is None else folder / tls.ca,
                "client_ca": None if tls.client_ca is None else folder / tls.client_ca,
            }
        )
    signatures = config.signatures
    if signatures.ca is not None:
        signatures = signatures.model_copy(update={"ca": folder / signatures.ca})
    return config.model_copy(update={"state_dir": folder / config.state_dir, "tls": tls, "signatures": signatures})
