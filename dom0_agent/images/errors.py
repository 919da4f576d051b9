"""Why an image could not be had: each failure knows its DM status and its DLOTA install-notify code.

The table of ``management-objects`` 7.3, as exception classes. Readings of our own where that table is silent: damaged
content (wrong SHA-256, broken archive) is 424 like a wrong size, content of a kind we do not take (also a manifest
that does not fit us) is 415, more than the configured maximum is 413, a missing or bad signature is 403.

Messages are for people; they name what failed and what to do, and never carry the credentials of a URL.
"""

from __future__ import annotations

import errno
from pathlib import Path

from dom0_agent.omadm.status import Status


class ImageError(Exception):
    """A download or verification failed. ``status`` is for the DM server, ``notify`` for DLOTA's installNotifyURI."""

    status: Status = Status.COMMAND_FAILED
    notify: int = 952
    #: whether what has been received so far may be continued by a later try
    keep_partial: bool = False


class NoSpace(ImageError):  # noqa: N818 - they name what happened, as people say it
    """The file system cannot take the image, dom0's own reserve considered."""

    status = Status.DEVICE_FULL
    notify = 901
    keep_partial = True


class StoreFailure(ImageError):  # noqa: N818
    """The device's own disk cannot be written or read."""

    status = Status.DATA_STORE_FAILURE


class TooLarge(ImageError):  # noqa: N818
    """The image is larger than ``images.max_size`` allows."""

    status = Status.TOO_LARGE
    notify = 901


class Cancelled(ImageError):  # noqa: N818
    """The image was deleted while it was being downloaded."""

    status = Status.CANCELLED
    notify = 902


class Interrupted(ImageError):  # noqa: N818
    """The agent stopped while the download ran; a later try goes on from what is there."""

    notify = 952
    keep_partial = True


class NetworkLost(ImageError):  # noqa: N818
    """The connection failed or was too slow, too often."""

    notify = 903
    keep_partial = True


class LoaderError(ImageError):
    """The URL cannot be loaded: a final HTTP status, a redirect that must not be followed, TLS that is not trusted."""

    notify = 954
    keep_partial = True


class SizeMismatch(ImageError):  # noqa: N818
    """There is more or less of it than was announced."""

    status = Status.SIZE_MISMATCH
    notify = 905


class Corrupt(ImageError):  # noqa: N818
    """The content is damaged: a digest does not match, an archive or a compressed stream is broken."""

    status = Status.SIZE_MISMATCH
    notify = 905


class Truncated(Corrupt):
    """The content ends too early."""


class TypeMismatch(ImageError):  # noqa: N818
    """The content is not what MediaType (or the download descriptor) says (A-38)."""

    status = Status.UNSUPPORTED_FORMAT
    notify = 905


class Unsupported(ImageError):  # noqa: N818
    """The content is of a kind, or asks for something, that this device does not take."""

    status = Status.UNSUPPORTED_FORMAT
    notify = 953


class NotTrusted(ImageError):  # noqa: N818
    """The signature is missing, or is not by anyone the configured CA vouches for."""

    status = Status.FORBIDDEN
    notify = 952


class BadDescriptor(ImageError):  # noqa: N818
    """The DLOTA download descriptor cannot be used."""

    notify = 906


class BadDescriptorVersion(BadDescriptor):
    """The DLOTA download descriptor is not of version 1.x."""

    notify = 951


def disk_failure(store: Path, error: OSError) -> ImageError:
    """What an error of our own file system means."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return (NoSpace if full else StoreFailure)(f"the image store {store} failed: {error}")
