"""A server, a board on nested Xen and a running VM on it, with somebody at its console: what tests of guests need.

The operator's side is the ``virmo`` command line, the guest's side its console, as ``xl console`` has it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml

from image.guest import build_guest
from image.story.nested_board import NestedBoard
from image.story.server import Server
from image.story.steps import DEV_ID, DEVICE, agent_yaml
from tests.nested.conftest import eventually
from tests.nested.guest_console import Console

MEDIA_TYPE = "application/vnd.virmo.bundle+tar"
VM = "web"
#: Seconds for an order on a busy machine under emulation.
PATIENCE = 300.0


class Site:
    """A server, a board on nested Xen, and on it a running VM with somebody at its console."""

    def __init__(self, folder: Path, guest_type: str, transport: str, **sections: dict[str, Any]) -> None:
        """``sections`` of the agent's configuration that are to be other than usual."""
        self.folder = folder
        self.bundle = build_guest("x86_64", guest_type=guest_type)
        self.board = NestedBoard(self.bundle, "x86_64", "credit2", lambda _line: None)
        self.server = Server(folder / "server", self.board.server_host)
        self.server.start()
        url = self.board.notification_url
        added = self.server.virmo("device", "add", DEVICE, "--dev-id", DEV_ID, "--notify-url", url, "--agent-config")
        self._config: dict[str, Any] = yaml.safe_load(agent_yaml(added))
        usual = {"default_storage": 1 << 20, "shutdown_wait": 30, "bridge": "xenbr0"}
        self._config["vm"] = {**self._config.get("vm", {}), **usual}
        self._config["fumo"] = {"health_timeout": 120}
        self._config.update(sections)
        self._at_domid = 0  # whose console we are at: nobody's
        self.use(transport)
        deliver = ("image", "deliver", DEVICE, "--name", "sample", "--file", str(self.bundle))
        assert self.order(*deliver, "--media-type", MEDIA_TYPE)["state"] == "done"
        created = self.order("vm", "create", DEVICE, VM, "--image", "sample")
        assert created["state"] == "done", created
        listed = self.listed()
        self.vmid, self.uri = UUID(listed["vmid"]), listed["uri"]
        self.attach()
        self.greeted(transport)

    def attach(self) -> None:
        """Sit down at the console of the domain that there is now; two readers of one would share what it shows."""
        domain = self.board.domain(self.vmid)
        assert domain is not None, f"VM {self.vmid} has no domain"
        if domain.domid != self._at_domid:
            self.console, self._at_domid = Console(self.board.dom0, self.vmid), domain.domid

    def listed(self) -> dict[str, Any]:
        """What the server knows of the VM."""
        row: dict[str, Any] = self.server.virmo_json("vm", "list", DEVICE)[0]
        return row

    def use(self, transport: str) -> None:
        """(Re)start the agent with this kind of channel."""
        self.transport = transport
        self._config["guest"] = {"transport": transport}
        self.board.start_agent(yaml.safe_dump(self._config), self.server.ca_file)

    def greeted(self, transport: str) -> None:
        """Wait until the guest's shim is connected over that channel."""

        def is_connected() -> bool:
            shown = self.board.dom0.run(["virmoctl", "guest", "info", str(self.vmid), "--json"], check=False)
            return shown.rc == 0 and json.loads(shown.stdout).get("transport") == transport

        eventually(is_connected, f"the shim is connected over {transport}")

    def vm(self, verb: str, *words: str) -> dict[str, Any]:
        """``virmo vm VERB board-1 web …``: how the order ended."""
        return self.order("vm", verb, DEVICE, VM, *words)

    def node(self, verb: str, path: str, *words: str) -> dict[str, Any]:
        """``virmo node VERB board-1 …/DMTree/PATH``: how the order ended."""
        return self.order("node", verb, DEVICE, f"{self.uri}/DMTree/{path}", *words)

    def place(self, *words: str) -> int:
        """Give an order and have the board come for it."""
        placed = self.server.virmo_json(*words)
        assert self.board.agent("session").rc == 0
        return int(placed["id"])

    def ended(self, order: int) -> dict[str, Any]:
        shown: dict[str, Any] = self.server.virmo_json(
            "order", "show", str(order), "--wait", "--timeout", str(PATIENCE)
        )
        return shown

    def order(self, *words: str) -> dict[str, Any]:
        return self.ended(self.place(*words))

    def close(self) -> None:
        self.server.close()
        self.board.close()


@contextmanager
def site(folder: Path, guest_type: str = "pv", transport: str = "vchan", **sections: dict[str, Any]) -> Iterator[Site]:
    """A site for a test; what fails in it is explained."""
    made = Site(folder, guest_type, transport, **sections)
    try:
        with explained(made):
            yield made
    finally:
        made.close()


@contextmanager
def explained(at: Site) -> Iterator[None]:
    """What fails in it comes with the agent's log and the end of what the console showed."""
    try:
        yield
    except AssertionError as error:
        shown = at.console.text()[-2000:]
        raise AssertionError(f"{error}\n-- agent\n{at.board.agent_log()}\n-- console\n{shown}") from error
