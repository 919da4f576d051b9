"""What is remembered of an update of dom0's system over restarts: one small file, replaced as a whole."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path

from dom0_agent.operation import Origin


class Stage(Enum):
    """How far an update is."""

    IDLE = "idle"
    DOWNLOADING = "downloading"
    DOWNLOAD_FAILED = "download failed"
    READY = "ready"  #: a verified package is there
    WRITING = "writing"  #: the other slot is incomplete; nothing starts from it
    ARMED = "armed"  #: the other slot is complete, and the boot loader is to try it
    FAILED = "failed"  #: the old system runs; the package is still there
    UPDATED = "updated"


@dataclass(frozen=True, slots=True)
class UpdateRecord:
    """One update. ``action`` is what a server executed last: Download, Update or DownloadAndUpdate."""

    stage: Stage = Stage.IDLE
    action: str = ""
    url: str = ""
    img_id: str = ""
    slot: str = ""  #: that is written
    boot_id: str = ""  #: of the start in which it was armed
    origin: Origin | None = None
    error: str = ""

    @property
    def busy(self) -> bool:
        """Whether something goes on that nobody may interfere with."""
        return self.stage in (Stage.DOWNLOADING, Stage.WRITING, Stage.ARMED)


def load(file: Path) -> UpdateRecord:
    """The record in the file; a fresh one when there is none. :raises ValueError: it was not written by us"""
    try:
        text = file.read_text("utf-8")
    except FileNotFoundError:
        return UpdateRecord()
    fields = json.loads(text)
    origin = fields.pop("origin")
    return UpdateRecord(
        **{**fields, "stage": Stage(fields["stage"]), "origin": None if origin is None else Origin(**origin)}
    )


def save(file: Path, record: UpdateRecord) -> None:
    """Replace the file, durably."""
    new = file.with_suffix(".new")
    with new.open("w", encoding="utf-8") as stream:
        json.dump({**asdict(record), "stage": record.stage.value}, stream)
        stream.flush()
        os.fsync(stream.fileno())
    new.replace(file)
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
