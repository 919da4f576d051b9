"""The agent's own configuration: the rules beyond types, and its reference."""

from __future__ import annotations

from pathlib import Path

import pytest

from dom0_agent.config import AgentConfig
from dom0_agent.config_schema import ConfigError, parse, reference_table

FILE = Path("agent.yaml")
ROOT = Path(__file__).parents[3]

ACCOUNT = """
      - server_id: {server_id}
        address: {address}
        client: {{name: board-1, secret: s, nonce: "{nonce}"}}
        server: {{name: srv, secret: t}}
"""


def config(accounts: str = "", device: str = "urn:uuid:1", more: str = "") -> AgentConfig:
    return parse(AgentConfig, f'device: {{id: "{device}"}}\ndm:\n  poll_interval: 5\n{accounts}{more}', FILE)


def accounts(*server_ids: str, address: str = "https://10.0.2.2:8443/dm", nonce: str = "") -> str:
    rows = [ACCOUNT.format(server_id=server_id, address=address, nonce=nonce) for server_id in server_ids]
    return "  accounts:" + "".join(rows)


def test_the_shape_of_the_documentation_is_read() -> None:
    read = config(accounts("virmo-server", nonce="Tm9uY2U="))
    (account,) = read.dm.accounts
    assert (account.server_id, account.client.auth, account.client.nonce_octets) == ("virmo-server", "md5", b"Nonce")


def test_images_lie_below_the_state_directory() -> None:
    assert config(more="state_dir: /srv/virmo\n").images.dir == Path("/srv/virmo/images")
    assert config(more="state_dir: /srv/virmo\nimages: {dir: /mnt/x}\n").images.dir == Path("/mnt/x")


@pytest.mark.parametrize(
    ("build", "complaint"),
    [
        (lambda: config(accounts("a=b")), "server_id must not"),
        (lambda: config(accounts("a", "a")), "each server_id may be there once"),
        (lambda: config(accounts("a", address="ftp://x")), "address must be an https"),
        (lambda: config(accounts("a", nonce="!")), "nonce is not base64"),
        (lambda: config(device="board"), "id must be a URN"),
        (lambda: config(more="state_dir: here\n"), "state_dir must be an absolute path"),
    ],
)
def test_what_cannot_work_is_refused(build: object, complaint: str) -> None:
    assert callable(build)
    with pytest.raises(ConfigError, match=complaint):
        build()


def test_the_reference_in_the_readme_is_todays() -> None:
    readme = (ROOT / "dom0_agent" / "README.md").read_text(encoding="utf-8")
    assert reference_table(AgentConfig) in readme


def test_every_setting_is_explained() -> None:
    for row in reference_table(AgentConfig).splitlines()[2:]:
        assert row.rstrip(" |").count("|") == 4, row
