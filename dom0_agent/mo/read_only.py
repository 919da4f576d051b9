"""What management objects share that only tell: every leaf is live, nothing can be written or executed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dom0_agent.omadm.mo import Change, ExecOutcome, ExecRequest, Path, Undo
from dom0_agent.omadm.node import NodeDef, Value
from dom0_agent.omadm.status import DMError, Status


class ReadOnlyObject:
    """A ManagementObject that answers from a mapping of paths below its mount; leaves without an entry do not exist."""

    def __init__(self, moid: str, mount: Path, definition: NodeDef, values: Mapping[Path, Value]) -> None:
        self.moid = moid
        self.mount = mount
        self.definition = definition
        self._values = values

    def read(self, path: Path) -> Value | None:
        """See ``ManagementObject``."""
        return self._values.get(path[len(self.mount) :])

    def initial(self, path: Path) -> Value | None:
        """See ``ManagementObject``."""
        return self.read(path)

    def prepare(self, change: Change) -> Undo | None:
        """Nothing can be written, not even by the device's own side."""
        raise DMError(Status.NOT_ALLOWED, f"{'/'.join(change.path)} is read-only")

    def committed(self, changes: Sequence[Change]) -> None:
        """Never called: no change is accepted."""

    def execute(self, request: ExecRequest) -> ExecOutcome:
        """Nothing can be executed."""
        raise DMError(Status.NOT_ALLOWED, f"{request.uri} is not an operation")
