"""Puts the parts below DMTree together for the daemon: which kinds of objects there are, and what they work with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dom0_agent.config import AgentConfig
from dom0_agent.guest.interface import Guests
from dom0_agent.images.download import Downloader
from dom0_agent.images.model import ImageService
from dom0_agent.mo.dcmo import Devices, dcmo
from dom0_agent.mo.dcmo_nodes import DCMO
from dom0_agent.mo.dmtree.facts_nodes import DEVDETAIL, DEVINFO
from dom0_agent.mo.dmtree.forwarded import ForwardedObject, Surroundings
from dom0_agent.mo.dmtree.fumo import Fumo, fumo
from dom0_agent.mo.dmtree.fumo_nodes import FUMO
from dom0_agent.mo.dmtree.interaction import Interaction
from dom0_agent.mo.dmtree.lawmo import Domains, lawmo
from dom0_agent.mo.dmtree.lawmo_nodes import LAWMO
from dom0_agent.mo.dmtree.mirror import Mirror
from dom0_agent.mo.dmtree.packages import Packages
from dom0_agent.mo.dmtree.scomo import Scomo, scomo
from dom0_agent.mo.dmtree.scomo_nodes import SCOMO
from dom0_agent.mo.dmtree.service import DmTree
from dom0_agent.mo.dmtree.work import AlertBox, GuestWork, OperationJournal, TreeTasks
from dom0_agent.mo.virmo import Interact
from dom0_agent.omadm.tree import ManagementTree
from dom0_agent.vm.model import VmService


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of the agent that guests' management works with."""

    tree: ManagementTree
    vms: VmService
    images: ImageService
    guests: Guests
    domains: Domains
    devices: Devices


class GuestManagement:
    """All that the daemon sees: call ``start`` after the objects are mounted, ``settle`` when woken, ``stop`` first."""

    def __init__(
        self, config: AgentConfig, parts: Parts, alerts: AlertBox, journal: OperationJournal, wake: Callable[[], None]
    ) -> None:
        """``wake`` (any thread) makes the tree's thread call :meth:`settle` soon."""
        self._tasks = TreeTasks(wake)
        work = GuestWork(alerts, journal, wake)
        tree, guests = parts.tree, parts.guests
        mirror = Mirror(tree, guests)
        around = Surroundings(tree, parts.vms, guests, mirror, work, self._tasks, config.dm.answer_limit)
        self._packages = Packages(
            config.state_dir / "packages",
            Downloader(config.images),
            guests,
            max_size=config.scomo.max_package,
            reserve=config.images.reserve,
        )
        holder = parts.domains if config.lawmo.enforce == "hypervisor" else None
        self._objects = DmTree(
            around,
            {
                LAWMO: lawmo(holder),
                DCMO: dcmo(parts.devices),
                SCOMO: scomo(self._packages),
                FUMO: fumo(parts.images, self._packages, config.fumo.health_timeout),
                DEVINFO: ForwardedObject,
                DEVDETAIL: ForwardedObject,
            },
        )
        #: for ``VirMO``: carries out UI commands
        self.interact: Interact = Interaction(around)

    def start(self) -> None:
        """Serve what is in the tree, report what the last agent left, follow the guests."""
        self._objects.start()
        wanted = []
        for item in self._objects.objects():
            record = item.record()
            if isinstance(item, Fumo):
                item.recovered()
            if record is not None and isinstance(item, Scomo):
                wanted += [(record.vmid, name) for name in item.packages()]
            elif record is not None and isinstance(item, Fumo):
                wanted.append((record.vmid, "fumo"))
        self._packages.sweep(wanted)
        self._tasks.settle()

    def images(self) -> frozenset[str]:
        """Images that firmware updates keep, which no VMImgMO shows."""
        return frozenset(item.image for item in self._objects.objects() if isinstance(item, Fumo) and item.image)

    def settle(self) -> None:
        """Do in the tree what was posted; the tree's thread only."""
        self._tasks.settle()

    def stop(self) -> None:
        """End; nothing is written after this."""
        self._objects.stop()
