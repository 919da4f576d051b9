"""``virmo-agent ddf``: the DDF of what is shipped (R-170)."""

from __future__ import annotations

from pathlib import Path

import pytest
from lxml import etree

from dom0_agent import cli
from dom0_agent.mo.catalogue import CATALOGUE


@pytest.fixture
def file(tmp_path: Path) -> str:
    made = tmp_path / "agent.yaml"
    made.write_text('device: {id: "urn:uuid:1", manufacturer: Example}\n')
    return str(made)


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_each_object_has_a_ddf(file: str, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert cli.main(["--config", file, "ddf", name]) == 0
    root = etree.fromstring(capsys.readouterr().out.encode(), etree.XMLParser(resolve_entities=False, no_network=True))
    assert root.tag == "MgmtTree"
    assert root.findtext("Man") == "Example"
    assert root.findtext("Node/NodeName") == name


def test_names_are_listed(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--config", file, "ddf"]) == 0
    assert capsys.readouterr().out.split() == list(CATALOGUE)


def test_an_unknown_object_is_refused(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--config", file, "ddf", "Nothing"]) == 2
    said = capsys.readouterr().err
    assert "no object 'Nothing'" in said
    assert all(name in said.partition("there are ")[2] for name in CATALOGUE)
