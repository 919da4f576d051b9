"""A board that is the simulator on this machine: domains are processes. No Xen, no QEMU, two seconds.

The truth comes from the simulator's own files, which the agent does not write.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml

from image.errors import ImageError
from image.story.board import CpuShare, Domain
from image.story.server import free_port

MIB = 1 << 20
START_TIMEOUT = 20.0
STOP_TIMEOUT = 30.0
SESSION_TIMEOUT = 60.0
SIM_TIMEOUT = 10.0
BEAT_INTERVAL = 0.1  #: seconds


class SimBoard:
    """An agent on the simulated hypervisor, with all its files below ``folder``."""

    server_host = "127.0.0.1"

    def __init__(self, folder: Path, *, can_save: bool = True) -> None:
        """``can_save=False`` is a hypervisor like Xen on Arm: Suspend pauses."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._can_save = can_save
        self.state_dir = folder / "state"
        self._socket = folder / "control.sock"
        self._log = folder / "agent.log"
        self.config = folder / "agent.yaml"
        self._port = free_port()
        self._agent: subprocess.Popen[bytes] | None = None
        # Guests that speak often: the story waits for their beats.
        (self.state_dir / "sim").mkdir(parents=True)
        (self.state_dir / "sim" / "host.json").write_text(
            json.dumps({"beat_interval": BEAT_INTERVAL, "can_save": can_save})
        )
        self.bundle = folder / "guest.tar"
        make_bundle(self.bundle)

    @property
    def notification_url(self) -> str:
        """See ``Board``."""
        return f"http://127.0.0.1:{self._port}/"

    def start_agent(self, agent_yaml: str, ca_file: Path) -> None:
        """See ``Board``."""
        self.configure(agent_yaml, ca_file)
        with self._log.open("ab") as log:
            self._agent = subprocess.Popen(self._agent_command("run"), stdout=log, stderr=log)
        deadline = time.monotonic() + START_TIMEOUT
        while self._ctl("status").returncode != 0:
            if self._agent.poll() is not None or time.monotonic() > deadline:
                raise ImageError("the agent did not start", detail=self.agent_log())
            time.sleep(0.1)

    def configure(self, agent_yaml: str, ca_file: Path) -> None:
        """Write the agent's configuration; a running agent reads it at its next start."""
        own_settings = yaml.safe_load(agent_yaml.replace("/etc/virmo-agent/server-ca.pem", str(ca_file)))
        own_settings["dm"]["notification"] = {"address": "127.0.0.1", "port": self._port}
        own_settings |= {
            "state_dir": str(self.state_dir),
            "control": {"socket": str(self._socket)},
            "hypervisor": {"backend": "sim"},
        }
        self.config.touch(mode=0o600)
        self.config.write_text(yaml.safe_dump(own_settings), encoding="utf-8")

    def agent(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run ``virmo-agent`` with this board's configuration, in the foreground."""
        return subprocess.run(
            self._agent_command(*words), capture_output=True, text=True, timeout=SESSION_TIMEOUT, check=False
        )

    def stop_agent(self) -> None:
        """Stop the service; domains go on."""
        if self._agent is not None:
            self._agent.terminate()
            try:
                self._agent.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._agent.kill()
                self._agent.wait()
            self._agent = None

    def hypervisor(self) -> str:
        """See ``Board``."""
        return f"simulator, {json.loads(self.simulator('info'))['scheduler']}"

    def can_save(self) -> bool:
        """See ``Board``."""
        return self._can_save

    def domain(self, vmid: UUID) -> Domain | None:
        """See ``Board``."""
        for entry in self._domains():
            if entry["uuid"] == str(vmid):
                guest = entry["guest"] or {"boot_id": None, "beats": None}
                return Domain(entry["domid"], entry["state"], entry["memory"] // MIB, guest["boot_id"], guest["beats"])
        return None

    def cpus(self) -> int:
        """See ``Board``."""
        return int(json.loads(self.simulator("info"))["cpus"])

    def cpu_share(self, vmid: UUID) -> CpuShare | None:
        """See ``Board``."""
        for entry in self._domains():
            if entry["uuid"] == str(vmid):
                return CpuShare(entry["weight"], entry["cap"])
        return None

    def free_memory(self) -> int:
        """See ``Board``."""
        return int(json.loads(self.simulator("info"))["free_memory"]) // MIB

    def exists(self, path: str) -> bool:
        """See ``Board``."""
        return Path(path).exists()

    def leftovers(self) -> list[str]:
        """See ``Board``."""
        found = [str(path) for name in ("vms", "trash") for path in (self.state_dir / name).glob("**/*")]
        return found + [f"domain {entry['name']}" for entry in self._domains()]

    def agent_log(self) -> str:
        """See ``Board``."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-60:])

    def close(self) -> None:
        """See ``Board``."""
        self.stop_agent()
        for entry in self._domains():
            self.simulator("destroy", entry["uuid"])

    def _domains(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.simulator("list").splitlines()]

    def simulator(self, *words: str) -> str:
        """The simulator's own command line (``list``, ``info``, ``fault`` …); what it printed."""
        command = [
            sys.executable,
            "-m",
            "dom0_agent.hypervisor.sim",
            "--state-dir",
            str(self.state_dir / "sim"),
            *words,
        ]
        return subprocess.run(command, capture_output=True, text=True, timeout=SIM_TIMEOUT, check=True).stdout

    def _agent_command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "dom0_agent.cli", "--config", str(self.config), *words]

    def _ctl(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "dom0_agent.virmoctl", "--socket", str(self._socket), *words]
        return subprocess.run(command, capture_output=True, timeout=SESSION_TIMEOUT, check=False)


#: machine → `arch` of a manifest
_ARCHES = {"x86_64": "x86_64", "aarch64": "arm64"}


def make_bundle(file: Path, *, damaged: bool = False, cmdline: str = "") -> None:
    """A bundle whose kernel nobody boots: a simulated domain is a process that runs the real shim.

    ``damaged``: its digest is not the manifest's. ``cmdline`` can make the guest one that fails (``sim.domain``).
    """
    kernel = b"simulated kernel\n" * 4096
    digest = hashlib.sha256(kernel + b"!" * damaged).hexdigest()
    manifest = (
        f"format: 1\nname: simulated-guest\narch: {_ARCHES[platform.machine()]}\n"
        f"type: pv\nvcpus: 1\nmemory: {64 * MIB}\n"
        f'cmdline: "{cmdline}"\nkernel: {{file: vmlinux, sha256: {digest}, size: {len(kernel)}}}\n'
        "disks: []\n"
    )
    with tarfile.open(file, "w") as bundle:
        for name, data in (("vm.yaml", manifest.encode()), ("vmlinux", kernel)):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            bundle.addfile(member, io.BytesIO(data))
