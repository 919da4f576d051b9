"""Where the server is and what token to show: options, environment, ``~/.config/virmo.yaml``, in this order."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

DEFAULT_FILE = Path(".config") / "virmo.yaml"
KEYS = {"server": "VIRMO_SERVER", "token": "VIRMO_TOKEN", "ca_file": "VIRMO_CA"}
MAX_FILE_BYTES = 65536


class SettingsError(Exception):
    """The settings cannot be used; the message says which and what to do."""


@dataclass(frozen=True, slots=True)
class Settings:
    """``ca_file`` of ``None``: the system's certificate authorities."""

    server: str
    token: str
    ca_file: str | None


def load_settings(
    options: Mapping[str, str | None],
    environment: Mapping[str, str] | None = None,
    home: Path | None = None,
    *,
    needs_token: bool = True,
) -> Settings:
    """Settings from all sources; ``options`` holds ``server``, ``ca_file`` and ``config`` of the command line."""
    environment = os.environ if environment is None else environment
    file_values = _read_file(options.get("config") or environment.get("VIRMO_CONFIG"), home or Path.home())
    values = {key: options.get(key) or environment.get(name) or file_values.get(key) for key, name in KEYS.items()}
    server, token = values["server"], values["token"]
    if not server:
        raise SettingsError(
            "which server? Set VIRMO_SERVER (and VIRMO_TOKEN, VIRMO_CA), or VIRMO_CONFIG to a file with server, token"
            f" and ca_file, or write that file to ~/{DEFAULT_FILE}; 'virmo-server init' makes one"
        )
    if not server.startswith(("https://", "http://")):
        raise SettingsError(f"server is {server!r}: expected an address such as https://virmo.example.org:8443")
    if not token and needs_token:
        raise SettingsError(
            "no token: set VIRMO_TOKEN, or token in the settings file; an admin or 'virmo login NAME' makes one"
        )
    ca_file = values["ca_file"]
    if ca_file and not Path(ca_file).expanduser().is_file():
        raise SettingsError(f"CA file {ca_file} does not exist: set VIRMO_CA, or ca_file in the settings file")
    return Settings(server.rstrip("/"), token or "", str(Path(ca_file).expanduser()) if ca_file else None)


def _read_file(named: str | None, home: Path) -> dict[str, str]:
    path = Path(named).expanduser() if named else home / DEFAULT_FILE
    if not named and not path.is_file():
        return {}
    try:
        with path.open("rb") as file:
            untrusted_tree = yaml.safe_load(file.read(MAX_FILE_BYTES))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{path}: not YAML: {error}") from error
    if not isinstance(untrusted_tree, dict):
        raise SettingsError(f"{path}: expected the keys {', '.join(KEYS)}")
    for key, value in untrusted_tree.items():
        if key not in KEYS or not isinstance(value, str):
            raise SettingsError(f"{path}: {key}: unknown key or not a text; expected {', '.join(KEYS)}")
    return untrusted_tree
