"""What operators meet: errors of the command line, tokens and roles, output for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import requests
import yaml

from tests.integration.server.conftest import Virmo
from tests.integration.server.server_process import ServerProcess, free_port
from virmo_server.certificates import make_certificates


def test_unreachable_server(virmo: Virmo) -> None:
    result = virmo("--server", f"https://127.0.0.1:{free_port()}", "device", "list")
    assert result.status == 3
    assert "cannot be reached (Connection refused): is 'virmo-server serve' running there" in result.err


def test_unknown_ca(virmo: Virmo, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(make_certificates(["x"]).ca.certificate)
    result = virmo("--ca", other, "device", "list")
    assert result.status == 3
    assert "is not signed by a CA that you trust" in result.err
    assert "VIRMO_CA" in result.err


def test_certificate_for_another_host(server: ServerProcess, virmo: Virmo) -> None:
    result = virmo("--server", f"https://127.0.0.2:{server.port}", "device", "list")
    assert result.status == 3
    assert "is for another host" in result.err or "cannot be reached" in result.err


def test_wrong_token(virmo: Virmo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIRMO_TOKEN", "virmo_wrong")
    result = virmo("device", "list")
    assert result.status == 3
    assert "does not know this token" in result.err


def test_unknown_device(virmo: Virmo) -> None:
    result = virmo("vm", "list", "nowhere")
    assert (result.status, result.out) == (3, "")
    assert result.err == "virmo: there is no device 'nowhere': see 'virmo device list'\n"


def test_not_a_virmo_server(virmo: Virmo, server: ServerProcess) -> None:
    result = virmo("--server", f"{server.url}/elsewhere", "device", "list")
    assert "is this a VirMO Server?" in result.err


def test_missing_settings(virmo: Virmo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("VIRMO_CONFIG")
    monkeypatch.setenv("HOME", str(tmp_path))
    result = virmo("device", "list")
    assert result.status == 2
    assert "Set VIRMO_SERVER" in result.err


def test_settings_from_the_environment(
    server: ServerProcess, virmo: Virmo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("VIRMO_CONFIG")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("VIRMO_SERVER", server.url)
    monkeypatch.setenv("VIRMO_TOKEN", server.token)
    monkeypatch.setenv("VIRMO_CA", server.ca_file)
    assert virmo("device", "list").status == 0


def test_agent_config_alone_is_yaml(virmo: Virmo) -> None:
    result = virmo("device", "add", "yaml-board", "--dev-id", "urn:uuid:yaml-board", "--agent-config")
    config = yaml.safe_load(result.out)
    assert config["device"] == {"id": "urn:uuid:yaml-board"}
    account = config["dm"]["accounts"][0]
    assert account["client"]["name"] == "yaml-board"
    assert account["server_id"] == "virmo-server"


def test_second_registration_is_refused(virmo: Virmo) -> None:
    virmo("device", "add", "twice", "--dev-id", "urn:uuid:twice")
    result = virmo("device", "add", "twice", "--dev-id", "urn:uuid:other")
    assert result.status == 3
    assert "device 'twice'" in result.err
    assert "is registered already" in result.err


def test_invalid_name_is_explained(virmo: Virmo) -> None:
    result = virmo("device", "add", "two words", "--dev-id", "urn:uuid:x")
    assert result.status == 3
    assert "name: String should match pattern" in result.err


def test_cancelled_order(server: ServerProcess, virmo: Virmo) -> None:
    server.add_board("lazy")
    order = json.loads(virmo("device", "refresh", "lazy", "--json").out)
    cancelled = virmo("order", "cancel", order["id"])
    assert cancelled.status == 0
    assert "cancelled before anything was sent" in cancelled.out
    shown = virmo("order", "show", order["id"])
    assert "cancelled" in shown.out
    assert virmo("order", "show", order["id"], "--wait").status == 1
    assert "has ended already" in virmo("order", "cancel", order["id"]).err


@pytest.mark.parametrize("arguments", [(), ("device", "add"), ("vm",), ("order", "show"), ("image", "deliver")])
def test_help(virmo: Virmo, arguments: tuple[str, ...]) -> None:
    result = virmo(*arguments, "--help")
    assert result.status == 0
    assert "usage: virmo" in result.out


def token(server: ServerProcess, role: str) -> str:
    """A fresh token of that role."""
    name = f"{role}-{free_port()}"
    view = server.client.post("/tokens", {"name": name, "role": role})
    return str(view["token"])


@pytest.mark.parametrize(
    ("role", "method", "path", "status"),
    [
        ("viewer", "GET", "/devices", 200),
        ("viewer", "POST", "/devices/any/orders", 403),
        ("viewer", "POST", "/images", 403),
        ("operator", "POST", "/devices/any/orders", 422),
        ("operator", "POST", "/devices", 403),
        ("operator", "GET", "/tokens", 403),
        ("admin", "GET", "/tokens", 200),
    ],
)
def test_roles(server: ServerProcess, role: str, method: str, path: str, status: int) -> None:
    response = requests.request(
        method,
        f"{server.url}/api/v1{path}",
        headers={"Authorization": f"Bearer {token(server, role)}"},
        json={},
        verify=server.ca_file,
        timeout=10,
    )
    assert response.status_code == status, response.text


def test_revoked_token_is_void(server: ServerProcess) -> None:
    view = server.client.post("/tokens", {"name": "leaver", "role": "viewer"})
    headers = {"Authorization": f"Bearer {view['token']}"}
    url = f"{server.url}/api/v1/devices"
    assert requests.get(url, headers=headers, verify=server.ca_file, timeout=10).status_code == 200
    server.client.delete("/tokens/leaver")
    refused = requests.get(url, headers=headers, verify=server.ca_file, timeout=10)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"].startswith("Bearer")
    assert refused.headers["content-type"] == "application/problem+json"


def test_openapi_document_lists_every_path(server: ServerProcess) -> None:
    document = requests.get(f"{server.url}/api/v1/openapi.json", verify=server.ca_file, timeout=10).json()
    assert document["openapi"] == "3.1.0"
    assert "/api/v1/devices/{device}/orders" in document["paths"]
    assert set(document["paths"]["/api/v1/images"]) == {"get", "post"}
