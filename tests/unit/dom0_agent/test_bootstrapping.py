"""What ``virmo-agent bootstrap`` refuses before it touches anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from dom0_agent.bootstrapping import Request, bootstrap
from dom0_agent.config import AgentConfig, DeviceConfig
from dom0_agent.omadm.codec import WBXML_MEDIA_TYPE

PROTECTED = f"{WBXML_MEDIA_TYPE}; SEC=NETWORKID; MAC={'00' * 20}"


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    file = tmp_path / "profile.wbxml"
    file.write_bytes(b"\x02\xa4\x01\x6a\x00")
    return file


@pytest.mark.parametrize(
    ("source", "content_type", "key", "complaint"),
    [
        ("nowhere.wbxml", PROTECTED, None, "nowhere.wbxml cannot be read: No such file"),
        (None, PROTECTED, "nowhere.key", "nowhere.key cannot be read: No such file"),
        (None, PROTECTED, None, "--network-id-file is needed"),
        (None, WBXML_MEDIA_TYPE, None, "no MAC"),
        (None, "text/html", None, "not 'text/html'"),
        (None, f"{WBXML_MEDIA_TYPE}; SEC=NETWORKID", None, "needs both SEC"),
        ("http://127.0.0.1:1/p", PROTECTED, None, "only https"),
        ("https://[::1", PROTECTED, None, "cannot be used as an address"),
        ("https://127.0.0.1:1/p", PROTECTED, None, "cannot be reached"),
    ],
)
def test_what_cannot_be_taken_is_said_in_a_sentence(
    tmp_path: Path,
    profile: Path,
    capsys: pytest.CaptureFixture[str],
    source: str | None,
    content_type: str,
    key: str | None,
    complaint: str,
) -> None:
    config = AgentConfig(DeviceConfig("urn:uuid:1"), state_dir=tmp_path / "state")
    key_file = None if key is None else tmp_path / key
    request = Request(source or str(profile), content_type, network_id_file=key_file)
    assert bootstrap(config, request) == 1
    assert complaint in capsys.readouterr().err
    assert not config.state_dir.exists(), "nothing was opened for it"
