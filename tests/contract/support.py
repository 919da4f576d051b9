"""What the contract tests need of a backend, and the backends. Also used by the engine's unit tests.

``VIRMO_BACKEND=xl`` runs them on the Xen of this dom0, with the guest of ``VIRMO_GUEST_DIR`` (files ``vm.yaml``,
``kernel``, ``ramdisk``, and ``disk``, of which nothing is expected); otherwise they run on the simulator.
"""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from uuid import UUID

from dom0_agent.hypervisor.interface import DomainConfig, DomainType, Hypervisor
from dom0_agent.hypervisor.sim.faults import FaultTable
from dom0_agent.hypervisor.sim.ledger import HostSettings
from dom0_agent.hypervisor.sim.toolstack import open_sim
from dom0_agent.images.manifest import MANIFEST_NAME, parse_manifest
from dom0_agent.images.model import ImageDisk, ImageEvent, ImageRecord, ImageState, VerifiedImage
from dom0_agent.operation import OperationHandle, OperationRefused, OperationResult, Origin
from dom0_agent.resources.apply import Applied, ApplyChanges
from dom0_agent.resources.config import ResourcesConfig
from dom0_agent.resources.sharing import open_sharing
from dom0_agent.store.database import Database
from dom0_agent.store.journal import Journal
from dom0_agent.vm.config import VmConfig
from dom0_agent.vm.engine import VmEngine, open_engine
from dom0_agent.vm.model import Primitive, VmEvent, VmRecord, VmState

MIB = 1 << 20


class Backend(Protocol):
    """A hypervisor under test, and hands that act on it without going through the agent."""

    name: str
    hypervisor: Hypervisor
    image: VerifiedImage  #: something that boots here
    patience: float  #: seconds in which a guest boots or obeys
    told_crash: str  #: the reason that the hypervisor is told by a guest that crashed
    kept: DomainConfig | None  #: a running guest that the next test may use; see ``conftest.guest``

    def reopen(self) -> Hypervisor:
        """Close the hypervisor and open it again, as a restarted agent does; it is ``hypervisor`` from then on."""

    def destroy_by_hand(self, vmid: UUID) -> None:
        """What a person at dom0's console would do."""

    def guest_ends(self, vmid: UUID, how: str) -> None:
        """Make the guest power off, reboot or crash by itself."""

    def clean(self) -> None:
        """Destroy what a test left, but the kept guest."""

    def close(self) -> None:
        """Destroy all that is ours, and let go."""

    def leaks(self, running: set[UUID]) -> list[str]:
        """What is left on the machine of VMs that are not ``running``, in words."""


def eventually(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait until ``condition``; fail with ``what`` when it takes longer than ``seconds``."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.05)


def domain_config(backend: Backend, vmid: UUID | None = None, memory: int | None = None) -> DomainConfig:
    """A domain that boots the backend's guest."""
    vmid = vmid or uuid.uuid4()
    image = backend.image
    return DomainConfig(
        uuid=vmid,
        name=f"virmo-{vmid}",
        type=DomainType(image.type),
        memory=memory or image.memory,
        max_memory=memory or image.memory,
        vcpus=image.vcpus,
        max_vcpus=image.vcpus,
        kernel=image.kernel,
        ramdisk=image.ramdisk,
        cmdline=image.cmdline,
    )


class SimBackend:
    """The simulator, with impatient guests."""

    name = "sim"
    patience = 10.0
    told_crash = "crash"

    def __init__(self, root: Path, settings: HostSettings | None = None) -> None:
        self.root = root
        self.kept: DomainConfig | None = None
        self._settings = settings or HostSettings(beat_interval=0.05)
        self.faults = FaultTable(root / "sim" / "faults.json")
        self.hypervisor: Hypervisor = self._open()
        guest = root / "guest"
        guest.mkdir(exist_ok=True)
        for name in ("kernel", "ramdisk", "disk"):
            (guest / name).write_bytes(name.encode() * 1000)
        self.image = VerifiedImage(
            img_id="img-1",
            name="test",
            arch="x86_64",
            type="pvh",
            vcpus=1,
            memory=256 * MIB,
            cmdline="console=hvc0",
            kernel=guest / "kernel",
            ramdisk=guest / "ramdisk",
            disks=(ImageDisk(guest / "disk", "xvda", "raw", 7000),),
        )

    def reopen(self) -> Hypervisor:
        """See :class:`Backend`."""
        self.hypervisor.close()
        self.hypervisor = self._open()
        return self.hypervisor

    def destroy_by_hand(self, vmid: UUID) -> None:
        """See :class:`Backend`."""
        self._tool("destroy", str(vmid))

    def guest_ends(self, vmid: UUID, how: str) -> None:
        """See :class:`Backend`."""
        self._tool("guest", str(vmid), how)

    def clean(self) -> None:
        """See :class:`Backend`."""
        self.faults.set()
        for domain in self.hypervisor.domains():
            if self.kept is None or domain.uuid != self.kept.uuid:
                self.hypervisor.destroy(domain.uuid)

    def close(self) -> None:
        """See :class:`Backend`."""
        self.kept = None
        self.clean()
        self.hypervisor.close()

    def leaks(self, running: set[UUID]) -> list[str]:
        """Processes of domains that the ledger does not know."""
        root, known = str(self.root / "sim"), {str(domain.uuid) for domain in self.hypervisor.domains()}
        stray = []
        for entry in Path("/proc").iterdir():
            try:
                arguments = (entry / "cmdline").read_bytes().decode().split("\0") if entry.name.isdigit() else []
            except OSError:  # it has just ended
                continue
            if any(word.startswith(root) and Path(word).name not in known for word in arguments[:6]):
                stray.append(f"process {entry.name} belongs to no domain")
        return stray

    def _open(self) -> Hypervisor:
        return open_sim(self.root / "sim", self._settings, settle=0.5, teardown=1.0)

    def _tool(self, *arguments: str) -> None:
        from dom0_agent.hypervisor.sim.__main__ import main

        assert main(["--state-dir", str(self.root / "sim"), *arguments]) == 0


class XlBackend:
    """Real Xen. Only domains that are named as ours are touched."""

    name = "xl"
    #: Under emulation a guest is up within 10 s on an idle machine; beside other work 100 s were seen.
    patience = 240.0

    def __init__(self, root: Path) -> None:
        from dom0_agent.hypervisor.xl import open_xl

        self.root = root
        self.kept: DomainConfig | None = None
        # Linux on Arm does not tell Xen that it panics; where it has been told to (panic=), it restarts.
        self.told_crash = "reboot" if os.uname().machine == "aarch64" else "crash"
        self._open: Callable[[], Hypervisor] = lambda: open_xl(root / "run")
        self.hypervisor: Hypervisor = self._open()
        guest = Path(os.environ["VIRMO_GUEST_DIR"])
        about = parse_manifest((guest / MANIFEST_NAME).read_bytes())
        self.image = VerifiedImage(
            img_id="img-1",
            name="sample",
            arch=about.arch,
            type=os.environ.get("VIRMO_GUEST_TYPE", about.type),
            vcpus=about.vcpus,
            memory=about.memory,
            cmdline=f"{about.cmdline} sysrq_always_enabled=1",
            kernel=guest / "kernel",
            ramdisk=guest / "ramdisk",
            disks=(ImageDisk(guest / "disk", "xvda", "raw", 8 * MIB),),
        )

    def reopen(self) -> Hypervisor:
        """See :class:`Backend`."""
        self.hypervisor.close()
        self.hypervisor = self._open()
        return self.hypervisor

    def destroy_by_hand(self, vmid: UUID) -> None:
        """See :class:`Backend`."""
        self._xl("destroy", f"virmo-{vmid}")

    def guest_ends(self, vmid: UUID, how: str) -> None:
        """See :class:`Backend`."""
        name = f"virmo-{vmid}"
        commands = {"poweroff": ("shutdown", name), "reboot": ("reboot", name), "crash": ("sysrq", name, "c")}
        self._xl(*commands[how])

    def clean(self) -> None:
        """See :class:`Backend`."""
        for domain in self.hypervisor.domains():
            if domain.name.startswith("virmo-") and (self.kept is None or domain.uuid != self.kept.uuid):
                self.hypervisor.destroy(domain.uuid)

    def close(self) -> None:
        """See :class:`Backend`."""
        self.kept = None
        self.clean()
        self.hypervisor.close()

    def leaks(self, running: set[UUID]) -> list[str]:
        """Loop devices on VMs' files."""
        argv = ["losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE"]
        listed = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout
        ours = [line for line in listed.splitlines() if "/vms/" in line or "/trash/" in line]
        return [f"{line} belongs to no running VM" for line in ours if not any(str(vmid) in line for vmid in running)]

    def _xl(self, *arguments: str) -> None:
        subprocess.run(["xl", *arguments], check=True, timeout=60, capture_output=True)


def open_backend(root: Path) -> Backend:
    """The backend that ``VIRMO_BACKEND`` names; ``pauses`` is a simulated machine like Arm's, which saves nothing."""
    name = os.environ.get("VIRMO_BACKEND")
    if name == "xl":
        return XlBackend(root)
    return SimBackend(root, HostSettings(beat_interval=0.05, can_save=name != "pauses"))


@dataclass
class FakeImages:
    """An ``ImageService`` whose images are simply there (or not)."""

    images: dict[str, VerifiedImage] = field(default_factory=dict)
    downloading: set[str] = field(default_factory=set)

    def add(self) -> str:
        """See ``ImageService``."""
        raise AssertionError("the VM engine makes no images")

    def get(self, img_id: str) -> ImageRecord | None:
        """See ``ImageService``."""
        return ImageRecord(img_id, ImageState.DOWNLOADED) if img_id in self.images else None

    def list(self) -> tuple[ImageRecord, ...]:
        """See ``ImageService``."""
        return tuple(ImageRecord(img_id, ImageState.DOWNLOADED) for img_id in self.images)

    def download(self, img_id: str, uri: str, media_type: str, origin: Origin | None = None) -> OperationHandle:
        """See ``ImageService``."""
        raise AssertionError("the VM engine downloads nothing")

    def delete(self, img_id: str) -> None:
        """See ``ImageService``."""
        self.images.pop(img_id, None)

    def verified(self, img_id: str) -> VerifiedImage:
        """See ``ImageService``."""
        if img_id in self.downloading:
            raise OperationRefused(405, f"image {img_id} is not downloaded")
        if img_id not in self.images:
            raise OperationRefused(404, f"there is no image {img_id}")
        return self.images[img_id]

    def subscribe(self, listener: Callable[[ImageEvent], None]) -> None:
        """See ``ImageService``."""
        raise AssertionError("the VM engine needs no image events")


class Rig:
    """An engine with what it needs, and words for stories."""

    def __init__(
        self,
        backend: Backend,
        hypervisor: Hypervisor,
        database: Database,
        config: VmConfig,
        state_dir: Path,
        resources: ResourcesConfig | None = None,
        *,
        others_pause: bool = False,
    ) -> None:
        self.backend = backend
        self.hypervisor = hypervisor
        self.database = database
        self.state_dir = state_dir
        self.images = FakeImages({backend.image.img_id: backend.image})
        self.sharing = open_sharing(database, hypervisor, config, resources or ResourcesConfig(), state_dir)
        self.engine: VmEngine = open_engine(
            database, hypervisor, self.images, config, state_dir, sharing=self.sharing, others_pause=others_pause
        )
        self.applied: list[Applied] = []
        self.apply = ApplyChanges(database, self.engine.holds, self.sharing, self.applied.append)
        self.events: list[VmEvent] = []
        self.engine.subscribe(self.events.append)
        self._stopped = False

    def do(self, vmid: UUID, primitive: Primitive) -> OperationResult:
        """Have a primitive done, and wait for its end."""
        img_id = self.backend.image.img_id if primitive.value.startswith("Create") else None
        result = self.engine.submit(vmid, primitive, img_id=img_id).wait(3 * self.backend.patience)
        assert result is not None, f"{primitive.value} did not end"
        return result

    def running(self) -> UUID:
        """A new VM that runs."""
        vmid = self.engine.add()
        result = self.do(vmid, Primitive.CREATE)
        assert result.status == 200, result.message
        return vmid

    def record(self, vmid: UUID) -> VmRecord:
        """The VM's record, which must be there."""
        record = self.engine.get(vmid)
        assert record is not None
        return record

    def state(self, vmid: UUID) -> VmState:
        """The VM's State."""
        return self.record(vmid).state

    def beats(self, vmid: UUID) -> tuple[str, int]:
        """Boot id and counter of the guest, once its shim has spoken."""
        found: list[tuple[str, int]] = []

        def speaks() -> bool:
            facts = self.hypervisor.guest_facts(vmid)
            if facts.boot_id is not None and facts.beats is not None:
                found.append((facts.boot_id, facts.beats))
            return bool(found)

        eventually(speaks, self.backend.patience, "the shim speaks")
        return found[0]

    def spontaneous(self) -> list[VmState]:
        """The States that events told of which nobody had asked for."""
        return [event.record.state for event in self.events if event.spontaneous and event.record is not None]

    def assert_nothing_open(self) -> None:
        """No operation is left in the journal, once the reports are out (the waiter hears first)."""
        eventually(lambda: Journal(self.database).unfinished() == (), 5, "the journal is empty")

    def assert_no_trace(self, vmid: UUID) -> None:
        """Nothing is left of a VM: no domain, no files, no devices, no entry."""
        assert self.hypervisor.find(vmid) is None
        assert not list(self.state_dir.glob(f"*/{vmid}*"))
        assert self.engine.get(vmid) is None
        running = {record.vmid for record in self.engine.list() if record.state is VmState.RUNNING}
        eventually(lambda: not self.backend.leaks(running), 10, "; ".join(self.backend.leaks(running)))

    def stop(self) -> None:
        """What an orderly end of the agent is; domains go on."""
        if not self._stopped:
            self._stopped = True
            self.engine.stop()
            self.database.close()
