"""Network namespaces as they are in dom0: a bridge, and guests whose interfaces are veth pairs into namespaces.

guest namespace: eth0 ── vif7.0 │ dom0 namespace: br0 ── up0 │ ── eth0 of the outside
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from dom0_agent.hypervisor.tool import run_tool
from dom0_agent.resources.network import Shaper
from dom0_agent.resources.tc import Tc

SENDER = Path(__file__).with_name("traffic.py")


def sh(*argv: str) -> str:
    """Run a command that must work."""
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"
    return done.stdout


@dataclass
class Lab:
    """Namespaces of one test; ``close`` removes all of them."""

    tag: str = field(default_factory=lambda: f"v{os.getpid() % 10000}{os.urandom(2).hex()}")
    namespaces: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dom0 = self._namespace("d")
        self.outside = self._namespace("o")
        self.inside("dom0", "ip", "link", "add", "br0", "type", "bridge")
        self.inside("dom0", "ip", "link", "set", "br0", "up")
        self.connect(self.outside, "eth0", "up0", 1)
        self.tc = Tc(run_tool, ("ip", "netns", "exec", self.dom0))
        self.shaper = Shaper(self.tc)

    def _namespace(self, name: str) -> str:
        full = self.tag + name
        sh("ip", "netns", "add", full)
        self.namespaces.append(full)
        sh("ip", "-n", full, "link", "set", "lo", "up")
        return full

    def guest(self, name: str) -> str:
        """A namespace for a guest."""
        return self._namespace(name)

    def connect(self, namespace: str, inner: str, outer: str, host: int) -> None:
        """Plug a cable between a namespace and dom0's bridge. The far end is 10.7.0.``host`` and fd00::``host``."""
        sh("ip", "-n", self.dom0, "link", "add", outer, "type", "veth", "peer", "name", inner, "netns", namespace)
        sh("ip", "-n", self.dom0, "link", "set", outer, "master", "br0", "up")
        sh("ip", "-n", namespace, "addr", "add", f"10.7.0.{host}/24", "dev", inner)
        sh("ip", "-n", namespace, "addr", "add", f"fd00::{host}/64", "dev", inner, "nodad")
        sh("ip", "-n", namespace, "link", "set", inner, "up")

    def unplug(self, outer: str) -> None:
        """Take a cable away."""
        sh("ip", "-n", self.dom0, "link", "delete", outer)

    def inside(self, namespace: str, *argv: str) -> str:
        """Run a command in a namespace."""
        full = self.dom0 if namespace == "dom0" else namespace
        return sh("ip", "netns", "exec", full, *argv)

    def objects(self) -> tuple[list[Any], list[Any]]:
        """All ifb devices, and all qdiscs that somebody has set, in dom0."""
        links = json.loads(self.inside("dom0", "ip", "-j", "link", "show", "type", "ifb") or "[]")
        qdiscs = json.loads(self.inside("dom0", "tc", "-j", "qdisc", "show"))
        return links, [qdisc for qdisc in qdiscs if qdisc["kind"] != "noqueue"]

    def measure(self, sender: str, receiver: str, address: str, seconds: float, *options: str) -> float:
        """Bits a second on the wire (Ethernet frames) from one namespace to another."""
        return measure(["ip", "netns", "exec", sender], ["ip", "netns", "exec", receiver], address, seconds, options)

    def close(self) -> None:
        """Remove all namespaces."""
        for namespace in self.namespaces:
            sh("ip", "netns", "delete", namespace)


class Sender(Protocol):
    """What sends meanwhile."""

    def kill(self) -> None: ...
    def wait(self) -> object: ...


def measure(
    sender: Sequence[str],
    receiver: Sequence[str],
    address: str,
    seconds: float,
    options: Sequence[str] = (),
    *,
    send: Callable[[], Sender] | None = None,
) -> float:
    """Start ``traffic.py`` behind both prefixes (or what ``send`` starts); returns what the receiver measured."""
    command = [sys.executable, str(SENDER)]
    receiving = subprocess.Popen(
        [*receiver, *command, "receive", address, str(seconds), *options], stdout=subprocess.PIPE, text=True
    )
    assert receiving.stdout is not None
    try:
        assert receiving.stdout.readline() == "ready\n"
        argv = [*sender, *command, "send", address, str(seconds + 1), *options]
        sending: Sender = subprocess.Popen(argv) if send is None else send()
        try:
            result = float(receiving.stdout.readline())
        finally:
            sending.kill()
            sending.wait()
    finally:
        receiving.kill()
        receiving.wait()
        receiving.stdout.close()
    return result
