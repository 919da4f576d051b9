"""Client certificates of boards, and signatures of images, on a real server over TLS."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import requests

from dom0_agent.omadm.session import EndReason
from tests.integration.server.conftest import POSTGRESQL, SQLITE, Virmo
from tests.integration.server.server_process import ServerProcess
from tests.unit.virmo_server.test_signatures import Signer
from virmo_server.certificates import make_certificates, make_client_certificate
from virmo_server.initialise import issue_client_certificate
from virmo_server.main import main

BACKENDS = (SQLITE, POSTGRESQL)


def test_a_board_that_must_show_its_certificate(server: ServerProcess, tmp_path: Path, virmo: Virmo) -> None:
    """With another one, or none, it is turned away before its message is looked at; operators see why."""
    backend = tmp_path.name
    board = server.add_board(f"sealed-{backend}")
    assert board.session().ok
    config = server.installation.config
    own, other = (issue_client_certificate(config, name, tmp_path) for name in ("board-1", "board-2"))
    assert virmo("device", "set", f"sealed-{backend}", "--certificate", "CN=board-1").status == 0
    for certificate, shown in ((None, "none"), (str(other), "CN=board-2")):
        board.http.close()
        board.http.cert = certificate
        with pytest.raises(AssertionError, match="has to show the certificate of CN=board-1"):
            board.session()
        device = server.client.get(f"/devices/sealed-{backend}")
        assert device["auth_failure"] == f"wrong client certificate ({shown})"
    board.http.close()
    board.http.cert = str(own)
    outcome = board.session()
    assert outcome.ok, outcome
    assert server.client.get(f"/devices/sealed-{backend}")["auth_failed_at"] is None
    assert virmo("device", "set", f"sealed-{backend}", "--certificate", "").status == 0
    board.http.close()
    board.http.cert = None
    assert board.session().reason is EndReason.DONE


def test_a_certificate_of_another_ca_ends_the_handshake(server: ServerProcess, tmp_path: Path) -> None:
    pair = make_client_certificate(make_certificates(["x"]).ca, "board-1")
    (tmp_path / "foreign.pem").write_bytes(pair.certificate + pair.key)
    with pytest.raises(requests.ConnectionError):
        requests.get(
            f"{server.url}/health", verify=server.ca_file, cert=str(tmp_path / "foreign.pem"), timeout=10
        ).raise_for_status()


def test_the_trial_ca_makes_certificates(
    server: ServerProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--config", str(server.installation.config_file), "certificate", "board-9", "--into", str(tmp_path)]
    assert main(arguments) == 0
    assert "--certificate CN=board-9" in capsys.readouterr().out
    assert (tmp_path / "board-9.pem").stat().st_mode & 0o077 == 0
    with pytest.raises(SystemExit):
        main([*arguments[:3], "../board", *arguments[4:]])
    assert main(arguments) == 1  # it is never overwritten


def test_a_detached_signature_is_passed_on(server: ServerProcess, tmp_path: Path, virmo: Virmo) -> None:
    """This server has no CA for signatures: they are kept and handed on, for who can check them."""
    signer = Signer(tmp_path, "Image-Factory")
    file, signature = tmp_path / "disk.img", tmp_path / "disk.p7s"
    file.write_bytes(b"raw disk" * 1000)
    signature.write_bytes(signer.sign(file.read_bytes()))
    missing = virmo("image", "upload", str(file), "--signature", str(tmp_path / "none.p7s"))
    assert (missing.status, missing.err.count("\n")) == (3, 1)
    assert "none.p7s: cannot be read: No such file" in missing.err
    assert virmo("image", "upload", str(file), "--signature", str(signature)).status == 0
    image = next(image for image in server.client.get("/images") if image["signature_url"] is not None)
    assert (image["signature"], image["signed_by"]) == ("unchecked", None)
    passed_on = requests.get(image["signature_url"], verify=server.ca_file, timeout=10)
    assert passed_on.content == signature.read_bytes()
    assert passed_on.headers["content-type"] == "application/pkcs7-signature"
    server.client.delete(f"/images/{image['id']}")
    assert requests.get(image["signature_url"], verify=server.ca_file, timeout=10).status_code == 404


@pytest.mark.parametrize("signature", ["no base64", base64.b64encode(bytes(9300)).decode()])
def test_a_signature_has_a_form(server: ServerProcess, signature: str) -> None:
    query = {"name": "x", "file_name": "x", "media_type": "a/b", "signature": signature}
    headers = {"Authorization": f"Bearer {server.token}"}
    response = requests.post(
        f"{server.url}/api/v1/images", params=query, data=b"x", headers=headers, verify=server.ca_file, timeout=10
    )
    assert response.status_code == 422
    assert response.json()["errors"][0].startswith("signature:")
