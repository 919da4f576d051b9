"""Result codes of the objects below DMTree, in words: FUMO's, LAWMO's, SCOMO's, beside the DM statuses."""

from __future__ import annotations

import re
from collections.abc import Mapping

from virmo_server.procedures.core import status_words

#: Alert types that tell the end of an operation below DMTree, as types are compared.
LAWMO_COMPLETE = "urn:oma:at:lawmo:1.0:operationcomplete"
SCOMO_COMPLETE = "urn:oma:at:scomo:1.0:operationcomplete"
DCMO_COMPLETE = "urn:oma:at:dcmo:1.0:operationcomplete"
FUMO_PREFIX = "org.openmobilealliance.dm.firmwareupdate."
FUMO_COMPLETE = frozenset(f"{FUMO_PREFIX}{name}" for name in ("download", "update", "downloadandupdate"))

_RESULT = re.compile(r"<ResultCode>\s*([0-9]{3,4})\s*</ResultCode>")

_WORDS: Mapping[int, str] = {
    1200: "success",
    1201: "data wiped",
    1202: "chosen data wiped",
    1400: "the device could not do it",
    1401: "the user cancelled",
    1250: "done, from the VM's next start on",
    1402: "failed (full lock, download, or enabling)",
    1403: "failed (partial lock, or disabling)",
    1404: "failed (unlock, or no room for the download)",
    1405: "failed (wipe, or installation)",
    1406: "nothing was wiped, or no room for the installation",
    1407: "the package is not what it should be",
    1408: "removal failed",
    1409: "activation failed",
    1410: "deactivation failed",
    1411: "the guest has no way to do it",
    1412: "undefined error",
    1413: "the guest does not take such packages",
    1500: "download server error",
    1501: "download server unavailable",
}
_FUMO_WORDS: Mapping[int, str] = {
    400: "the device could not do it",
    401: "the user cancelled",
    402: "the package is damaged",
    403: "the package does not fit the device",
    404: "the package's signature is missing or wrong",
    405: "the package is not acceptable",
    410: "the update failed, and the old system runs",
    411: "the URL cannot be used",
    501: "no room for the download",
    502: "no room for the update",
    503: "the download failed",
}


def is_success(code: int) -> bool:
    """200 to 299, and 1200 to 1299."""
    return code % 1000 // 100 == 2


def code_words(code: int, *, firmware: bool = False) -> str:
    """A result code with its meaning."""
    words = _FUMO_WORDS.get(code) if firmware else _WORDS.get(code)
    if words is None:
        return status_words(code)
    return f"{code} {words}"


def end_code(kind: str, untrusted_data: str) -> int | None:
    """The result code in an alert of type ``kind`` that tells an operation's end; ``None``: it is no such alert."""
    text = untrusted_data.strip()
    if kind == SCOMO_COMPLETE:
        found = _RESULT.search(text)
        return None if found is None else int(found[1])
    if kind in (LAWMO_COMPLETE, DCMO_COMPLETE) or kind in FUMO_COMPLETE:
        return int(text) if text.isascii() and text.isdigit() and len(text) <= 4 else None
    return None
