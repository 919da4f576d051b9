"""The server session's state machine, as a table (OMA-TS-DM Protocol 8; digest sections 2.3 and 5).

Everything that decides where a server session goes next is here. What the events mean is decided by
``server.ServerSession._classify``; what the actions do is in the methods of the same names there.
"""

from __future__ import annotations

from enum import StrEnum

from dom0_agent.omadm.session import Row, table_of


class ServerState(StrEnum):
    """Where a server session is, between two messages of the device."""

    NEW = "New"
    CHALLENGING = "Challenging"  #: the device was asked to prove who it is
    MANAGING = "Managing"  #: a package of commands is out, Final was sent
    SENDING = "Sending"  #: our package goes on in the next message (chunks, MaxMsgSize)
    COLLECTING = "Collecting"  #: the device's package goes on; it was asked for the next message (1222)
    DECIDING = "Deciding"  #: within one call only: the device's package is complete
    OVER = "Over"


class ServerEvent(StrEnum):
    """What happened, as far as the machine cares."""

    STRANGER = "stranger"  #: no credentials, or wrong ones
    STRANGER_AGAIN = "stranger again"  #: the same after all tries, or while locked out
    DOUBTED = "doubted"  #: the device asks us to prove who we are
    UNFINISHED = "unfinished"  #: the device's package goes on
    PACKAGE = "package"  #: it is complete
    WAITING = "waiting"  #: our package is not complete, and the device asked for the rest
    SENT_ALL = "sent all"
    SENT_PART = "sent part"
    SENT_NOTHING = "sent nothing"  #: no commands are left: the session ends
    VERSION = "version"  #: a version of DTD or protocol that we do not know
    ABORTED = "aborted"  #: Alert 1223
    REFUSED = "refused"  #: the device does not believe our answer to that, or refused our header for another reason


_S, _E = ServerState, ServerEvent
_LISTENING = (_S.NEW, _S.CHALLENGING, _S.MANAGING, _S.SENDING, _S.COLLECTING)

ROWS: tuple[Row[ServerState, ServerEvent], ...] = (
    # who are you?
    Row(_LISTENING, _E.STRANGER, _S.CHALLENGING, "challenge"),
    Row(_LISTENING, _E.STRANGER_AGAIN, _S.OVER, "turn_away"),
    # who are we?
    Row(_LISTENING, _E.DOUBTED, _S.DECIDING, "prove_again"),
    # the session proper
    Row(_LISTENING, _E.UNFINISHED, _S.COLLECTING, "ask_for_more"),
    Row(_LISTENING, _E.PACKAGE, _S.DECIDING, "converse"),
    Row((_S.SENDING,), _E.WAITING, _S.DECIDING, "send_rest"),
    Row((_S.DECIDING,), _E.SENT_ALL, _S.MANAGING, ""),
    Row((_S.DECIDING,), _E.SENT_PART, _S.SENDING, ""),
    Row((_S.DECIDING,), _E.SENT_NOTHING, _S.OVER, ""),
    # the ways out
    Row(_LISTENING, _E.VERSION, _S.OVER, "refuse_version"),
    Row(_LISTENING, _E.ABORTED, _S.OVER, "answer_abort"),
    Row(_LISTENING, _E.REFUSED, _S.OVER, "give_up"),
)

SERVER_TABLE = table_of(ROWS)
