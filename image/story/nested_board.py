"""A board that is nested Xen in QEMU. The truth comes from `xl`, XenStore and dom0's files, not from the agent."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from uuid import UUID

from image.errors import ImageError
from image.qemu import Dom0, Result, open_dom0
from image.story.board import NOTIFICATION_PORT, CpuShare, Domain

CONFIG = "/etc/virmo-agent/agent.yaml"
CA_FILE = "/etc/virmo-agent/server-ca.pem"
STATE_DIR = "/var/lib/virmo-agent"
SERVER_HOST = "10.0.2.2"  #: QEMU's name for the machine that it runs on
SESSION_TIMEOUT = 300.0
START_TIMEOUT = 180.0  #: an emulated Arm on a busy machine needs two minutes
LOOKS = 5  #: at a domain that one tool shows and another does not, before that is an error
XL_LIST_FIELDS = 6  #: name, id, memory, VCPUs, state, time
#: a VM's own files; what is below `images` belongs to images
VM_FOLDERS = (f"{STATE_DIR}/vms", f"{STATE_DIR}/trash")


class NestedBoard:
    """Xen with the agent in dom0; ``bundle`` is a VM image that it can boot."""

    server_host = SERVER_HOST

    def __init__(
        self, bundle: Path, arch: str, scheduler: str, say: Callable[[str], None], *, volatile_cache: bool = False
    ) -> None:
        """``volatile_cache``: see ``open_dom0``."""
        self.bundle = bundle
        self._dom0: Dom0 = open_dom0(arch, scheduler=scheduler, volatile_cache=volatile_cache, say=say)

    @property
    def dom0(self) -> Dom0:
        """For what only a test wants to see or do there."""
        return self._dom0

    def start_agent(self, agent_yaml: str, ca_file: Path) -> None:
        """See ``Board``."""
        dom0 = self._dom0
        dom0.run(["mkdir", "-p", str(Path(CONFIG).parent)])
        dom0.write(CONFIG, agent_yaml)
        dom0.run(["chmod", "0600", CONFIG])
        dom0.write(CA_FILE, ca_file.read_bytes())
        dom0.run(["systemctl", "restart", "virmo-agent"], timeout=START_TIMEOUT)
        deadline = time.monotonic() + START_TIMEOUT
        while dom0.run(["virmoctl", "status"], check=False).rc != 0:
            if time.monotonic() > deadline:
                raise ImageError("the agent did not start in dom0", detail=self.agent_log())
            time.sleep(1.0)

    def agent(self, *words: str) -> Result:
        """Run ``virmo-agent`` in dom0 with its configuration."""
        return self._dom0.run(["virmo-agent", "--config", CONFIG, *words], timeout=SESSION_TIMEOUT, check=False)

    @cached_property
    def notification_url(self) -> str:
        """See ``Board``."""
        return f"http://127.0.0.1:{self._dom0.forward(NOTIFICATION_PORT)}/"

    def hypervisor(self) -> str:
        """See ``Board``."""
        return f"Xen {self._info('xen_version')}, {self._info('xen_scheduler')}"

    def can_save(self) -> bool:
        """See ``Board``."""
        return any(line.split()[:1] == ["save"] for line in self._dom0.run(["xl", "help"]).stdout.splitlines())

    def domain(self, vmid: UUID) -> Domain | None:
        """See ``Board``. One look, one shell: a command over ssh costs a second under emulation."""
        for _ in range(LOOKS):
            seen = self._dom0.run(["sh", "-c", _LOOK, "look", str(vmid)]).stdout.splitlines()
            if not seen:
                return None
            listed, boot_id, beats = ([*seen, "", ""])[:3]
            fields = listed.split()
            if len(fields) == XL_LIST_FIELDS:
                state, memory = _words(fields[4]), int(fields[2])
                return Domain(int(fields[1]), state, memory, boot_id or None, int(beats) if beats else None)
            time.sleep(1.0)  # it came or went between the two tools' looks
        raise ImageError(f"xl vm-list shows the domain of {vmid}, xl list does not", detail="\n".join(seen))

    def cpus(self) -> int:
        """See ``Board``."""
        return int(self._info("nr_cpus"))

    def cpu_share(self, vmid: UUID) -> CpuShare | None:
        """See ``Board``."""
        domain = self.domain(vmid)
        if domain is None:
            return None
        command = f"sched-{self._info('xen_scheduler')}"
        listed = self._dom0.run(["xl", command, "-d", str(domain.domid)]).stdout.splitlines()
        weight, cap = listed[-1].split()[-2:]  # name, id, weight, cap
        return CpuShare(int(weight), int(cap))

    def free_memory(self) -> int:
        """See ``Board``."""
        return int(self._info("free_memory"))

    def exists(self, path: str) -> bool:
        """See ``Board``."""
        return self._dom0.run(["test", "-e", path], check=False).rc == 0

    def leftovers(self) -> list[str]:
        """See ``Board``."""
        domains = [
            entry["config"]["c_info"]["name"] for entry in json.loads(self._dom0.run(["xl", "list", "-l"]).stdout)
        ]
        files = self._dom0.run(["find", *VM_FOLDERS, "-mindepth", "1"], check=False).stdout.splitlines()
        loops = self._dom0.run(["losetup", "-a"]).stdout.splitlines()
        return [f"domain {name}" for name in domains if name not in ("Domain-0", None)] + files + loops

    def agent_log(self) -> str:
        """See ``Board``."""
        return self._dom0.run(
            ["journalctl", "-u", "virmo-agent", "-n", "60", "--no-pager", "-o", "cat"], check=False
        ).stdout

    def close(self) -> None:
        """See ``Board``."""
        self._dom0.close()

    def _info(self, key: str) -> str:
        for line in self._dom0.run(["xl", "info"]).stdout.splitlines():
            name, _, value = line.partition(":")
            if name.strip() == key:
                return value.strip()
        raise ImageError(f"xl info has no {key}")


#: xl's line about the domain with this UUID, then what its shim wrote; nothing when there is no such domain. A tool
#: that fails fails the look: "cannot see" is not "gone".
_LOOK = """
set -e
all=$(xl vm-list)
id=$(printf '%s\n' "$all" | awk -v uuid="$1" '$1 == uuid { print $2 }')
[ -n "$id" ] || exit 0
xl list "$id" 2>&1 | tail -n 1
xenstore-read "/local/domain/$id/data/virmo/boot-id" 2>/dev/null || echo
xenstore-read "/local/domain/$id/data/virmo/beats" 2>/dev/null || echo
"""

_FLAGS = {"r": "running", "b": "running", "p": "paused", "s": "shut down", "c": "crashed", "d": "dying"}


def _words(flags: str) -> str:
    """``xl list``'s ``-b----`` in words; no flag at all means runnable, but waiting for a CPU."""
    worst = [flag for flag in "dcsp" if flag in flags]
    return _FLAGS[worst[0]] if worst else "running"
