"""Download descriptors (DLOTA 1.0): what to expect of a file before it is fetched, and where to report the end."""

from __future__ import annotations

import re
from xml.sax.saxutils import escape

from virmo_server.model import Image

MEDIA_TYPE = "application/vnd.oma.dd+xml"
NAMESPACE = "http://www.openmobilealliance.org/xmlns/dd"
#: What a descriptor's name ends with, after the file's.
SUFFIX = ".dd"
#: Beside the descriptor.
REPORT_SUFFIX = ".report"
#: A report is one line, ``900 Success``.
MAX_REPORT_BYTES = 256

_REPORT = re.compile(r"([0-9]{3})(?: ([\x20-\x7e]*))?")


def descriptor(image: Image, object_url: str) -> str:
    """The descriptor of the file at ``object_url``."""
    elements = {
        "DDVersion": "1.0",
        "name": image.name,
        "type": image.media_type,
        "size": str(image.size),
        "objectURI": object_url,
        "installNotifyURI": f"{object_url}{REPORT_SUFFIX}",
    }
    body = "".join(f"<{name}>{escape(text)}</{name}>" for name, text in elements.items())
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<media xmlns="{NAMESPACE}">{body}</media>\n'


def parse_report(untrusted_body: bytes) -> tuple[int, str] | None:
    """Code and text of a report; ``None`` when it is none."""
    line = untrusted_body.decode("ascii", "replace").strip()
    found = _REPORT.fullmatch(line)
    return None if found is None else (int(found[1]), found[2] or "")
