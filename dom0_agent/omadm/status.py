"""Status codes a DM party answers with (OMA-TS-DM-RepPro 10), and the exception that carries one to the session."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum


class Status(IntEnum):
    """Status codes of OMA DM; MO-specific result codes (1000 and above) travel as plain ``int``."""

    IN_PROGRESS = 101
    OK = 200
    ACCEPTED = 202
    AUTHENTICATED = 212
    CHUNK_ACCEPTED = 213
    CANCELLED = 214
    NOT_EXECUTED = 215
    ROLLED_BACK = 216
    NOT_MODIFIED = 304
    BAD_REQUEST = 400
    UNAUTHORIZED = 401
    FORBIDDEN = 403
    NOT_FOUND = 404
    NOT_ALLOWED = 405
    NOT_SUPPORTED = 406
    AUTHENTICATION_REQUIRED = 407
    TIMEOUT = 408
    SIZE_REQUIRED = 411
    INCOMPLETE = 412
    TOO_LARGE = 413
    URI_TOO_LONG = 414
    UNSUPPORTED_FORMAT = 415
    SIZE_TOO_BIG = 416
    RETRY_LATER = 417
    ALREADY_EXISTS = 418
    DEVICE_FULL = 420
    SIZE_MISMATCH = 424
    PERMISSION_DENIED = 425
    COMMAND_FAILED = 500
    NOT_IMPLEMENTED = 501
    SERVICE_UNAVAILABLE = 503
    DTD_NOT_SUPPORTED = 505
    PROCESSING_ERROR = 506
    ATOMIC_FAILED = 507
    DATA_STORE_FAILURE = 510
    PROTOCOL_NOT_SUPPORTED = 513
    ROLL_BACK_FAILED = 516
    ATOMIC_RESPONSE_TOO_LARGE = 517


class DMError(Exception):
    """A command cannot be done: ``status`` is what the server is told, the message is for the person with the log."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class CommitFailed(DMError):  # noqa: N818 - it says what happened
    """What was done could not be made durable and has been taken back; ``undone``: per write, whether that worked."""

    def __init__(self, status: int, message: str, undone: Sequence[bool]) -> None:
        super().__init__(status, message)
        self.undone = tuple(undone)


class ProtocolError(Exception):
    """Foreign bytes are not a message we can process (malformed, over a cap). The only error a codec lets out."""
