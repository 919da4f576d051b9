"""Alert codes, Mark levels and the shape of a Generic Alert (OMA-TS-DM Protocol 8.7; digest section 3).

Knows names and numbers only; who sends which alert when is the sessions' business.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum


class AlertCode(IntEnum):
    """Alert codes of OMA DM. 1105-1199, 1202-1220 and 1227-1299 are reserved."""

    DISPLAY = 1100
    CONFIRM_OR_REJECT = 1101
    TEXT_INPUT = 1102
    SINGLE_CHOICE = 1103
    MULTIPLE_CHOICE = 1104
    SERVER_INITIATED = 1200
    CLIENT_INITIATED = 1201
    NEXT_MESSAGE = 1222
    SESSION_ABORT = 1223
    CLIENT_EVENT = 1224
    NO_END_OF_DATA = 1225
    GENERIC_ALERT = 1226


#: alerts that ask the device's user something (server to client only)
USER_INTERACTION = frozenset(
    {
        AlertCode.DISPLAY,
        AlertCode.CONFIRM_OR_REJECT,
        AlertCode.TEXT_INPUT,
        AlertCode.SINGLE_CHOICE,
        AlertCode.MULTIPLE_CHOICE,
    }
)


class Mark(StrEnum):
    """Importance of a Generic Alert, most important first; absent means ``informational``."""

    FATAL = "fatal"
    CRITICAL = "critical"
    MINOR = "minor"
    WARNING = "warning"
    INFORMATIONAL = "informational"
    HARMLESS = "harmless"
    INDETERMINATE = "indeterminate"


_TYPE_PREFIXES = ("reversed-domain-name:", "content-type:")


def normal_alert_type(untrusted_type: str) -> str:
    """The Type of a Generic Alert as it is compared: trimmed, lower case, without the optional 1.2 prefix.

    DM 1.2 writes ``Reversed-Domain-Name: org.example/x``, registered enablers plain ``urn:oma:at:…`` (digest 3.2).
    """
    text = " ".join(untrusted_type.split()).lower()
    for prefix in _TYPE_PREFIXES:
        if text.startswith(prefix):
            return text[len(prefix) :].strip()
    return text
