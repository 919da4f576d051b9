"""Download descriptors: the agent's own parser reads them, and reports come back to who delivered the image."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests

from dom0_agent.images.dlota import parse_descriptor
from dom0_agent.images.urls import parse_url
from tests.integration.server.conftest import Virmo
from tests.integration.server.server_process import ServerProcess


@dataclass
class Downloader:
    """Fetches as DLOTA has it: descriptor, object, report."""

    ca_file: str
    code: str = "900 Success"
    content: bytes = b""
    urls: list[str] = field(default_factory=list)

    def fetch(self, url: str) -> int:
        self.urls.append(url)
        answer = requests.get(url, verify=self.ca_file, timeout=30)
        assert answer.headers["Content-Type"].startswith("application/vnd.oma.dd+xml")
        found = parse_descriptor(answer.content, parse_url(url))
        assert found.problem is None
        assert found.notify is not None
        self.content = requests.get(found.object_uri, verify=self.ca_file, timeout=30).content
        assert len(self.content) == found.size
        report = requests.post(found.notify.text, data=f"{self.code}\r\n", verify=self.ca_file, timeout=30)
        return 200 if report.status_code == 204 else 500


def test_an_image_is_delivered_by_its_descriptor(server: ServerProcess, virmo: Virmo, image_file: Path) -> None:
    board = server.add_board("described")
    downloader = Downloader(server.ca_file)
    board.board.fetch = downloader.fetch
    with board.polling():
        words = ("--name", "web", "--file", image_file, "--descriptor", "--wait", "--timeout", 60)
        result = virmo("image", "deliver", "described", *words)
    assert result.status == 0, result.out
    assert downloader.content == image_file.read_bytes()
    assert downloader.urls[0].endswith(".tar.gz.dd")
    image = json.loads(virmo("image", "list", "described", "--json").out)[0]["image_id"]
    assert "900" in virmo("image", "reports", image).out
    reports = json.loads(virmo("image", "reports", image, "--json").out)
    assert [(report["status"], report["text"]) for report in reports] == [(900, "Success")]


@pytest.mark.parametrize(
    ("body", "status"), [(b"900 Success", 404), (b"fine", 400), (b"", 400), (b"9" * 300, 413), (b"900 \xff", 400)]
)
def test_strange_reports_are_refused(server: ServerProcess, body: bytes, status: int) -> None:
    url = f"{server.url}/images/{'0' * 32}/x.img.report"
    assert requests.post(url, data=body, verify=server.ca_file, timeout=30).status_code == status
    assert requests.get(url.replace(".report", ".dd"), verify=server.ca_file, timeout=30).status_code == 404
