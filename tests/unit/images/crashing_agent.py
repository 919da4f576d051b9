"""An image service that is killed at its n-th change of the disk (run as a program by ``test_image_crashes``).

The changes are counted by Python's audit events, not picked by hand: whatever the code does to files is a place to die.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from dom0_agent.images.config import ImagesConfig
from dom0_agent.images.mediatypes import BUNDLE
from dom0_agent.images.model import ImageEvent
from dom0_agent.images.service import LocalImageService
from dom0_agent.operation import Origin
from dom0_agent.store.database import Database
from dom0_agent.store.images import ImageTable

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Death:
    """Counts changes; kills at the one with the given number (0: never)."""

    def __init__(self, number: int) -> None:
        self._number = number
        self.count = 0
        self.armed = False

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.armed or not (event in CHANGES or (event == "open" and self._writes(arguments))):
            return
        self.change()

    def change(self) -> None:
        self.count += 1
        if self.count == self._number:
            os.kill(os.getpid(), signal.SIGKILL)

    @staticmethod
    def _writes(arguments: tuple[object, ...]) -> bool:
        flags = arguments[2]
        return isinstance(flags, int) and bool(flags & _WRITING)


class CountedTable(ImageTable):
    """SQLite's writes raise no audit events; each is a place to die before and after it."""

    death: Death

    def put(self, image: object) -> None:
        self.death.change()
        super().put(image)  # type: ignore[arg-type]
        self.death.change()

    def delete(self, img_id: str) -> bool:
        self.death.change()
        gone = super().delete(img_id)
        self.death.change()
        return gone


def main(folder: Path, url: str, scenario: str, number: int) -> None:
    """Deliver an image; in the scenario ``delete`` delete it, too, and be killed only there."""
    death = Death(number)
    sys.addaudithook(death)
    database = Database(folder / "agent.db")
    table = CountedTable(database)
    table.death = death
    service = LocalImageService(ImagesConfig(dir=folder / "images", reserve=0, arch="x86_64"), table)

    def listen(event: ImageEvent) -> None:
        """Persists what it owes the server, as the agent's listener does."""
        if event.result is not None:
            descriptor = os.open(folder / "reported", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.write(descriptor, f"{event.result.status}\n".encode())
            os.close(descriptor)

    service.subscribe(listen)
    death.armed = scenario == "deliver"
    service.start()
    image = service.add()
    result = service.download(image, url, BUNDLE, Origin("server", "./VMImgMO/x/Operations/Download")).wait(20)
    service.close()
    if result is None or not result.ok:
        raise SystemExit(f"failed: {result}")
    if scenario == "delete":
        death.armed = True
        service.delete(image)
    print(death.count)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
