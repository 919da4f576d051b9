"""Runs in dom0 for ``bench_lifecycle.py``: a VM's life by the agent's engine and by bare ``xl``, in turns, timed.

    lifecycle.py GUEST ROUNDS OPERATION…    GUEST: a folder with kernel and ramdisk

Both do the same to the same guest, each operation from the order to its end:

=========  ====================================================  ===================================================
operation  agent                                                 xl
=========  ====================================================  ===================================================
create     Create: a disk of its own from the image's, start     cp of the disk, ``xl create`` with the image's kernel
poweroff   PowerOff                                              ``xl shutdown -w``, until the xl that stayed
                                                                 behind has removed the domain
poweron    PowerOn                                               ``xl create``
suspend    Suspend                                               ``xl save``
resume     Resume                                                ``xl restore``, and rm of the saved state
delete     Delete of the running VM                              ``xl destroy``, and rm of the files
=========  ====================================================  ===================================================

The agent also keeps its journal, reads back, syncs what must survive a power cut, and leaves no xl process behind; who
works by hand does not. Not part of it: the DM session that brings an order. Prints a JSON object: side → operation →
seconds of each, by round.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import UUID, uuid4

from dom0_agent.hypervisor.interface import Hypervisor
from dom0_agent.hypervisor.xl import open_xl
from dom0_agent.images.model import ImageDisk, ImageEvent, ImageRecord, ImageState, VerifiedImage
from dom0_agent.operation import OperationHandle, Origin
from dom0_agent.store.database import Database
from dom0_agent.vm.config import VmConfig
from dom0_agent.vm.engine import VmEngine, open_engine
from dom0_agent.vm.model import Primitive

MEMORY = 128 << 20
#: of the image's disk, and what of it holds data
DISK_SIZE, DISK_DATA = 64 << 20, 16 << 20
DEADLINE = 300.0
PRIMITIVES = {
    "create": Primitive.CREATE,
    "poweroff": Primitive.POWER_OFF,
    "poweron": Primitive.POWER_ON,
    "suspend": Primitive.SUSPEND,
    "resume": Primitive.RESUME,
    "delete": Primitive.DELETE,
}
#: before these the guest must be up
GUEST_ACTS = ("poweroff", "suspend")


class OneImage:
    """An ``ImageService`` with one verified image, and nothing to download."""

    def __init__(self, guest: Path) -> None:
        disk = ImageDisk(guest / "disk", "xvda", "raw", (guest / "disk").stat().st_size)
        self.image = VerifiedImage(
            img_id="image",
            name="bench",
            arch="x86_64",
            type="pv",
            vcpus=1,
            memory=MEMORY,
            cmdline="console=hvc0 quiet",
            kernel=guest / "kernel",
            ramdisk=guest / "ramdisk",
            disks=(disk,),
        )

    def add(self) -> str:
        raise NotImplementedError("the bench makes no images")

    def get(self, img_id: str) -> ImageRecord | None:
        return ImageRecord(img_id, ImageState.DOWNLOADED)

    def list(self) -> tuple[ImageRecord, ...]:
        return (ImageRecord("image", ImageState.DOWNLOADED),)

    def download(self, img_id: str, uri: str, media_type: str, origin: Origin | None = None) -> OperationHandle:
        raise NotImplementedError("the bench downloads nothing")

    def delete(self, img_id: str) -> None:
        raise NotImplementedError("the bench deletes no images")

    def verified(self, img_id: str) -> VerifiedImage:
        return self.image

    def subscribe(self, listener: Callable[[ImageEvent], None]) -> None:
        """Nothing happens to the image."""


class Ours:
    """The agent's engine."""

    def __init__(self, engine: VmEngine) -> None:
        self._engine = engine
        self.uuid = UUID(int=0)

    def do(self, operation: str) -> None:
        """One operation, to its end."""
        if operation == "create":
            self.uuid = self._engine.add()
        img_id = "image" if operation == "create" else None
        result = self._engine.submit(self.uuid, PRIMITIVES[operation], img_id=img_id).wait(DEADLINE)
        if result is None or not result.ok:
            raise SystemExit(f"agent, {operation}: {result}")


class Xl:
    """Bare ``xl``."""

    def __init__(self, guest: Path, folder: Path) -> None:
        self._guest = guest
        self._folder = folder
        self.uuid = UUID(int=0)

    def do(self, operation: str) -> None:
        """One operation, to its end."""
        getattr(self, operation)()

    def create(self) -> None:
        self.uuid = uuid4()
        self._folder.mkdir()
        disk = self._folder / "disk"
        self._run("cp", "--reflink=auto", "--sparse=always", str(self._guest / "disk"), str(disk))
        settings = {
            "name": "bench",
            "uuid": str(self.uuid),
            "type": "pv",
            "kernel": str(self._guest / "kernel"),
            "ramdisk": str(self._guest / "ramdisk"),
            "cmdline": "console=hvc0 quiet",
        }
        lines = [f'{key} = "{value}"' for key, value in settings.items()]
        lines += [f"memory = {MEMORY >> 20}", "vcpus = 1"]
        lines += [f'disk = ["format=raw,vdev=xvda,access=w,target={disk}"]']
        (self._folder / "cfg").write_text("\n".join(lines) + "\n")
        self.poweron()

    def poweron(self) -> None:
        self._run("xl", "create", "-q", str(self._folder / "cfg"))

    def poweroff(self) -> None:
        self._run("xl", "shutdown", "-w", "bench")

    def suspend(self) -> None:
        self._run("xl", "save", "bench", str(self._folder / "saved"))

    def resume(self) -> None:
        self._run("xl", "restore", str(self._folder / "saved"))
        (self._folder / "saved").unlink()

    def delete(self) -> None:
        self._run("xl", "destroy", "bench")
        shutil.rmtree(self._folder)

    def _run(self, *argv: str) -> None:
        # Not captured: the xl that stays behind to watch the domain would keep the pipe open.
        done = subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False, timeout=DEADLINE)
        if done.returncode != 0:
            raise SystemExit(f"xl: {' '.join(argv)}: {done.stderr.decode(errors='replace')}")


def make_disk(path: Path) -> None:
    """The image's disk. The guest does not look at it."""
    with path.open("wb") as disk:
        disk.write(os.urandom(DISK_DATA))
        disk.truncate(DISK_SIZE)
        os.fsync(disk.fileno())


def await_guest(hypervisor: Hypervisor, uuid: UUID) -> None:
    """Until the guest's shim has spoken a few times: it is up, and idle."""
    end = time.monotonic() + DEADLINE
    while (hypervisor.guest_facts(uuid).beats or 0) < 3:
        if time.monotonic() > end:
            raise SystemExit(f"the guest {uuid} does not speak")
        time.sleep(0.2)
    time.sleep(1.0)


def await_gone(hypervisor: Hypervisor, uuid: UUID) -> None:
    """Until nothing is left: the xl that stayed behind needs a moment."""
    end = time.monotonic() + DEADLINE
    while hypervisor.find(uuid) is not None and time.monotonic() < end:
        time.sleep(0.1)


def main(guest: Path, rounds: int, operations: Sequence[str]) -> None:
    """Measure."""
    make_disk(guest / "disk")
    root = guest.parent / "state"
    hypervisor = open_xl(root / "run")
    database = Database(root / "agent.db")
    engine = open_engine(database, hypervisor, OneImage(guest), VmConfig(storage_reserve=0), root)
    engine.start()
    sides: dict[str, Ours | Xl] = {"agent": Ours(engine), "xl": Xl(guest, root / "bare")}
    seconds: dict[str, dict[str, list[float]]] = {name: {operation: [] for operation in operations} for name in sides}
    try:
        for number in range(rounds):
            for name in sorted(sides, reverse=bool(number % 2)):
                side = sides[name]
                for operation in operations:
                    if operation in GUEST_ACTS:
                        await_guest(hypervisor, side.uuid)
                    begun = time.monotonic()
                    side.do(operation)
                    if operation == "poweroff":  # xl's shutdown returns while the domain is still there
                        await_gone(hypervisor, side.uuid)
                    took = time.monotonic() - begun
                    seconds[name][operation].append(took)
                    print(f"round {number + 1}, {name}: {operation} {took:.2f} s", file=sys.stderr, flush=True)
                    if operation in ("suspend", "delete"):
                        await_gone(hypervisor, side.uuid)
    finally:
        engine.stop()
        hypervisor.close()
        database.close()
    print(json.dumps(seconds))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
