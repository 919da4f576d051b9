"""Simulated domains with real network interfaces: veth pairs in a namespace that stands for dom0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast
from uuid import UUID

from dom0_agent.hypervisor.interface import Hypervisor
from dom0_agent.hypervisor.tool import ToolResult, run_tool
from tests.integration.resources.shaping_testing import Lab


class WithNetwork:
    """A hypervisor whose domains have an interface each; everything else is the inner one's."""

    def __init__(self, inner: Hypervisor, lab: Lab) -> None:
        self._inner = inner
        self._lab = lab
        self.resources = Resources(inner, lab)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class Resources:
    """The domain's interface ``vifN.0`` is there exactly while the domain is."""

    def __init__(self, inner: Hypervisor, lab: Lab) -> None:
        self._inner = inner
        self._lab = lab

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner.resources, name)

    def interfaces(self, uuid: UUID) -> tuple[str, ...]:
        """Plugged when it is asked for the first time, as Xen's hotplug script does before a guest runs."""
        self.follow()
        domain = self._inner.find(uuid)
        assert domain is not None
        name = f"vif{domain.domid}.0"
        if name not in self._plugged():
            self._lab.inside("dom0", "ip", "link", "add", name, "type", "veth", "peer", "name", f"p{name}")
        return (name,)

    def follow(self) -> None:
        """Interfaces of domains that are gone go."""
        there = {f"vif{domain.domid}.0" for domain in self._inner.domains()}
        for name in sorted(self._plugged() - there):
            self._lab.unplug(name)

    def _plugged(self) -> set[str]:
        """Asked of the kernel: an agent that was killed has plugged some, too."""
        return {name for name in self._lab.tc.links("veth") if name.startswith("vif")}


def with_network(inner: Hypervisor, lab: Lab) -> Hypervisor:
    """See :class:`WithNetwork`."""
    return cast(Hypervisor, WithNetwork(inner, lab))


class InNamespace:
    """Runs tc and ip in the namespace that stands for dom0."""

    def __init__(self, lab: Lab) -> None:
        self._prefix = ("ip", "netns", "exec", lab.dom0)

    def __call__(self, argv: Sequence[str], deadline: float) -> ToolResult:
        """A ``ToolRunner``."""
        return run_tool([*self._prefix, *argv], deadline)
