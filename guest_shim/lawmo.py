"""LAWMO in the guest: lock, unlock, wipe. The handlers do what it takes; here is what is locked, and for how long.

A lock is written down before it is made, and made again when the shim starts: it outlives reboots.
Must run on Python 3.9 with the standard library alone.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from guest_shim.dispatch import Answer, Request, ServedObject, ShimError, failure
from guest_shim.places import Places, handle
from guest_shim.ticks import monotonic

logger = logging.getLogger(__name__)

MOID = "urn:oma:mo:oma-lawmo:1.0"
SERVED = ServedObject(
    MOID,
    live=("State", "AvailableWipeList/*/ListItemName"),
    operations=("Operations/FullyLock", "Operations/PartiallyLock", "Operations/UnLock", "Operations/Wipe"),
)
FULLY_LOCKED, PARTIALLY_LOCKED, UNLOCKED = "10", "20", "30"
SUCCESS, WIPED_LIST = 1200, 1202
FULLY_LOCK_FAILED, PARTIALLY_LOCK_FAILED, UNLOCK_FAILED, WIPE_FAILED, NOTHING_WIPED = 1402, 1403, 1404, 1405, 1406

#: Seconds that the wipe list is not looked at again.
LISTED = 2.0
#: How the lock handler marks lines of the init table.
LOCKED_LINE = "#virmo-locked#"
#: Where the state is kept.
FILE = "lawmo/state.json"
#: An integrator's own wipe list: a file each, ``name = …`` and ``path = …`` (repeated), by its file name.
WIPE_FOLDER = "wipe.d"
#: What can be wiped where nobody says otherwise: name → (for people, paths).
WIPE_LIST = {
    "home": ("Home directories", ("/home", "/root")),
    "data": ("Data partition", ("/data", "/srv")),
    "temporary": ("Temporary files", ("/tmp", "/var/tmp")),  # noqa: S108 - what there is, not where we write
}


class Lawmo:
    """The state, and the operations."""

    def __init__(self, places: Places, clock: Callable[[], float] = monotonic) -> None:
        self._places = places
        self._clock = clock
        self._listed: dict[str, str] = {}  #: the live nodes of the wipe list
        self._listed_until = -math.inf  #: by the clock
        stored = places.load(FILE, {})
        self._state = stored.get("state", UNLOCKED) if isinstance(stored, dict) else UNLOCKED
        self._marked: frozenset[str] = frozenset()
        self._quiet: tuple[str, ...] = ()  #: ("quiet",): the person at the guest is not told

    def resume(self) -> None:
        """At the shim's start: make the lock again that was there before."""
        if self._state != UNLOCKED:
            kind = "full" if self._state == FULLY_LOCKED else "partial"
            result = handle(self._places, "lawmo", "lock", kind, *self._quiet)
            level = logging.ERROR if result.code else logging.WARNING
            logger.log(level, "locked again as before the reboot: code=%d %s", result.code, result.words)

    def is_at_hand(self) -> bool:
        """Whether :meth:`read` needs no file: a file system may hang."""
        return self._clock() < self._listed_until

    def read(self) -> dict[str, str]:
        """The live nodes; what is in the wipe list as it was at most :data:`LISTED` seconds ago."""
        if not self.is_at_hand():
            wipe_list = self._wipe_list()
            self._listed = {f"AvailableWipeList/{key}/ListItemName": name for key, (name, _) in wipe_list.items()}
            self._listed_until = self._clock() + LISTED
        return {"State": self._state, **self._listed}

    def configure(self, nodes: Mapping[str, str]) -> None:
        """What is marked ToBeWiped, and whether the person at the guest is told (NotifyUser)."""
        self._quiet = ("quiet",) if nodes.get("LAWMOConfig/NotifyUser", "true").lower() == "false" else ()
        marked = set()
        for path, value in nodes.items():
            parts = path.split("/")
            if len(parts) == 3 and parts[0] == "AvailableWipeList" and value.lower() == "true":
                marked.add(parts[1])
        self._marked = frozenset(marked)

    def execute(self, node: str, request: Request) -> Answer:
        """An operation."""
        operations = {
            "Operations/FullyLock": lambda: self._lock("full", FULLY_LOCKED, FULLY_LOCK_FAILED),
            "Operations/PartiallyLock": lambda: self._lock("partial", PARTIALLY_LOCKED, PARTIALLY_LOCK_FAILED),
            "Operations/UnLock": self._unlock,
            "Operations/Wipe": self._wipe,
        }
        operation = operations.get(node)
        if operation is None:
            raise ShimError(406, f"{node} is not an operation of LAWMO here")
        return operation()

    def _lock(self, kind: str, state: str, failed: int) -> Answer:
        before, self._state = self._state, state
        self._places.store(FILE, {"state": state})
        if before == FULLY_LOCKED and state == PARTIALLY_LOCKED:
            handle(self._places, "lawmo", "unlock", *self._quiet)
        result = handle(self._places, "lawmo", "lock", kind, *self._quiet)
        if result.code == 0:
            return Answer(SUCCESS)
        self._state = before
        self._places.store(FILE, {"state": before})
        if before == UNLOCKED:  # half a lock is none
            handle(self._places, "lawmo", "unlock", *self._quiet)
        return failure(failed, f"the lock handler failed ({result.code}): {result.words}")

    def _unlock(self) -> Answer:
        self._forget_keys()
        result = handle(self._places, "lawmo", "unlock", *self._quiet)
        if result.code:
            return failure(UNLOCK_FAILED, f"the unlock handler failed ({result.code}): {result.words}")
        self._state = UNLOCKED
        self._places.store(FILE, {"state": UNLOCKED})
        return Answer(SUCCESS)

    def _forget_keys(self) -> None:
        """What was typed at the locked terminals must not be the first input of the shells that start there now."""
        import termios

        try:
            table = (self._places.root / "etc/inittab").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return
        for line in table.splitlines():
            if line.startswith(LOCKED_LINE):
                terminal = self._places.root / "dev" / line[len(LOCKED_LINE) :].partition(":")[0]
                try:
                    descriptor = os.open(terminal, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
                except OSError:
                    continue
                with contextlib.suppress(termios.error):
                    termios.tcflush(descriptor, termios.TCIFLUSH)
                os.close(descriptor)

    def _wipe(self) -> Answer:
        available = self._wipe_list()
        chosen = sorted(self._marked & available.keys())
        if not chosen:
            return failure(NOTHING_WIPED, "nothing is marked ToBeWiped")
        paths = [path for key in chosen for path in available[key][1]]
        result = handle(self._places, "lawmo", "wipe", *paths)
        if result.code:
            return failure(WIPE_FAILED, f"the wipe handler failed ({result.code}): {result.words}")
        return Answer(WIPED_LIST, {"message": ", ".join(available[key][0] for key in chosen)})

    def _wipe_list(self) -> dict[str, tuple[str, tuple[str, ...]]]:
        """Key → (for people, paths): the integrator's if there is one, else what is there of the usual."""
        folder = self._places.settings / WIPE_FOLDER
        try:
            files = sorted(os.listdir(folder))  # noqa: PTH208 - each Get comes here, and pathlib takes its time
        except (FileNotFoundError, NotADirectoryError):
            files = []
        if files:
            return dict(filter(None, (_parse(folder / file) for file in files)))
        root = str(self._places.root).rstrip("/")
        found = {}
        for key, (name, paths) in WIPE_LIST.items():
            present = tuple(path for path in paths if os.path.isdir(root + path))  # noqa: PTH112
            if present:
                found[key] = (name, present)
        return found


def _parse(file: Path) -> tuple[str, tuple[str, tuple[str, ...]]] | None:
    name, paths = file.stem, []
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        logger.warning("wipe list: %s cannot be read: %s", file, error)
        return None
    for line in text.splitlines():
        key, _, value = (part.strip() for part in line.partition("="))
        if key == "name":
            name = value
        elif key == "path":
            paths.append(value)
    return (file.stem, (name, tuple(paths))) if paths else None
