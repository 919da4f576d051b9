"""Words and measures of the console: what orders, states and sizes are called for people. Tables; knows no pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from virmo_server.model import OrderState, Role
from virmo_server.procedures.states import ImageState, VmState

#: kind of order → what it does, as a button says it
ORDER_WORDS: Mapping[str, str] = {
    "deliver-image": "Deliver image",
    "delete-image": "Delete image",
    "create-vm": "Create VM",
    "power-off": "Power off",
    "power-on": "Power on",
    "suspend": "Suspend",
    "resume": "Resume",
    "delete-vm": "Delete VM",
    "refresh": "Refresh",
    "apply-resources": "Change resources of",
    "list-peripherals": "List peripherals of",
    "enable-peripheral": "Enable a peripheral of",
    "disable-peripheral": "Disable a peripheral of",
    "guest-lock": "Lock",
    "guest-partial-lock": "Lock partially",
    "guest-unlock": "Unlock",
    "guest-wipe": "Wipe",
    "guest-reset": "Factory reset of",
    "guest-packages": "List software in",
    "guest-install": "Install software in",
    "guest-remove": "Remove software from",
    "guest-update": "Update the system of",
    "guest-ask": "Ask the user of",
    "guest-info": "Read facts of",
    "node-get": "Read node",
    "node-add": "Add node",
    "node-replace": "Replace node",
    "node-delete": "Delete node",
    "node-exec": "Execute node",
}

#: type of Generic Alert, in lower case → what it tells
ALERT_WORDS: Mapping[str, str] = {
    "urn:oma:at:oma-virmo:imageready:1.0": "Image ready",
    "reversed-domain-name: org.virmo/operationcomplete": "Operation ended",
    "reversed-domain-name: org.virmo/statechanged": "State changed",
}

#: State → the tone in which a badge shows it; the words beside it always say the same
VM_TONES: Mapping[int, str] = {
    VmState.NOT_CREATED: "idle",
    VmState.POWERED_OFF: "idle",
    VmState.RUNNING: "good",
    VmState.SUSPENDED: "held",
    VmState.DELETED: "idle",
}
IMAGE_TONES: Mapping[int, str] = {
    ImageState.NOT_DOWNLOADED: "idle",
    ImageState.DOWNLOADING: "busy",
    ImageState.DOWNLOADED: "good",
    ImageState.DOWNLOAD_FAILED: "bad",
}
ORDER_TONES: Mapping[OrderState, str] = {
    OrderState.QUEUED: "wait",
    OrderState.SENT: "busy",
    OrderState.ACCEPTED: "busy",
    OrderState.DONE: "good",
    OrderState.FAILED: "bad",
    OrderState.EXPIRED: "bad",
    OrderState.CANCELLED: "idle",
}


@dataclass(frozen=True, slots=True)
class VmAction:
    """A button on a VM. ``question`` is asked before; ``{name}`` and ``{device}`` are filled in."""

    kind: str
    label: str
    question: str = ""
    dangerous: bool = False


_POWER_ON = VmAction("power-on", "Power on")
_POWER_OFF = VmAction(
    "power-off", "Power off", "Power off {name} on {device}? What runs in it stops, as if its plug were pulled.", True
)
_SUSPEND = VmAction("suspend", "Suspend", "Suspend {name} on {device}? It stops answering until it is resumed.")
_RESUME = VmAction("resume", "Resume")
_DELETE = VmAction(
    "delete-vm", "Delete", "Delete {name} on {device}? Its disks and all data on them are destroyed.", True
)
_ALL_ACTIONS = (_POWER_ON, _POWER_OFF, _SUSPEND, _RESUME, _DELETE)
#: Which buttons to offer (7.1.4). What is known may be old: whether an operation fits is the device's to say.
_ACTIONS: Mapping[int, tuple[VmAction, ...]] = {
    VmState.NOT_CREATED: (_DELETE,),
    VmState.POWERED_OFF: (_POWER_ON, _DELETE),
    VmState.RUNNING: (_SUSPEND, _POWER_OFF, _DELETE),
    VmState.SUSPENDED: (_RESUME, _DELETE),
}


def vm_actions(state: int | None) -> tuple[VmAction, ...]:
    """The buttons for a VM in this State; all of them when it is not known."""
    return _ALL_ACTIONS if state is None else _ACTIONS.get(state, _ALL_ACTIONS)


def order_words(kind: str, name: str | None = None) -> str:
    """``Power off www``."""
    words = ORDER_WORDS.get(kind) or kind.replace("-", " ").capitalize()
    return f"{words} {name}" if name else words


def alert_words(untrusted_type: str) -> str:
    """``Image ready`` for the types of alert that devices of ours send; others as they are."""
    return ALERT_WORDS.get(untrusted_type.strip().lower(), untrusted_type)


def spoken(identifier: str) -> str:
    """``create order`` for ``create_order``."""
    return identifier.replace("_", " ").replace(".", ": ")


def state_words(state_text: str) -> str:
    """``Running`` for ``2 Running``: the number is for programs."""
    number, _, words = state_text.partition(" ")
    return words if number.isdigit() and words else state_text


def ago(then: datetime | None, now: datetime) -> str:
    """How long since ``then``, roughly: ``12 s ago``, ``5 min ago``, ``in 3 h``, ``never``."""
    if then is None:
        return "never"
    seconds = (now - then).total_seconds()
    amount = _amount(abs(seconds))
    if abs(seconds) < 1:
        return "just now"
    return f"{amount} ago" if seconds > 0 else f"in {amount}"


def _amount(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size * 1.5:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def size(octets: int | None) -> str:
    """``12.3 MiB``."""
    if octets is None:
        return "unknown"
    amount = float(octets)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


ROLE_WORDS: Mapping[Role, str] = {
    Role.VIEWER: "may look",
    Role.OPERATOR: "may look and order",
    Role.ADMIN: "may do everything",
}


def allocation(untrusted_pairs: str | None) -> str:
    """``10 % CPU, 256.0 MiB RAM`` for ``CPU=10&RAM=268435456`` (clause 8); what is no such pair is shown as it is."""
    shown = []
    for pair in (untrusted_pairs or "").split("&"):
        key, separator, value = pair.partition("=")
        is_number = value.isascii() and value.isdigit() and len(value) < 19
        if separator and is_number and key in _UNITS:
            shown.append(f"{_UNITS[key](int(value))} {key}".replace(" ", "\N{NO-BREAK SPACE}"))
        elif pair:
            shown.append(pair)
    return ", ".join(shown)


def _percent(value: int) -> str:
    return f"{value} %"


_UNITS: Mapping[str, Callable[[int], str]] = {"CPU": _percent, "RAM": size, "Storage": size, "Network": _percent}
