"""What both roles of a session share: limits, how a session ended, and the table form of a state machine.

The machines themselves are in ``client_states`` and ``server_states``; a drawing of each is made from its table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Generic, TypeVar

#: Versions understood; behaviour is that of 1.2.1 for both (digest, "About 1.3").
VER_DTD = "1.2"
VER_PROTO = "DM/1.2"
SUPPORTED_PROTOCOLS = ("DM/1.2", "DM/1.3")

#: Messages one side may send in a session: a peer that keeps a session for ever is cut off.
MAX_MESSAGES = 20_000


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """What we announce to the peer, in octets (digest 2.4)."""

    max_msg_size: int = 65536
    max_obj_size: int = 1_048_576


DEFAULT_LIMITS = SessionLimits()


class EndReason(Enum):
    """Why a session is over."""

    DONE = "done"
    AUTHENTICATION = "authentication"  #: the peer refused us
    PEER_UNKNOWN = "peer unknown"  #: the peer did not prove who it is
    REFUSED = "refused"  #: the peer refused our header
    ABORTED_BY_PEER = "aborted by peer"
    ABORTED = "aborted"
    PROTOCOL = "protocol"  #: the peer sent what is no message of this session


@dataclass(frozen=True, slots=True)
class SessionOutcome:
    """How a session ended; ``sentence`` is for the person who reads the log."""

    reason: EndReason
    sentence: str

    @property
    def ok(self) -> bool:
        """Whether it ended well."""
        return self.reason is EndReason.DONE


S = TypeVar("S", bound=StrEnum)
E = TypeVar("E", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Row(Generic[S, E]):
    """One line of a state machine: in any of ``states``, on ``event``, go to ``target`` and run ``action``."""

    states: tuple[S, ...]
    event: E
    target: S
    action: str


def table_of(rows: Iterable[Row[S, E]]) -> Mapping[tuple[S, E], Row[S, E]]:
    """Rows by (state, event); a pair that two rows claim is a mistake of ours."""
    table: dict[tuple[S, E], Row[S, E]] = {}
    for row in rows:
        for state in row.states:
            if (state, row.event) in table:
                raise ValueError(f"two rows for {state} on {row.event}")
            table[state, row.event] = row
    return table


def session_id_text(number: int) -> str:
    """SessionID as this implementation writes it: 1 to 4 upper-case hexadecimal digits (digest 2.1)."""
    if not 0 < number <= 0xFFFF:
        raise ValueError(f"session id {number} is not between 1 and 65535")
    return f"{number:X}"
