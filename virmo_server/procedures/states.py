"""The values of the State nodes, with the words operators read (R-035, R-088)."""

from __future__ import annotations

from enum import IntEnum


class VmState(IntEnum):
    """VirMO/<x>/State."""

    NOT_CREATED = 0
    POWERED_OFF = 1
    RUNNING = 2
    SUSPENDED = 3
    DELETED = 4

    @property
    def words(self) -> str:
        """As the specification spells it."""
        return ("NotCreated", "PoweredOff", "Running", "Suspended", "Deleted")[self]


class ImageState(IntEnum):
    """VMImgMO/<x>/State."""

    NOT_DOWNLOADED = 0
    DOWNLOADING = 1
    DOWNLOADED = 2
    DOWNLOAD_FAILED = 3

    @property
    def words(self) -> str:
        """As the specification spells it."""
        return ("Not Downloaded", "Downloading", "Downloaded", "Download Failed")[self]


def parse_state(untrusted_text: str | None) -> int | None:
    """A State value from a device: a decimal of few digits, or ``None``."""
    text = (untrusted_text or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 3 else None


def vm_state_words(state: int | None) -> str:
    """``2 Running``; a value outside the specification is shown as it is."""
    return _words(VmState, state)


def image_state_words(state: int | None) -> str:
    """``2 Downloaded``."""
    return _words(ImageState, state)


def _words(kind: type[VmState] | type[ImageState], state: int | None) -> str:
    if state is None:
        return "unknown"
    try:
        return f"{state} {kind(state).words}"
    except ValueError:
        return f"{state} (no value of the specification)"
