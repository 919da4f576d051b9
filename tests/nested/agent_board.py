"""A nested board with an agent and its server, and words for tests of what happens to VMs on real Xen."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from image.guest import build_guest
from image.qemu import Dom0
from image.story.nested_board import STATE_DIR, NestedBoard
from image.story.server import Server
from image.story.steps import DEV_ID, DEVICE, agent_yaml

HERE = Path(__file__).parent
PROGRAMS = "/root/programs"  #: where dom0 has the programs of ``tests/nested/dom0``
MEDIA_TYPE = "application/vnd.virmo.bundle+tar"
STATE_CHANGED = "Reversed-Domain-Name: org.virmo/statechanged"
GUEST_TIMEOUT = 600.0  #: beside much other work an emulated guest was seen to need more than four minutes
ORDER_TIMEOUT = 600
LEAKS_GO, LEAKS_LOOK = 180.0, 5.0
#: As the owner of a slow line has it: a download can be caught. And data disks of which there is room for several.
SLOW_LINE: dict[str, dict[str, Any]] = {
    "images": {"bandwidth_limit": 4 << 20, "resume_at_start": True},
    "vm": {"default_storage": 16 << 20},
}


@dataclass(frozen=True, slots=True)
class Probed:
    """What ``dom0/probe.py`` measured; seconds."""

    happened: float | None
    followed: float | None
    delay: float | None
    states: tuple[str | None, ...]
    failed: str


class AgentBoard(NestedBoard):
    """Real Xen in QEMU with the agent, and the server on this machine that manages it."""

    def __init__(
        self,
        bundle: Path,
        folder: Path,
        config: Mapping[str, Mapping[str, Any]],
        scheduler: str = "credit2",
        *,
        volatile_cache: bool = False,
    ) -> None:
        """``config`` is laid over the agent's configuration, section by section.

        ``volatile_cache``: see ``open_dom0``.
        """
        self._vmids: dict[str, str] = {}
        super().__init__(bundle, "x86_64", scheduler, lambda _line: None, volatile_cache=volatile_cache)
        self.server = Server(folder / "server", self.server_host)
        self.server.start()
        url = self.notification_url
        snippet = self.server.virmo("device", "add", DEVICE, "--dev-id", DEV_ID, "--notify-url", url, "--agent-config")
        settings = yaml.safe_load(agent_yaml(snippet))
        for section, values in config.items():
            settings[section] = {**settings.get(section, {}), **values}
        self.dom0.put(HERE / "dom0", PROGRAMS)
        # What was laid over dom0's files must outlive a power cut.
        self.dom0.run(["systemctl", "enable", "virmo-agent"])
        self.start_agent(yaml.safe_dump(settings), self.server.ca_file)
        self.dom0.run(["sync"])

    @property
    def dom0(self) -> Dom0:
        """The machine."""
        return self._dom0

    def close(self) -> None:
        """Switch all off."""
        self.server.close()
        super().close()

    # -- orders of the operator ---------------------------------------------------------------------------------------

    def place(self, *words: str) -> str:
        """Give an order, and do not wait; its id."""
        placed: dict[str, Any] = self.server.virmo_json(*words)
        assert "id" in placed, placed
        return str(placed["id"])

    def ended(self, order: str) -> dict[str, Any]:
        """How an order ended."""
        shown = ("order", "show", order, "--wait", "--timeout", str(ORDER_TIMEOUT))
        result: dict[str, Any] = self.server.virmo_json(*shown)
        return result

    def order(self, *words: str) -> dict[str, Any]:
        """Give an order and see it through."""
        result = self.ended(self.place(*words))
        assert result["state"] == "done", f"{' '.join(words)}: {result}\n{self.agent_log()}"
        return result

    def deliver(self, name: str, bundle: Path | None = None) -> None:
        """Have an image on the board."""
        file = str(bundle or self.bundle)
        self.order("image", "deliver", DEVICE, "--name", name, "--file", file, "--media-type", MEDIA_TYPE)

    def create(self, name: str, image: str) -> str:
        """A VM that runs and whose guest has spoken; its VMID."""
        self._vmids.pop(name, None)
        self.order("vm", "create", DEVICE, name, "--image", image)
        self.await_guest(name)
        return self.vmid(name)

    def vm(self, verb: str, name: str) -> None:
        """``virmo vm VERB`` done."""
        self.order("vm", verb, DEVICE, name)

    def alerts(self, state: int) -> int:
        """How many alerts came by now that told of a VM that went to a State by itself."""
        rows: list[dict[str, Any]] = self.server.virmo_json("device", "alerts", DEVICE)
        return sum((row["type"], row["data"]) == (STATE_CHANGED, str(state)) for row in rows)

    # -- power --------------------------------------------------------------------------------------------------------

    def cut_power_during(self, kind: str, wanted: str, *order: str, delay: float = 0.0) -> dict[str, Any]:
        """Give an order, take the power away ``delay`` seconds after the agent is at that work, and boot again; how
        the order ended.

        The work is seen in dom0 (``dom0/await_work.py``).
        """
        waiting = ["python3", f"{PROGRAMS}/await_work.py", kind, wanted, "240"]
        with self.dom0.start(waiting) as process:
            assert process.stdout is not None
            try:
                assert process.stdout.readline() == b"waiting\n"
                placed = self.place(*order)
                assert process.stdout.readline() == b"reached\n", f"{wanted!r} was not seen during {' '.join(order)}"
                time.sleep(delay)
                self.dom0.power_cut()
            finally:
                process.kill()
        self.boot()
        return self.ended(placed)

    def boot(self) -> None:
        """Switch on again, and wait until the agent is there and the server knows where."""
        self.dom0.boot()
        self._found_again()

    def reboot(self) -> None:
        """Restart dom0 in order, and wait as after :meth:`boot`."""
        self.dom0.reboot()
        self._found_again()

    def _found_again(self) -> None:
        self.__dict__.pop("notification_url", None)  # another port of this machine leads to dom0 now
        self.server.virmo("device", "set", DEVICE, "--notify-url", self.notification_url)
        self.await_agent()

    # -- looks -------------------------------------------------------------------------------------------------------

    def ctl(self, *words: str) -> Any:
        """``virmoctl --json``."""
        return json.loads(self.dom0.run(["virmoctl", "--json", *words], timeout=120).stdout)

    def vms(self) -> dict[str, dict[str, Any]]:
        """The agent's VMs by the operator's names for them."""
        return {_name(row): row for row in self.ctl("vm", "list")}

    def images(self) -> dict[str, dict[str, Any]]:
        """The agent's images by the operator's names for them."""
        return {_name(row): row for row in self.ctl("image", "list")}

    def vmid(self, name: str) -> str:
        """A VM's VMID."""
        if name not in self._vmids:
            self._vmids[name] = str(self.vms()[name]["vmid"])
        return self._vmids[name]

    def show(self, name: str) -> dict[str, Any]:
        """Everything that the agent knows of a VM."""
        shown: dict[str, Any] = self.ctl("vm", "show", self.vmid(name))
        return shown

    def await_state(self, name: str, state: str, seconds: float = 240.0) -> None:
        """Wait until the agent shows a State."""
        self._await("state", f"{self.vmid(name)}={state}", seconds, f"{name} is {state}")

    def await_guest(self, name: str, not_boot: str | None = None) -> str:
        """Wait until a VM's guest has spoken, in another boot than ``not_boot``; its boot id."""
        argv = ["python3", f"{PROGRAMS}/await_guest.py", self.vmid(name), str(GUEST_TIMEOUT)]
        told = self.dom0.run([*argv, *([not_boot] if not_boot else [])], timeout=GUEST_TIMEOUT + 120, check=False)
        assert told.rc == 0, f"the guest of {name} does not speak: {told.stdout}{told.stderr}\n{self.agent_log()}"
        return told.stdout.strip()

    def await_agent(self, seconds: float = 240.0) -> None:
        """Wait until the agent answers and has finished or undone what was interrupted."""
        self._await("idle", "-", seconds, "the agent is up and has nothing to do")

    def _await(self, kind: str, wanted: str, seconds: float, what: str) -> None:
        argv = ["python3", f"{PROGRAMS}/await_work.py", kind, wanted, str(seconds)]
        told = self.dom0.run(argv, timeout=seconds + 120, check=False)
        assert told.rc == 0, f"not within {seconds:.0f} s: {what}\n{told.stderr}{self.agent_log()}"

    def probe(self, name: str, state: str, *command: str, seconds: float = 120.0) -> Probed:
        """Do something to a VM's domain in dom0, and measure when State was right."""
        argv = ["python3", f"{PROGRAMS}/probe.py", self.vmid(name), state, str(seconds), *command]
        told = json.loads(self.dom0.run(argv, timeout=seconds + 120).stdout)
        return Probed(**{**told, "states": tuple(told["states"])})

    def domain_name(self, name: str) -> str:
        """What xl calls a VM's domain."""
        return f"virmo-{self.vmid(name)}"

    def settled(self) -> None:
        """Xen comes to agree with every State, and nothing is left of anything else."""
        end = time.monotonic() + LEAKS_GO
        while found := self.leaks():
            assert time.monotonic() < end, found
            time.sleep(LEAKS_LOOK)

    def leaks(self) -> list[str]:
        """What is there of VMs and images that no VM or image needs: domains, files, loop devices, interfaces."""
        facts = json.loads(self.dom0.run(["python3", "-c", _FACTS, STATE_DIR], timeout=120).stdout)
        vms = {row["vmid"]: row for row in facts["agent_vms"]}
        images = {row["img_id"]: row for row in facts["agent_images"]}
        running = {vmid for vmid, row in vms.items() if row["state"] == "RUNNING"}
        suspended = {vmid for vmid, row in vms.items() if row["state"] == "SUSPENDED"}
        made = {vmid for vmid, row in vms.items() if row["state"] != "NOT_CREATED"}
        contents = {str(row["location"]) for row in images.values() if row["location"]}
        unfinished = {img_id for img_id, row in images.items() if row["state"] != "DOWNLOADED"}
        found = [f"domain {name}" for name in facts["domains"] if name.removeprefix("virmo-") not in running]
        found += [f"files {path}" for path in facts["vms"] if Path(path).name not in made]
        found += [f"saved state {path}" for path in facts["saved"] if Path(path).parent.name not in suspended]
        found += [f"VM without a node {vmid}" for vmid, row in vms.items() if not row["node"]]
        found += [f"trash {path}" for path in facts["trash"]]
        found += [f"download {path}" for path in facts["downloads"] if Path(path).name not in unfinished]
        found += [f"staging {path}" for path in facts["staging"]]
        found += [f"content {path}" for path in facts["content"] if path not in contents]
        found += [f"loop {line}" for line in facts["loops"] if not any(vmid in line for vmid in running)]
        found += [f"interface {name}" for name in facts["vifs"] if name.split(".")[0] not in facts["vif_domains"]]
        missing = [f"no domain of {vmid}" for vmid in running if f"virmo-{vmid}" not in facts["domains"]]
        return found + missing


@contextmanager
def board_with_vm(
    name: str, folder: Path, config: Mapping[str, Mapping[str, Any]], *, volatile_cache: bool = False
) -> Iterator[AgentBoard]:
    """A board with the sample guest's image, ``sample``, and a VM of it, ``name``, whose guest has spoken."""
    made = AgentBoard(build_guest("x86_64"), folder, config, volatile_cache=volatile_cache)
    try:
        made.deliver("sample")
        made.create(name, "sample")
        yield made
    finally:
        made.close()


def _name(row: Mapping[str, Any]) -> str:
    """The operator's name of a VM or image: the server adds a random part to make a node's name."""
    return str(row["node"]).rpartition("/")[2].rpartition("-")[0]


#: What the agent says, and what is on the machine, seen without it.
_FACTS = """
import glob, json, os, subprocess, sys
from dom0_agent.control_client import DEFAULT_SOCKET, call
def run(*argv):
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout
def below(name):
    folder = os.path.join(sys.argv[1], name)
    return [os.path.join(folder, entry) for entry in os.listdir(folder)] if os.path.isdir(folder) else []
rows = [line.split() for line in run("xl", "list").splitlines()[1:]]
print(json.dumps({
    "agent_vms": call(DEFAULT_SOCKET, "vm.list"), "agent_images": call(DEFAULT_SOCKET, "image.list"),
    "domains": [row[0] for row in rows if row[0].startswith("virmo-")],
    "vif_domains": ["vif" + row[1] for row in rows],
    "vms": below("vms"), "saved": glob.glob(os.path.join(sys.argv[1], "vms", "*", "saved*")),
    "trash": below("trash"), "downloads": below("images/downloads"),
    "staging": below("images/staging") + below("images/trash"), "content": below("images/content"),
    "loops": run("losetup", "-a").splitlines(),
    "vifs": [name for name in os.listdir("/sys/class/net") if name.startswith("vif")],
}))
"""
