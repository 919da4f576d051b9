"""Configuration errors name file, key and expectation; secrets are sealed; certificates fit their hosts."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.fernet import Fernet

from virmo_server.certificates import make_certificates
from virmo_server.config import ConfigError, load_config
from virmo_server.initialise import initialise
from virmo_server.vault import NONCE_BYTES, SALT_BYTES, Vault, VaultError


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "server.yaml"
    path.write_text(text)
    return path


GOOD = "public_url: https://virmo.example:8443\nstate_dir: state\n"


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, GOOD + "tls: {certificate: a.pem, key: b.pem}\n"))
    assert config.state_dir == tmp_path / "state"
    assert config.tls is not None
    assert config.tls.key == tmp_path / "b.pem"
    assert config.database == f"sqlite:///{tmp_path}/state/virmo.db"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "colour: blue\n", "server.yaml: colour: unknown key"),
        (GOOD + "listen: {port: many}\n", "listen.port: Input should be a valid integer"),
        (GOOD + "listen: {port: 70000}\n", "listen.port: Input should be less than or equal to 65535"),
        ("state_dir: x\n", "public_url: Field required"),
        ("public_url: virmo\nstate_dir: x\n", "expected an address such as https://"),
        ("- a list\n", "expected a mapping"),
        ("a: [\n", "not YAML"),
        (GOOD + "dm: {step_attempts: 0}\nlog_level: loud\n", "log_level"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=r"server\.yaml") as caught:
        load_config(write(tmp_path, text))
    assert message in str(caught.value)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, "colour: blue\nsize: 3\n"))
    assert len(str(caught.value).splitlines()) == 4


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_config(tmp_path / "none.yaml")


def test_init_makes_what_serve_and_virmo_need(tmp_path: Path) -> None:
    made = initialise(tmp_path / "trial", hosts=["10.0.2.2"], listen="0.0.0.0", port=9443, server_id="srv")  # noqa: S104
    config = load_config(made.config_file)
    assert (config.server_id, config.public_url, config.listen.port) == ("srv", "https://10.0.2.2:9443", 9443)
    client = yaml.safe_load(made.client_config_file.read_text())
    assert client["server"] == "https://localhost:9443"
    assert client["token"].startswith("virmo_")
    for secret in (made.client_config_file, tmp_path / "trial/tls/server.key", tmp_path / "trial/tls/ca.key"):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600


def test_init_never_overwrites(tmp_path: Path) -> None:
    initialise(tmp_path, hosts=[], listen="127.0.0.1", port=1, server_id="srv")
    with pytest.raises(ConfigError, match="exists already"):
        initialise(tmp_path, hosts=[], listen="127.0.0.1", port=1, server_id="srv")


def test_certificate_names_every_host() -> None:
    pair = make_certificates(["virmo.example", "10.0.2.2", "::1"]).server
    certificate = x509.load_pem_x509_certificate(pair.certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["virmo.example"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["10.0.2.2", "::1"]


def test_vault_keeps_secrets_from_the_database(tmp_path: Path) -> None:
    vault = Vault(tmp_path / "key")
    sealed = vault.seal("open sesame")
    assert "sesame" not in sealed
    assert Vault(tmp_path / "key").open(sealed) == "open sesame"
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_vault_with_another_key_says_what_to_do(tmp_path: Path) -> None:
    sealed = Vault(tmp_path / "one").seal("secret")
    with pytest.raises(VaultError, match="restore the right one from your backup"):
        Vault(tmp_path / "other").open(sealed)


def test_broken_key_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("not a key")
    with pytest.raises(VaultError, match="is not a key file"):
        Vault(tmp_path / "key")


def test_octets_are_sealed_by_each_process_with_its_own_key(tmp_path: Path) -> None:
    """A forked worker must not use the nonces of its parent; both open what the other has sealed."""
    vault = Vault(tmp_path / "key")
    before = vault.seal_bytes(b"message 1")
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write_end, vault.seal_bytes(b"message 2"))
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        of_child = pipe.read()
    after = vault.seal_bytes(b"message 3")
    opened = [vault.open_bytes(sealed) for sealed in (before, of_child, after)]
    assert opened == [b"message 1", b"message 2", b"message 3"]
    prefixes = {sealed[: SALT_BYTES + NONCE_BYTES] for sealed in (before, of_child, after)}
    assert len(prefixes) == 3
    assert before[:SALT_BYTES] == after[:SALT_BYTES] != of_child[:SALT_BYTES]
    assert b"message" not in before


def test_octets_sealed_by_earlier_versions_are_opened(tmp_path: Path) -> None:
    vault = Vault(tmp_path / "key")
    old = Fernet((tmp_path / "key").read_bytes()).encrypt(b"old")
    assert (vault.open_bytes(old), vault.open(old.decode())) == (b"old", "old")
    with pytest.raises(VaultError, match="not the key"):
        Vault(tmp_path / "other").open_bytes(vault.seal_bytes(b"new"))
    with pytest.raises(VaultError, match="not the key"):
        vault.open_bytes(b"cut off")
