"""VirMO/<x>/CreateParams as this server writes it (R-036 to R-043), with a profile for the VM's DM client, too."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote

#: The order's parameter, and our agent's key of CreateParams, for a bootstrap profile in base64.
BOOTSTRAP, BOOTSTRAP_KEY = "bootstrap", "Bootstrap"
HIDDEN = "..."

_PROFILE = re.compile(rf"((?:^|&){BOOTSTRAP_KEY}=)[^&]+")


def create_params(img_id: str, *, running: bool, devices: Sequence[str] = (), bootstrap: str = "") -> str:
    """The node's value; values percent-encoded as reading A-18 has it. ``devices`` of the board are given to the VM by
    our own key."""
    pairs = [("ImgID", img_id), ("Running", "true" if running else "false")]
    pairs += [("Devices", ",".join(devices))] if devices else []
    pairs += [(BOOTSTRAP_KEY, bootstrap)] if bootstrap else []
    return "&".join(f"{key}={quote(value, safe='')}" for key, value in pairs)


def without_profile(untrusted_value: str) -> str:
    """The value to be kept and shown: a bootstrap profile holds passwords."""
    return _PROFILE.sub(rf"\1{HIDDEN}", untrusted_value)
