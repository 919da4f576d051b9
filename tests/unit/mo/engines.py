"""VM and image engines in memory, so that the management objects are tested against the real tree alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

from dom0_agent.images.model import ImageEvent, ImageRecord, ImageState, VerifiedImage
from dom0_agent.operation import OperationHandle, OperationRefused, OperationResult, Origin
from dom0_agent.vm.model import Primitive, Rebuild, VmEvent, VmRecord, VmState

FROM_TO = {
    Primitive.CREATE: ((VmState.NOT_CREATED,), VmState.RUNNING),
    Primitive.CREATE_AND_POWER_OFF: ((VmState.NOT_CREATED,), VmState.POWERED_OFF),
    Primitive.SUSPEND: ((VmState.RUNNING,), VmState.SUSPENDED),
    Primitive.RESUME: ((VmState.SUSPENDED,), VmState.RUNNING),
    Primitive.POWER_ON: ((VmState.POWERED_OFF,), VmState.RUNNING),
    Primitive.POWER_OFF: ((VmState.RUNNING,), VmState.POWERED_OFF),
    Primitive.DELETE: ((VmState.POWERED_OFF, VmState.RUNNING, VmState.SUSPENDED), VmState.DELETED),
}


class MemoryVms:
    """A VmService whose operations end at once with ``result``, or never while ``result`` is ``None``."""

    def __init__(self) -> None:
        self.records: dict[UUID, VmRecord] = {}
        self.result: OperationResult | None = OperationResult(200)
        self.busy: set[UUID] = set()
        self.rebuilt: list[tuple[Rebuild, str, float]] = []
        self.submitted: list[tuple[Primitive, str | None, Mapping[str, str] | None, Origin | None]] = []

    def add(self) -> UUID:
        vmid = uuid4()
        self.records[vmid] = VmRecord(vmid, VmState.NOT_CREATED)
        return vmid

    def forget(self, vmid: UUID) -> None:
        assert self.records[vmid].state is VmState.NOT_CREATED
        del self.records[vmid]

    def require_idle(self, vmid: UUID) -> None:
        if vmid in self.busy:
            raise OperationRefused(417, f"an operation runs on {vmid}")

    def get(self, vmid: UUID) -> VmRecord | None:
        return self.records.get(vmid)

    def list(self) -> tuple[VmRecord, ...]:
        return tuple(self.records.values())

    def submit(
        self,
        vmid: UUID,
        primitive: Primitive,
        *,
        img_id: str | None = None,
        vendor: Mapping[str, str] | None = None,
        origin: Origin | None = None,
    ) -> OperationHandle:
        origins, target = FROM_TO[primitive]
        if self.records[vmid].state not in origins:
            raise OperationRefused(405, f"{primitive.value} in {self.records[vmid].state.name}")
        self.submitted.append((primitive, img_id, vendor, origin))
        handle = OperationHandle(origin)
        if self.result is None:
            self.busy.add(vmid)
        else:
            handle.finish(self.result)
            if self.result.ok and target is VmState.DELETED:
                del self.records[vmid]
            elif self.result.ok:
                self.records[vmid] = replace(self.records[vmid], state=target, img_id=img_id)
        return handle

    def rebuild(self, vmid: UUID, rebuild: Rebuild, img_id: str, *, health_timeout: float = 0.0) -> OperationHandle:
        if self.records[vmid].state is not VmState.RUNNING:
            raise OperationRefused(405, f"{rebuild.value} in {self.records[vmid].state.name}")
        self.rebuilt.append((rebuild, img_id, health_timeout))
        handle = OperationHandle()
        if self.result is not None:
            handle.finish(self.result)
        return handle

    def subscribe(self, listener: Callable[[VmEvent], None]) -> None:
        """Nobody is told: these operations end in the call."""


class MemoryImages:
    """An ImageService whose downloads end at once with ``result``, or never while ``result`` is ``None``."""

    def __init__(self) -> None:
        self.records: dict[str, ImageRecord] = {}
        self.result: OperationResult | None = OperationResult(200)
        self.downloads: list[tuple[str, str, Origin | None]] = []

    def add(self) -> str:
        img_id = f"img-{len(self.records)}"
        self.records[img_id] = ImageRecord(img_id, ImageState.NOT_DOWNLOADED)
        return img_id

    def get(self, img_id: str) -> ImageRecord | None:
        return self.records.get(img_id)

    def list(self) -> tuple[ImageRecord, ...]:
        return tuple(self.records.values())

    def download(self, img_id: str, uri: str, media_type: str, origin: Origin | None = None) -> OperationHandle:
        if not uri:
            raise OperationRefused(412, "DownloadURI is empty")
        self.downloads.append((uri, media_type, origin))
        handle = OperationHandle(origin)
        state = ImageState.DOWNLOADING
        if self.result is not None:
            handle.finish(self.result)
            state = ImageState.DOWNLOADED if self.result.ok else ImageState.DOWNLOAD_FAILED
        location = Path("/images") / img_id if state is ImageState.DOWNLOADED else None
        self.records[img_id] = replace(self.records[img_id], state=state, location=location)
        return handle

    def delete(self, img_id: str) -> None:
        self.records.pop(img_id, None)

    def verified(self, img_id: str) -> VerifiedImage:
        raise OperationRefused(404, f"{img_id}: these images have no content")

    def subscribe(self, listener: Callable[[ImageEvent], None]) -> None:
        """Nobody is told: these downloads end in the call."""
