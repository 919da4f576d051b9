"""``virmoctl`` against a control socket, and the overview behind it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dom0_agent import virmoctl
from dom0_agent.config import AgentConfig
from dom0_agent.config_schema import parse
from dom0_agent.control import ControlServer
from dom0_agent.dm_session import SessionReport
from dom0_agent.hypervisor.sim.toolstack import open_sim
from dom0_agent.overview import Overview
from dom0_agent.store.database import Database
from dom0_agent.store.outbox import Outbox
from tests.unit.mo.engines import MemoryImages, MemoryVms

CONFIG = """
device: {id: "urn:uuid:1"}
hypervisor: {backend: sim}
dm:
  accounts:
    - server_id: srv
      address: https://127.0.0.1/dm
      client: {name: b, secret: s}
      server: {name: srv, secret: t}
"""


class Agent:
    """The overview of an agent, served on a socket."""

    def __init__(self, folder: Path) -> None:
        self.vms, self.images = MemoryVms(), MemoryImages()
        self.database = Database(folder / "agent.sqlite")
        self.hypervisor = open_sim(folder / "sim", environment={})
        config = parse(AgentConfig, CONFIG, folder / "agent.yaml")
        self.overview = Overview(config, self.hypervisor, self.vms, self.images, Outbox(self.database))
        self.socket = folder / "control.sock"
        self.server = ControlServer(
            self.socket,
            {
                "status": lambda _: self.overview.status(),
                "vm.list": lambda _: self.overview.vms(),
                "vm.show": lambda call: self.overview.vm(call["vm"]),
                "image.list": lambda _: self.overview.images(),
            },
        )

    def run(self, *words: str) -> int:
        return virmoctl.main(["--socket", str(self.socket), *words])

    def close(self) -> None:
        self.server.close()
        self.hypervisor.close()
        self.database.close()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    made = Agent(tmp_path)
    yield made
    made.close()


def test_status_tells_of_servers_and_sessions(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    agent.overview.note_session(SessionReport("srv", True, "the session ended well"))
    assert agent.run("status") == 0
    shown = capsys.readouterr().out
    assert "urn:uuid:1" in shown
    assert "the session ended well" in shown


@pytest.mark.parametrize("words", [("vm", "list"), ("image", "list")])
def test_nothing_is_said_to_be_nothing(
    agent: Agent, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert agent.run(*words) == 0
    assert capsys.readouterr().out.startswith("no ")


def test_vms_are_listed_and_shown_by_node_or_vmid(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    vmid = agent.vms.add()
    agent.overview.nodes = {str(vmid): "./VirMO/web"}
    assert agent.run("vm", "list") == 0
    assert "./VirMO/web" in capsys.readouterr().out
    for name in ("web", "./VirMO/web", str(vmid)):
        assert agent.run("vm", "show", name, "--json") == 0
        assert json.loads(capsys.readouterr().out)["state"] == "NOT_CREATED"


def test_what_is_being_done_with_a_vm_is_told(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    """Issue: ``virmoctl vm show`` tells the running step."""
    vmid = agent.vms.add()
    running = replace(agent.vms.records[vmid], running_step="saving the guest", progress=40)
    agent.vms.records[vmid] = running
    assert agent.run("vm", "show", str(vmid)) == 0
    shown = {line.split("  ")[0]: line.split("  ")[-1].strip() for line in capsys.readouterr().out.splitlines()}
    assert (shown["running step"], shown["progress"]) == ("saving the guest", "40 %")
    assert agent.run("vm", "list") == 0
    assert "saving the guest (40 %)" in capsys.readouterr().out


def test_an_unknown_vm_is_an_error(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    assert agent.run("vm", "show", "none") == 1
    assert "there is no VM 'none'" in capsys.readouterr().err


def test_json_may_stand_before_or_after_the_command(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    agent.images.add()
    for words in (("--json", "image", "list"), ("image", "list", "--json")):
        assert agent.run(*words) == 0
        assert json.loads(capsys.readouterr().out)[0]["state"] == "NOT_DOWNLOADED"


def test_json_has_numbers_where_people_get_units(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    assert agent.run("status") == 0
    assert "free memory  3.0 GiB" in capsys.readouterr().out
    assert agent.run("status", "--json") == 0
    status = json.loads(capsys.readouterr().out)
    assert status["free_memory"] == agent.hypervisor.host().free_memory
    assert status["uptime"] >= 0


def test_no_agent_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert virmoctl.main(["--socket", str(tmp_path / "none"), "status"]) == 1
    assert "is virmo-agent running?" in capsys.readouterr().err
